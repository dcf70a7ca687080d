"""Jobs over any number of images, by any number of workers."""

import json
import os
import sys

from keras_attn.pipelines.progress import counted
from keras_attn.training.commands import masks as cached_masks
from keras_attn.training.commands.arguments import (
    add_json,
    add_model,
    add_output,
    note,
    source_of,
)
from keras_attn.training.explain.names import AUTO, METHODS

FORMATS, RUNNERS = ("npz", "parquet", "jsonl"), ("local", "ray")
MANIFESTS = ("slurm", "kubernetes")
# Exit codes of a job with shards that are set aside, and of one that is not complete.
ASIDE, INCOMPLETE = 1, 3


def add(command):
    group = command.group(
        "bulk", "a task over any number of images, by any number of workers"
    )
    texts = {
        predict: "classes of all images of a source",
        explain: "maps of classes of all images of a source",
        localize: "the patches of all images of a source",
        embed: "descriptors of all images of a source, to be merged into an index",
        masks: "attention maps of all images of a source, to be merged into a cache",
    }
    added = {}
    for function, text in texts.items():
        added[function] = group(function, text)
        if function is masks:
            added[masks].add_argument(
                "model",
                metavar="WORKDIR|MODEL.keras",
                help="a transformer, or a model from images to maps",
            )
            added[masks].set_defaults(checkpoint="best")
        else:
            add_model(added[function], of_others=function is not localize)
        _add_job(added[function])
    for function, top in ((predict, 5), (explain, 1)):
        added[function].add_argument(
            "--top", type=int, default=top, help=f"classes per image ({top})"
        )
    added[explain].add_argument(
        "--method",
        choices=METHODS,
        default=AUTO,
        help="the model's own maps, or a method for any model (auto)",
    )
    added[explain].add_argument(
        "--cell",
        type=int,
        default=8,
        metavar="PIXELS",
        help="side of the cells that maps are averaged over; 1: all pixels (8)",
    )
    _add_localize(added[localize])
    _add_masks(added[masks])

    added = group(status, "state of a job; exit code 1: shards set aside, 3: not done")
    added.add_argument("folder", metavar="DIR", help="folder of the job")
    add_json(added)

    added = group(merge, "the results of a complete job in one file, index or cache")
    added.add_argument("folder", metavar="DIR", help="folder of the job")
    add_output(added, "file or folder (merged.FORMAT, index or maps in DIR)")
    added.add_argument(
        "--table", action="store_true", help="descriptors and maps in one file, too"
    )
    add_json(added)


def _add_job(added):
    added.add_argument(
        "source",
        metavar="SOURCE",
        help="folder, list.txt, table.csv, tar shards, Parquet, or a URL of these",
    )
    add_output(added, "folder of the results", metavar="DIR", required=True)
    added.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (1)"
    )
    added.add_argument(
        "--part", metavar="I/N", help="only the shards I, I + N, ..., for array jobs"
    )
    added.add_argument("--runner", choices=RUNNERS, default="local", help="(local)")
    added.add_argument(
        "--address", metavar="HOST:PORT", help="Ray cluster (one of this machine)"
    )
    added.add_argument("--format", choices=FORMATS, default="npz", help="(npz)")
    added.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images at a time (32)"
    )
    added.add_argument(
        "--shard", type=int, default=256, metavar="N", help="images per file (256)"
    )
    added.add_argument(
        "--retry", action="store_true", help="try shards again that are set aside"
    )
    added.add_argument(
        "--manifest",
        choices=MANIFESTS,
        help="print an array job of --workers parts and compute nothing",
    )


def _add_localize(added):
    added.add_argument(
        "--max-patches",
        type=int,
        nargs="+",
        metavar="K",
        help="most patches per image, one value or one per branch (the recipe's)",
    )
    added.add_argument(
        "--iou-threshold",
        type=float,
        metavar="T",
        help="patches overlap by less than this, 0 to 1 (the recipe's)",
    )
    added.add_argument(
        "--coverage",
        type=float,
        nargs="+",
        metavar="P",
        help="share of the cells to choose among, one value or one per branch",
    )


def _add_masks(added):
    added.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the images (the model's)"
    )
    added.add_argument(
        "--network-size",
        type=int,
        metavar="PIXELS",
        help="side that they are enlarged to (the model's)",
    )
    added.add_argument(
        "--crop-fraction",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="central part of the images (1)",
    )
    added.add_argument(
        "--storage", choices=("uint8", "float16"), default="uint8", help="(uint8)"
    )
    cached_masks.add_heads(added)


def predict(arguments):
    return _job(arguments, "top")


def explain(arguments):
    return _job(arguments, "top", "method", "cell")


def localize(arguments):
    return _job(arguments, "max_patches", "iou_threshold", "coverage")


def embed(arguments):
    return _job(arguments)


def masks(arguments):
    return _job(arguments, "size", "network_size", "crop_fraction", "storage", "heads")


def _job(arguments, *settings):
    """Runs the job that a command describes; its exit code."""
    from keras_attn.training.bulk.plan import Plan
    from keras_attn.training.bulk.run import part_of, run

    part = part_of(arguments.part) if arguments.part else (1, 1)
    if arguments.manifest:
        return _print_manifest(arguments)
    if arguments.runner == "ray":
        from keras_attn.training.bulk import on_ray

        # Before the model is loaded.
        on_ray.require_ray()
        if arguments.address:
            on_ray.check_address(arguments.address)
    of_others = hasattr(arguments, "pixels")
    plan = Plan.make(
        arguments.action,
        source_of(arguments) if of_others else arguments.model,
        arguments.source,
        arguments.output,
        format=arguments.format,
        checkpoint=arguments.checkpoint,
        batch_size=arguments.batch_size,
        shard=arguments.shard,
        **{name: getattr(arguments, name) for name in settings},
    )
    if plan.images.left_out:
        note(arguments, f"Left out: {plan.images.left_out}")
    state = run(
        plan,
        runner=arguments.runner,
        workers=arguments.workers,
        part=part,
        address=arguments.address,
        retry=arguments.retry,
        progress=counted("Computed"),
    )
    return _reported(state, arguments.output, of_part=part != (1, 1))


def _print_manifest(arguments):
    from keras_attn.training.bulk.manifests import manifest

    words, given = [], iter(arguments.command_line)
    for word in given:
        name, equals, _ = word.partition("=")
        if name not in ("--manifest", "--workers", "--part"):
            words.append(word)
        elif not equals:
            next(given)
    text = manifest(arguments.manifest, words, arguments.workers, os.getcwd())
    print(text, end="")


def _reported(state, folder, of_part=False):
    """Prints the state of a job; its exit code."""
    which = " of this part" if of_part else ""
    print(f"{folder}: results of {state.done} of {state.images} images{which}")
    if state.aside:
        print(state.named_aside(), file=sys.stderr)
        return ASIDE
    return INCOMPLETE if state.waiting else 0


def status(arguments):
    from keras_attn.training.bulk.plan import Plan

    state = Plan.open(arguments.folder).state()
    if not arguments.json:
        return _reported(state, arguments.folder)
    print(json.dumps(state.to_dict(), indent=2))
    return ASIDE if state.aside else INCOMPLETE if state.waiting else 0


def merge(arguments):
    from keras_attn.training.bulk.merge import format_summary, merge

    summary = merge(arguments.folder, arguments.output, table=arguments.table)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        print(format_summary(summary))
    return ASIDE if summary["aside"] else 0
