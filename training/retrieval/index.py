"""A folder of images -> an index of it, kept up to date."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras

from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.retrieval.methods import IndexMethod, method_of
from keras_attn.training.retrieval.store import IndexParts, IndexStore, Maker
from keras_attn.training.trained import load_trained


def maker_of(trained, embedder):
    """The `Maker` of the descriptors of a trained model."""
    fields = ("height", "width", "mean", "std", "interpolation", "crop_fraction")
    described = trained.spec.to_dict()
    path = pathlib.Path(trained.run.workdir if trained.run else trained.path)
    if not path.exists():
        raise ValueError(
            "Expected a model in a file for an index. Received: "
            f"{path}; `keras-attn adopt` writes one"
        )
    return Maker(
        path=str(path.resolve()),
        checkpoint=trained.checkpoint,
        name=trained.name,
        digest=digest_of(pathlib.Path(trained.path)),
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
    method=None,
    words=None,
):
    """Describes all images below a folder and keeps an index of them.

    Where the index exists it is brought up to date: new files and files whose size or
    time of change differs are described, files that are gone are dropped. Descriptors
    are saved every few hundred images, and a call that was interrupted is finished
    first. The index is locked meanwhile.

    Args:
        path: Folder of a run, or a `.keras` file.
        folder: Folder of images.
        output: Folder of the index.
        index_type: With the method `"global"`: `"flat"`, `"float16"` or `"ivf"`, see
            `keras_attn.training.retrieval.nearest.Nearest`; by default that of the
            index, and `"flat"` for a new one.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        progress: Called with (images described, images to describe) now and then.
        method: `"global"`: one descriptor per image; `"asmk"`: visual words of local
            descriptors, see `keras_attn.training.retrieval.asmk`. By default that of
            the index, and `"global"` for a new one.
        words: With the method `"asmk"`: number of visual words.

    Returns:
        `(summary, problems)`: the numbers of `images` in the index and of those
        `added`, `changed` and `removed`, the `dimension`, the `method` and its
        settings; one `CorruptImageError` for each image left out.

    Raises:
        ValueError: If the index was made by another model or method or of another
            folder.
    """
    folder = pathlib.Path(folder).resolve()
    if folder.is_file():
        raise ValueError(f"Expected a folder of images. Received: {folder}, a file")
    if method is None:
        is_there = (pathlib.Path(output) / IndexStore.DESCRIPTION).exists()
        method = IndexStore.open(output).method if is_there else "global"
    way = method_of(method)
    options = _options(way, method, index_type=index_type, words=words)
    found = _stamps(folder)
    trained = load_trained(path, checkpoint, classifies=False)
    embedder = way.embedder(trained)
    maker = maker_of(trained, embedder)
    settings = way.settings({}, **options)
    IndexStore.open_or_create(output, maker, folder, method, settings)
    with IndexStore.open(output).locked():
        store = IndexStore.open(output)
        _check_same(store, maker, folder, method)
        before = store.files
        store.maker, store.images = maker, str(folder)
        store.settings = way.settings(store.settings, **options)
        work = _Indexing(
            store, way, found, embedder, trained.spec, on_corrupt, progress, []
        )
        if IndexParts.are_left(store):
            work.run(IndexParts.begun(store, way.dtype))
        waiting = work.waiting()
        work.run(IndexParts.begun(store, way.dtype, waiting) if waiting else None)
        way.complete(store)
    if not store.files:
        raise ValueError(f"Expected a readable image. Received: {work.problems[0]}")
    after = store.files
    new = [name for name in after if before.get(name) != after[name]]
    return {
        "images": len(after),
        "added": sum(name not in before for name in new),
        "changed": sum(name in before for name in new),
        "removed": sum(name not in after for name in before),
        "dimension": maker.dimension,
        "method": method,
        **{option: store.settings[option] for option in way.options},
    }, work.problems


@dataclasses.dataclass
class _Indexing:
    """The steps of `index_folder` on a locked index: list, describe, store.

    Args:
        found: Dict of the files in the folder now, see `IndexStore`.
        problems: List that the errors of skipped files are added to.
    """

    store: IndexStore
    method: IndexMethod
    found: dict
    embedder: keras.Model
    spec: ImageSpec
    on_corrupt: str
    progress: Callable | None
    problems: list

    def waiting(self):
        """The files that the index lacks in this state, but for those just skipped."""
        there, folder = self.store.files, pathlib.Path(self.store.images)
        skipped = {problem.where for problem in self.problems}
        return {
            name: stamp
            for name, stamp in self.found.items()
            if there.get(name) != stamp and str(folder / name) not in skipped
        }

    def run(self, parts):
        """Describes what `parts` lacks, and adds it to the index; `None`: nothing."""
        for shard in parts.missing() if parts else ():
            self.describe(parts, shard)
            if self.progress is not None:
                left = sum(shard.stop - shard.start for shard in parts.missing())
                self.progress(len(parts) - left, len(parts))
        self.keep(parts)

    def describe(self, parts, shard):
        """Describes those files of a shard that are as they were listed."""
        folder, numbers = pathlib.Path(self.store.images), {}
        listed = list(parts.files.items())[shard.start : shard.stop]
        for number, (name, stamp) in enumerate(listed, shard.start):
            if self.found.get(name) == stamp:
                numbers[folder / name] = number
        images, kept, corrupt = read_images([*numbers], self.spec, self.on_corrupt)
        self.problems += corrupt
        described = self.method.describe(self.embedder, images) if kept else []
        parts.write_described(shard, [numbers[file] for file in kept], described)

    def keep(self, parts):
        """Drops what is gone, and adds what was described."""
        store, listed = self.store, list(parts.files.items()) if parts else []
        shards = parts.described if parts else tuple
        new = dict(
            listed[number] for arrays in shards() for number in arrays["numbers"]
        )
        there = list(store.files.items())
        kept = [
            row
            for row, (name, stamp) in enumerate(there)
            if self.found.get(name) == stamp and name not in new
        ]
        files = {**dict(there[row] for row in kept), **new}
        if new or len(kept) < len(there):
            store.write(files, self.method.rows(store, kept, shards))
        else:
            store.write_description()
        if parts:
            parts.delete()


def format_summary(summary):
    """One sentence on what an index holds and what was changed."""
    return (
        f"{summary['images']} images ({summary['added']} added, {summary['changed']} "
        f"changed, {summary['removed']} removed), "
        f"{method_of(summary['method']).text(summary)}"
    )


def _options(way, method, **options):
    """Those of the options that the method has.

    Raises:
        ValueError: If one of the others was chosen.
    """
    for name, value in options.items():
        if value is not None and name not in way.options:
            raise ValueError(
                f"Expected `{name}` with the method that has it. "
                f"Received: {name}={value!r}, method={method!r}"
            )
    return {name: options[name] for name in way.options}


def _stamps(folder):
    """Dict from the images below a folder to their size and time of change."""
    found = {}
    for file in image_files([folder]):
        state = file.stat()
        found[file.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found


def _check_same(store, maker, folder, method):
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
    if store.method != method:
        raise ValueError(
            f"Expected the method of the index {store.path}, {store.method!r}. "
            f"Received: method={method!r}. Use another --output for another method."
        )
