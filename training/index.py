"""Images -> descriptors: the network of a trained model, and an index of a folder."""

import hashlib
import pathlib

import keras
import numpy as np
from keras import layers

from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_evidence import ClassEvidence
from training.index_store import DESCRIPTION, TYPES, IndexStore, Maker, Part
from training.nearest import inverted_lists, require_faiss, save_lists
from training.predict import image_files, read_images
from training.trained import load_trained

# Images that are described and then saved together.
CHUNK = 256

# What may stand between the last `Dense` layer and the output `logits`, or before it.
_PASSED = (layers.Identity, layers.Dropout, layers.Activation, layers.Softmax)


def embedder_of(trained):
    """The network that describes an image by a vector, all weights shared.

    The vector is the output `embedding` of a model that has one; otherwise what its
    classifier sees, the input of the last `Dense` layer: the pooled features. Of an
    AnchorNet these are the features of each branch, pooled with its attention and
    scaled to length one.

    Args:
        trained: `Trained`, see `training.trained.load_trained`.

    Returns:
        `keras.Model`: raw pixels of the model's size in; out `(batch, dimension)`,
        float32, of Euclidean length one, so that products are cosine similarities.

    Raises:
        ValueError: If there is no such vector: the model classifies patches or exits
            early, so its logits are no function of one vector an image.
    """
    described = _described(trained.model.output)
    if described is None:
        raise ValueError(
            "Expected a model with an output named 'embedding', or whose logits are "
            "a Dense layer of pooled features. "
            f"Received: {trained.path} with outputs {', '.join(trained.model.output)}, "
            "which has neither"
        )
    return keras.Model(trained.model.inputs, _unit(described), name="embedder")


def can_embed(model):
    """Whether `embedder_of` finds a vector in the model."""
    return _described(model.output) is not None


def _described(output):
    """The vector that describes an image, or `None`."""
    if "embedding" in output:
        described = output["embedding"]
    else:
        described = _pooled(output["logits"])
    has_one = described is not None and len(described.shape) == 2
    return described if has_one else None


def _unit(vectors):
    return layers.UnitNormalization(dtype="float32")(vectors)


def _pooled(logits):
    """The vector that logits are computed from, or `None`."""
    while True:
        operation, sources = _origin(logits)
        if isinstance(operation, layers.GlobalAveragePooling2D):
            return logits
        if isinstance(operation, layers.Dense):
            return sources[0]
        if isinstance(operation, ClassEvidence):
            return _attended(sources)
        if isinstance(operation, BranchDecision):
            branches = [_pooled(source) for source in sources]
            if any(branch is None for branch in branches):
                return None
            return layers.Concatenate()([_unit(branch) for branch in branches])
        if not isinstance(operation, _PASSED):
            return None
        (logits,) = sources


def _origin(tensor):
    """The operation that a tensor comes from, and that operation's inputs."""
    operation, index, _ = tensor._keras_history
    node = operation._inbound_nodes[index]
    return operation, node.input_tensors


def _attended(sources):
    """The features whose linear map are the logits of a `ClassEvidence` layer."""
    if len(sources) == 1:
        return layers.GlobalAveragePooling2D()(sources[0])
    features, attention = (keras.ops.cast(source, "float32") for source in sources)
    return keras.ops.sum(features * attention, axis=(1, 2))


def describe(embedder, images, batch_size=64):
    """Descriptors of images.

    Args:
        embedder: As `embedder_of` returns it.
        images: `(examples, height, width, 3)`, raw pixels of the model's size; an
            array, or what is sliced like one.
        batch_size: Images at a time.

    Returns:
        `(examples, dimension)`, float32, of length one; zero where all features are.

    Raises:
        ValueError: If a descriptor is not finite.
    """
    parts = [
        np.asarray(
            embedder.predict_on_batch(np.asarray(images[start : start + batch_size]))
        )
        for start in range(0, len(images), batch_size)
    ]
    parts = parts or [np.empty((0, embedder.output.shape[-1]), "float32")]
    descriptors = np.concatenate(parts).astype("float32")
    if not np.isfinite(descriptors).all():
        raise ValueError(
            "Expected finite descriptors. Received: NaN or infinite ones; the training "
            "of the model diverged."
        )
    return descriptors


