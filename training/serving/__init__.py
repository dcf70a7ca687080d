"""From a trained model to one that is served."""

from training.serving.export import export

__all__ = ["export"]
