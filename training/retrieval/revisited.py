"""The protocol of revisited Oxford and Paris, for any ground truth in that format.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking": every query, cut out of its image, ranks all images of the database by
the dot product of their descriptors; see `keras_attn.metrics.retrieval`.
"""

import math
import pathlib

from keras_attn.metrics.retrieval import rank, revisited_scores
from keras_attn.pipelines.images.decoding import decode_image, stored_size
from keras_attn.pipelines.images.files import image_files
from keras_attn.pipelines.images.orientation import turned_box
from keras_attn.retrieval.whitening import pca_whitening, whiten
from keras_attn.training.retrieval.ground_truth import read_ground_truth
from keras_attn.training.retrieval.multi_scale import Excerpt, MultiScaleDescriber
from keras_attn.training.trained import load_trained

# The scales that retrieval usually averages.
MULTI_SCALE = (1.0, math.sqrt(2), 1 / math.sqrt(2))
# Pixels that a box may reach beyond its image; it is cut off there.
OVERHANG = 1
# Images between two reports of progress.
REPORTED = 256


def evaluate_retrieval(
    model_path,
    ground_truth,
    images,
    scales=(1.0,),
    longest_side=None,
    whitening=None,
    dimensions=None,
    checkpoint="best",
    progress=None,
):
    """Measures how well a trained model finds images, by the revisited protocol.

    Args:
        model_path: Folder of a run, or a `.keras` file.
        ground_truth: File, see `keras_attn.training.retrieval.ground_truth`.
        images: Folder of the images of database and queries, also in folders below.
        scales: Scales whose descriptors are averaged, such as `MULTI_SCALE`.
        longest_side: Longer side of the images, see `MultiScaleDescriber`; 1024 in the
            literature. By default images are fitted to the model's own size.
        whitening: Folder of other images, to learn a PCA whitening from.
        dimensions: Number of dimensions that it keeps; by default as many as it can.
        checkpoint: `best` or `last` model of a run.
        progress: Called with (images described, images to describe) now and then.

    Returns:
        Dict of `setups`: for `easy`, `medium` and `hard` the number of `queries` that
        have positives, `map`, `mp@1`, `mp@5` and `mp@10`, in 0..1, `None` without
        queries. And of what was computed: `model`, `checkpoint`, `ground_truth`,
        `images`, `queries`: numbers; `image_size` `[height, width]` or `None`,
        `longest_side`, `scales`, `whitening`, `dimension`.

    Raises:
        FileNotFoundError: If a file, folder or image is missing.
        ValueError: If the ground truth is malformed, a box lies outside its image, or
            an image cannot be decoded.
    """
    truth = read_ground_truth(ground_truth)
    if dimensions is not None and whitening is None:
        raise ValueError(
            "Expected `dimensions` with a whitening that keeps them. "
            f"Received: dimensions={dimensions}, whitening=None"
        )
    query_files = find_images(images, truth.queries)
    files = find_images(images, truth.images)
    others = [] if whitening is None else _files_of(whitening)
    trained = load_trained(model_path, checkpoint, classifies=False)
    describer = MultiScaleDescriber(trained, scales, longest_side)

    done, total = 0, len(query_files) + len(files) + len(others)

    def excerpts(paths, boxes):
        nonlocal done
        for path, box in zip(paths, boxes, strict=True):
            yield excerpt_of(path, box)
            done += 1
            if progress is not None and (done % REPORTED == 0 or done == total):
                progress(done, total)

    # The queries first, so that a box outside its image is seen at once.
    queries = describer.describe(excerpts(query_files, truth.boxes))
    database = describer.describe(excerpts(files, [None] * len(files)))
    if whitening is not None:
        learned_from = describer.describe(excerpts(others, [None] * len(others)))
        weights = pca_whitening(learned_from, dimensions)
        queries, database = whiten(queries, *weights), whiten(database, *weights)
    scores = revisited_scores(rank(queries, database), truth.judgements)
    spec = describer.spec
    return {
        "model": str(trained.path),
        "checkpoint": trained.checkpoint,
        "ground_truth": str(truth.path),
        "images": len(files),
        "queries": len(query_files),
        "image_size": None if longest_side else [spec.height, spec.width],
        "longest_side": longest_side,
        "scales": list(describer.scales),
        "whitening": None if whitening is None else f"PCA of {whitening}",
        "dimension": queries.shape[1],
        "setups": {
            setup: {name: _known(value) for name, value in row.items()}
            for setup, row in scores.items()
        },
    }


