"""The images of a run's splits with their annotations."""

from keras_attn.training.data.load import load_source_split


def annotated(run, source, names):
    """The `SplitSource` of a run's data, with annotations in pixels of its images.

    Raises:
        ValueError: If its `Source` lacks one of the annotations in `names`.
    """
    for name in names:
        if name not in source.annotations:
            raise ValueError(
                f"Expected a data set with {name!r} known. "
                f"Received: {source.name}, without {name!r}"
            )
    return load_source_split(run.recipe, source=source)
