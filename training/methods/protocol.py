"""The protocol of a method."""

import abc
from typing import Protocol, runtime_checkable


@runtime_checkable
class Method(Protocol):
    """One method's part in the training that all methods share.

    Methods inherit from it, or from `keras_attn.training.methods.classifier`, and
    define what differs.

    Attributes:
        classifies: Whether its models have the output `logits`.
        next_commands: Commands for a trained run, with `{run}`, `{data}`,
            `{dataset}` and `{image}` in place of its folder, the option, the name and
            an image of its data.
        first_epoch: Function of a recipe, its compiled trainer and the splits that
            trains the first epoch in place of `fit`, and returns its logs; `None`: all
            epochs are trained by `fit`.
        explainer: A `keras_attn.training.explain.protocol.Explainer` of its models;
            `None`: they are explained by their outputs.
    """

    classifies: bool
    next_commands: tuple[str, ...]
    explainer: object | None = None
    first_epoch = None

    def check(self, recipe):
        """Raises ValueError or FileNotFoundError for what is missing or wrong.

        Called before any data is read.
        """

    @abc.abstractmethod
    def make_model(self, recipe, spec):
        """The network with random or published weights.

        Args:
            recipe: `Recipe`.
            spec: `ImageSpec` of its images.

        Returns:
            A model from raw pixels to named outputs.
        """

    def make_trainer(self, recipe, spec, steps):
        """The model whose `fit` trains the network; by default the network itself.

        Args:
            recipe, spec: See `make_model`.
            steps: Steps per epoch.
        """
        return self.make_model(recipe, spec)

    def start(self, recipe, model):
        """Gives a new trainer its initial weights; their origin as a text."""
        return "random"

    @abc.abstractmethod
    def compile(self, model, recipe, steps):
        """Compiles a trainer; `steps` as in `make_trainer`."""

    @abc.abstractmethod
    def make_feed(self, recipe, splits, spec):
        """The `Feed` of a trainer, see `keras_attn.training.methods.feeds.protocol`.

        Args:
            recipe, spec: See `make_model`.
            splits: Dict from `train` and `validation` to `(images, labels)`.
        """

    def label(self, model, batches):
        """A feed's batches as the trainer's `fit` takes them."""
        return batches

    def saved_model(self, recipe, spec, model):
        """The model that is saved after every epoch; by default the trainer."""
        return model

    def callbacks(self, recipe, saved, splits):
        """Callbacks that run at the end of an epoch before the model is saved.

        Args:
            recipe, splits: See `make_feed`.
            saved: See `saved_model`.
        """
        return []

    @abc.abstractmethod
    def watched(self, model):
        """The log whose greatest value makes the best model of a run.

        Only of a run with validation images; of others the last model is the best.
        """

    def patience(self, recipe):
        """Epochs without a better watched log before the end; 0: all are trained."""
        return 0

    def serving_model(self, model, run):
        """A run's saved model as it is used.

        Args:
            model: The saved model.
            run: `Run`.
        """
        return model

    def control_model(self, model, run):
        """The model that a control is evaluated as, or `None`.

        Args:
            model, run: See `serving_model`.
        """

    def fed_logits(self, run, images, labels):
        """`(logits, labels)` of a run whose model needs more than images, or `None`.

        Args:
            run: `Run`.
            images, labels: Images of its data set and their labels.
        """