def find_images(folder, names):
    """The paths of images by their names, in a folder and those below it.

    Such as `"all_souls_000013"`, `"all_souls_000013.jpg"` or a path inside the folder.

    Raises:
        FileNotFoundError: If the folder holds no images, or one of them is missing.
        ValueError: If several files have a name.
    """
    folder = pathlib.Path(folder)
    by_path, by_name = {}, {}
    for file in _files_of(folder):
        inside = file.relative_to(folder)
        for key in {inside.as_posix(), inside.with_suffix("").as_posix()}:
            by_path.setdefault(key, []).append(file)
        for key in {file.name, file.stem}:
            by_name.setdefault(key, []).append(file)
    found = [by_path.get(name) or by_name.get(name, []) for name in names]
    missing = [name for name, files in zip(names, found, strict=True) if not files]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(
            "Expected all images of the ground truth. "
            f"Received: {folder}, without {missing[0]!r}{others}"
        )
    for name, files in zip(names, found, strict=True):
        if len(files) > 1:
            raise ValueError(
                f"Expected one image a name. Received: {name!r} for {files[0]} and "
                f"{files[1]}"
            )
    return [files[0] for files in found]


def excerpt_of(path, box=None):
    """An image file, or what lies in a box of it, as an `Excerpt`.

    The box is `(y0, x0, y1, x1)`, half-open pixels of the image as it is stored.

    Raises:
        CorruptImageError: If the file cannot be decoded.
        ValueError: If the box reaches beyond the image.
    """
    data = path.read_bytes()
    pixels = decode_image(data, str(path))
    height, width = pixels.shape[:2]
    whole = max(height, width)
    if box is not None:
        box = turned_box(box, *stored_size(data, str(path)))
        y0, x0, y1, x1 = box
        reach = max(-y0, -x0, y1 - height, x1 - width)
        pixels = pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        if reach > OVERHANG or not pixels.size:
            raise ValueError(
                f"Expected a box inside its image of {width} x {height} pixels. "
                f"Received: [x0, y0, x1, y1] = [{x0}, {y0}, {x1}, {y1}] of {path}"
            )
    return Excerpt(pixels, whole)


def format_retrieval(result):
    """A table of the setups, and what was computed."""
    names = ("map", "mp@1", "mp@5", "mp@10")
    lines = [f"{'SETUP':<8}{'QUERIES':>8}" + "".join(f"{name:>8}" for name in LABELS)]
    for setup, row in result["setups"].items():
        values = [row[name] for name in names]
        percents = ["-" if x is None else f"{100 * x:.2f}" for x in values]
        lines.append(
            f"{setup:<8}{row['queries']:>8}" + "".join(f"{x:>8}" for x in percents)
        )
    if result["longest_side"]:
        size = f"longest side {result['longest_side']}"
    else:
        size = "{} x {} pixels".format(*result["image_size"])
    scales = ", ".join(f"{scale:.4g}" for scale in result["scales"])
    lines.append(
        f"\n{result['queries']} queries in {result['images']} images; {size}, scales "
        f"{scales}; {result['dimension']} numbers per image, whitening: "
        f"{result['whitening'] or 'none'}"
    )
    return "\n".join(lines)


LABELS = ("mAP", "mP@1", "mP@5", "mP@10")


def _files_of(folder):
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of images. Received: {folder}")
    return image_files([folder])


def _known(value):
    return None if isinstance(value, float) and math.isnan(value) else value
