"""The generated data set: shapes whose place and parts are known."""

from keras_attn.pipelines.generated.dataset import (
    GeneratedExamples,
    generate,
    generated_source,
)

__all__ = ["GeneratedExamples", "generate", "generated_source"]