def maker_of(trained, embedder):
    """The `Maker` that an index names for a trained model."""
    with open(trained.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    spec = trained.spec
    fields = ("height", "width", "mean", "std", "interpolation", "crop_fraction")
    described = spec.to_dict()
    path = trained.run.workdir if trained.run else trained.path
    return Maker(
        path=str(pathlib.Path(path).resolve()),
        checkpoint=trained.checkpoint,
        name=trained.name,
        digest=digest,
        dimension=embedder.output.shape[-1],
        preprocessing={field: described[field] for field in fields},
    )


def index_folder(
    path,
    folder,
    output,
    index_type=None,
    checkpoint="best",
    on_corrupt="error",
    progress=None,
):
    """Describes all images below a folder and keeps an index of them.

    Where the index exists it is brought up to date: new files and files whose size or
    time of change differs are described, files that are gone are dropped. What is
    described is saved every few hundred images, so that an interrupted call can be
    repeated and goes on.

    Args:
        path: Folder of a run, or a `.keras` file.
        folder: Folder of images.
        output: Folder of the index.
        index_type: `"flat"`, `"float16"` or `"ivf"`, see `training.nearest.Nearest`;
            by default what the index is, and `"flat"` for a new one.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        progress: Called with (images described, images to describe) now and then.

    Returns:
        `(summary, problems)`: the numbers of `images` in the index and of those
        `added`, `changed` and `removed`, the `dimension` and the `index_type`; one
        `CorruptImageError` for each image left out.

    Raises:
        ValueError: If the index was made by another model or of another folder.
    """
    folder = pathlib.Path(folder).resolve()
    if folder.is_file():
        raise ValueError(f"Expected a folder of images. Received: {folder}, a file")
    if index_type not in (None, *TYPES):
        raise ValueError(
            f"Expected `index_type` to be one of {TYPES}. "
            f"Received: index_type={index_type!r}"
        )
    if index_type == "ivf":
        require_faiss()
    found = _stamps(folder)
    trained = load_trained(path, checkpoint, classifies=False)
    embedder = embedder_of(trained)
    maker = maker_of(trained, embedder)
    if (pathlib.Path(output) / DESCRIPTION).exists():
        store = IndexStore.open(output)
    else:
        store = IndexStore.create(output, maker, folder, index_type or "flat")
    with store.locked():
        store = IndexStore.open(output)
        _check_same(store, maker, folder)
        before = store.stamps()
        waiting = [name for name in found if before.get(name) != found[name]]
        problems = []
        for start in range(0, len(waiting), CHUNK):
            part = waiting[start : start + CHUNK]
            files = [folder / name for name in part]
            images, kept, corrupt = read_images(files, trained.spec, on_corrupt)
            problems += corrupt
            if kept:
                names = [file.relative_to(folder).as_posix() for file in kept]
                stamps = np.array([found[name] for name in names])
                store.add(Part(tuple(names), stamps, describe(embedder, images)))
            if progress is not None:
                progress(start + len(part), len(waiting))
        store.maker, store.images = maker, str(folder)
        store.index_type = index_type or store.index_type
        store.keep(found)
        after = store.stamps()
        if store.index_type == "ivf" and after:
            save_lists(store, inverted_lists(store))
        store.write_description()
    if not after:
        raise ValueError(f"Expected a readable image. Received: {problems[0]}")
    new = [name for name in waiting if name in after]
    return {
        "images": len(after),
        "added": sum(name not in before for name in new),
        "changed": sum(name in before for name in new),
        "removed": sum(name not in after for name in before),
        "dimension": maker.dimension,
        "index_type": store.index_type,
    }, problems


def format_summary(summary):
    """One sentence on what an index holds and what was done to it."""
    return (
        f"{summary['images']} images ({summary['added']} added, {summary['changed']} "
        f"changed, {summary['removed']} removed), {summary['dimension']} numbers each, "
        f"type {summary['index_type']}"
    )


def _stamps(folder):
    """Dict from the images below a folder to their size and time of change."""
    found = {}
    for file in image_files([folder]):
        state = file.stat()
        found[file.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found


def _check_same(store, maker, folder):
    if not maker.is_same(store.maker):
        raise ValueError(
            f"Expected the model that made the index {store.path}, {store.maker}. "
            f"Received: {maker}. Use another --out for another model."
        )
    if store.images != str(folder) and pathlib.Path(store.images).exists():
        raise ValueError(
            f"Expected the folder that the index {store.path} is of, {store.images}. "
            f"Received: {folder}. Use another --out for another folder."
        )
