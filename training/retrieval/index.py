"""Images -> descriptors: the network of a trained model, and an index of a folder."""

import hashlib
import pathlib

import numpy as np

from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.training.retrieval.descriptors import describe, embedder_of
from keras_attn.training.retrieval.nearest import (
    inverted_lists,
    require_faiss,
    save_lists,
)
from keras_attn.training.retrieval.store import (
    DESCRIPTION,
    TYPES,
    IndexStore,
    Maker,
    Part,
)
from keras_attn.training.trained import load_trained

# Images that are described and then saved together.
CHUNK = 256


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
        index_type: `"flat"`, `"float16"` or `"ivf"`, see
            `keras_attn.training.retrieval.nearest.Nearest`; by default what the index
            is, and `"flat"` for a new one.
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
            f"Received: {maker}. Use another --output for another model."
        )
    if store.images != str(folder) and pathlib.Path(store.images).exists():
        raise ValueError(
            f"Expected the folder that the index {store.path} is of, {store.images}. "
            f"Received: {folder}. Use another --output for another folder."
        )
