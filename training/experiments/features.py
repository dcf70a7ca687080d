"""The features before a network's last stage, measured and drawn.

Class-embedding paper, section 4.3 and figure 5: every cell of a feature map is a
point. 80 images per class are sampled, as in the paper, and a few cells of each; all
64 cells of an 8x8 map of 800 images would be 51,200 points.
"""

import dataclasses

import keras
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_attn.training.experiments.protocol import Drawing

IMAGES_PER_CLASS = 80
CELLS_PER_IMAGE = 4
NEIGHBOURS = 10
COMPONENTS = 50
PERPLEXITY = 30

# Name of the layer before the last stage, and of the block that may follow it.
STAGE = "stage3"
BLOCK = "class_embedding"


@dataclasses.dataclass(frozen=True)
class Cells:
    """Sampled cells of the feature maps at one place of a network.

    Args:
        place: Name of the place.
        features: `(cells, channels)`.
        labels: Class of each cell's image.
        images: Number of each cell's image.
    """

    place: str
    features: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def sampled_cells(run, examples, seed=0):
    """Cells of a trained run's features before and, if it has one, after the block.

    The same images, of `(images, labels)`, and cells for every run, whatever its seed.
    The last of the list of `Cells` is what the last stage receives.
    """
    images, labels = examples
    generator = np.random.default_rng(seed)
    chosen = _sample_images(labels, generator)
    model = run.load_model("last")
    maps = keras.Model(model.inputs, _places(model)).predict(
        images[chosen], batch_size=128, verbose=0
    )
    count, height, width, _ = next(iter(maps.values())).shape
    order = generator.random((count, height * width)).argsort(axis=1)
    cells = order[:, :CELLS_PER_IMAGE]
    owners = np.repeat(np.arange(count), cells.shape[1])
    return [
        Cells(
            place,
            np.reshape(values, (count, height * width, -1))[owners, cells.ravel()],
            labels[chosen][owners],
            owners,
        )
        for place, values in maps.items()
    ]


def _sample_images(labels, generator):
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:IMAGES_PER_CLASS]
        for label in np.unique(labels)
    ]
    return np.concatenate(chosen)


def _places(model):
    """The features that are compared, by name."""
    names = [layer.name for layer in model.layers]
    if STAGE not in names:
        raise ValueError(
            f"Expected a network with a layer named {STAGE!r}. "
            f"Received: {model.name!r} with layers {', '.join(names)}"
        )
    places = {f"{STAGE} output": model.get_layer(STAGE).output}
    if BLOCK in names:
        block = model.get_layer(BLOCK)
        # Called once more, since `block.output` is a list without names.
        places["block output"] = block(block.input)["features"]
    return places


def same_class_neighbours(features, labels, images, neighbours=NEIGHBOURS):
    """Share, in per cent, of the nearest cells of other images with the cell's class.

    The mean over the cells; a tenth is chance for ten classes. Nearest by Euclidean
    distance, with every channel scaled to spread one. Features are `(cells, channels)`;
    labels and the numbers of the images `(cells,)`.
    """
    points = standardized(features)
    squares = np.sum(points**2, axis=1)
    hits = []
    for rows in np.array_split(np.arange(len(points)), max(1, len(points) // 500)):
        distances = squares[rows, None] + squares - 2.0 * points[rows] @ points.T
        distances[images[rows, None] == images] = np.inf
        nearest = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
        hits.append(labels[nearest] == labels[rows, None])
    return 100.0 * float(np.mean(np.concatenate(hits)))


def standardized(features):
    """Every channel with mean zero and spread one; a constant channel is zero."""
    features = np.asarray(features, "float64")
    spread = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def projected(features, seed=0):
    """The points in two dimensions: PCA, then t-SNE.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    decomposition, manifold = require_scikit_learn()
    points = standardized(features)
    components = min(COMPONENTS, *points.shape)
    points = decomposition.PCA(components, random_state=seed).fit_transform(points)
    # The perplexity of t-SNE must be well below the number of points.
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    return manifold.TSNE(
        2, perplexity=perplexity, init="pca", random_state=seed
    ).fit_transform(points)


def require_scikit_learn():
    try:
        from sklearn import decomposition, manifold
    except ImportError as error:
        raise ImportError(
            "The t-SNE picture needs scikit-learn: pip install 'keras-attn[figures]'"
        ) from error
    return decomposition, manifold


def tsne_figure(runs, examples, class_names):
    """Panels of the runs' features, coloured by class; see `Figure` in `protocol`."""
    panels = [
        (label, cells)
        for label, run in runs.items()
        for cells in sampled_cells(run, examples)
    ]
    figure = Figure(figsize=(4.2 * len(panels), 4.9))
    FigureCanvasAgg(figure)
    notes = []
    for number, (label, cells) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        points = projected(cells.features)
        for value in np.unique(cells.labels):
            axes.scatter(
                *points[cells.labels == value].T,
                s=5,
                linewidths=0,
                color=_colour(value),
                label=class_names[value],
            )
        share = same_class_neighbours(cells.features, cells.labels, cells.images)
        axes.set_title(
            f"{label}\n{cells.place}\nsame-class neighbours: {share:.1f} %", fontsize=9
        )
        axes.set_xticks([])
        axes.set_yticks([])
        notes.append(f"{label}, {cells.place}: {share:.2f} % same-class neighbours.")
    names, handles = axes.get_legend_handles_labels()[::-1]
    if len(names) <= 20:
        figure.legend(
            handles,
            names,
            loc="lower center",
            ncols=min(5, len(names)),
            fontsize=8,
            markerscale=3,
            frameon=False,
        )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return Drawing(figure, notes)


def _colour(label):
    return f"C{label}" if label < 10 else f"{(label % 17) / 20}"
