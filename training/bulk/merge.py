"""The results of a complete bulk job in one file, index or cache."""

import os
import pathlib
import shutil
import zipfile

import numpy as np

from keras_attn.pipelines.attention_maps.cache import MapCache
from keras_attn.pipelines.files import digest_of, write_then_rename
from keras_attn.training.bulk import formats
from keras_attn.training.bulk.plan import Plan, images_in
from keras_attn.training.retrieval.listing import Listing
from keras_attn.training.retrieval.store import IndexStore, Maker
from keras_attn.training.runs.map_model import heads_setting


def merge(path, output=None, table=False):
    """Merges the results of a job, a shard at a time.

    Args:
        path: Folder of the job.
        output: Path of the result; by default `merged.FORMAT`, `index` or `maps` in the
            folder.
        table: `False`: descriptors become an index for `keras-attn search`, attention
            maps a cache for training; `True`: they become one file as other results do.

    Returns:
        Dict of `output`, its path; `images`, the number of those in it; `problems`,
        that of images that have a reason instead of results; `aside`, the names of
        shards that are set aside, whose images are left out.

    Raises:
        FileNotFoundError: If the folder holds no job.
        ValueError: If the job is not complete, or a file is damaged.
    """
    plan = Plan.open(path)
    state = plan.state()
    if state.waiting:
        raise ValueError(
            f"Expected a complete job. Received: {path}, where the results of "
            f"{images_in(state.waiting)} images are still to be computed: repeat its "
            "command, and it resumes."
        )
    missing = set(state.aside)
    shards = [shard for shard in plan.shards() if shard not in missing]
    if not shards:
        raise ValueError(f"Expected results. Received: {path}. {state.named_aside()}")
    kinds = {} if table else {"embed": ("index", _index), "masks": ("maps", _maps)}
    default = f"merged.{plan.kind}", _table
    name, write = kinds.get(plan.maker["task"], default)
    output = pathlib.Path(output or plan.path / name)
    output.parent.mkdir(parents=True, exist_ok=True)
    problems = write(plan, shards, output)
    images = images_in(shards) - (0 if write is _table else problems)
    return {
        "output": str(output),
        "images": images,
        "problems": problems,
        "aside": state.to_dict()["aside"],
    }


def format_summary(summary):
    """One line on what was merged, and one on what was left out."""
    text = f"{summary['output']}: {summary['images']} images"
    if summary["problems"]:
        text += f", {summary['problems']} with a problem instead of results"
    if summary["aside"]:
        text += f"\nSet aside and left out: {', '.join(summary['aside'])}"
    return text


def _table(plan, shards, output):
    """Writes the rows of all shards to one file; the number of those with a problem."""
    with write_then_rename(output) as file:
        if plan.kind == "npz":
            return _npz(plan, shards, file)
        if plan.kind == "jsonl":
            problems = 0
            for shard in shards:
                problems += _problems(plan.read_shard(shard))
                with open(shard.path, "rb") as part:
                    shutil.copyfileobj(part, file)
            return problems
        return _parquet(plan, shards, file)


def _npz(plan, shards, file):
    problems, widest = 0, {}
    for shard in shards:
        rows = plan.read_shard(shard)
        problems += _problems(rows)
        for name, array in rows.items():
            widest[name] = max(widest.get(name, array.dtype), array.dtype)
    count = images_in(shards)
    with zipfile.ZipFile(file, "w") as archive:
        for name, (_, (_, *shape)) in plan.layout(count).items():
            dtype = widest[name]
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
                header["shape"] = (count, *shape)
                np.lib.format.write_array_header_2_0(member, header)
                for shard in shards:
                    # Of an archive only the array that is asked for is read.
                    with np.load(shard.path) as arrays:
                        member.write(arrays[name].astype(dtype).tobytes())
    return problems


def _parquet(plan, shards, file):
    arrow, problems, writer = formats.require_arrow(), 0, None
    for shard in shards:
        problems += _problems(plan.read_shard(shard))
        table = arrow.parquet.read_table(shard.path)
        writer = writer or arrow.parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    writer.close()
    return problems


def _problems(rows):
    return int((rows["problem"] != "").sum())


# ---- index and cache -----------------------------------------------------------------


def _index(plan, shards, output):
    """Writes an index of the descriptors; the number of images without any."""
    if plan.notes["maker"] is None:
        raise ValueError(
            "Expected a model in a file for an index. Received: "
            f"{plan.notes['model']}; `keras-attn adopt` writes one, --table merges the "
            "descriptors alone"
        )
    maker, images = Maker(**plan.notes["maker"]), plan.notes["images"]
    if not os.path.isdir(images) and os.path.exists(images):
        images = os.path.dirname(images)
    files = Listing.of(_files(plan, shards, images))
    if not len(files):
        raise ValueError(f"Expected readable images. Received: {plan.path}, with none")

    def rows(file):
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, "float32"))
        header["shape"] = (len(files), maker.dimension)
        np.lib.format.write_array_header_1_0(file, header)
        for _, table in _readable(plan, shards):
            file.write(table["descriptors"].tobytes())

    settings = {"index_type": "flat"}
    IndexStore.open_or_create(output, maker, images, "global", settings)
    with IndexStore.open(output).locked():
        IndexStore(output, maker, images, "global", settings).write(files, rows)
    return images_in(shards) - len(files)


def _files(plan, shards, images):
    """Yields the names and stamps of the files of an index."""
    for _, table in _readable(plan, shards):
        for name in table["name"].tolist():
            try:
                state = os.stat(os.path.join(images, name))
                yield name, (state.st_size, state.st_mtime_ns)
            except OSError:
                # In an archive, or at another place.
                yield name, (0, 0)


def _readable(plan, shards):
    """Yields shards and the rows of those of their images that have results."""
    for shard in shards:
        table = plan.read_shard(shard)
        good = table["problem"] == ""
        yield shard, {name: array[good] for name, array in table.items()}


def _maps(plan, shards, output):
    """Writes a cache of the maps; the number of images without any."""
    keys = np.concatenate([table["keys"] for _, table in _readable(plan, shards)])
    if not len(keys):
        raise ValueError(f"Expected readable images. Received: {plan.path}, with none")
    made = plan.maker
    maker = {
        "model": made["model"],
        "images": digest_of(keys),
        "examples": len(keys),
        "map_shape": plan.notes["map_shape"],
        "image_size": plan.notes["image_size"],
        "storage": made["storage"],
        "settings": heads_setting(made.get("heads")),
        "version": made["version"],
    }
    notes = {"model": plan.notes["model"], "data": plan.notes["images"]}
    cache = MapCache.open_or_create(output, maker, notes)
    tables = (table["maps"] for _, table in _readable(plan, shards))
    waiting = np.empty((0, *maker["map_shape"]), made["storage"])
    for shard in cache.shards():
        while len(waiting) < shard.stop - shard.start:
            waiting = np.concatenate([waiting, next(tables)])
        maps, waiting = np.split(waiting, [shard.stop - shard.start])
        part = {"maps": maps, "keys": keys[shard.start : shard.stop]}
        cache.write_shard(shard, part)
    return images_in(shards) - len(keys)
