"""Batches of images and their attention maps."""

import numpy as np

from keras_attn.pipelines.attention_maps.batches import (
    masked_batches,
    masked_evaluation_batches,
    online_masked_batches,
)
from keras_attn.pipelines.attention_maps.cache import MapCache
from keras_attn.pipelines.attention_maps.compute import compute_maps
from keras_attn.pipelines.attention_maps.digests import image_keys, model_digest
from keras_attn.pipelines.batches import build
from keras_attn.pipelines.files import copy_file, digest_of, save_then_rename
from keras_attn.training.methods.feeds import known_objects
from keras_attn.training.methods.feeds.images import VALIDATION_BATCH, ImageFeed
from keras_attn.training.methods.feeds.progress import shown
from keras_attn.training.runs import devices
from keras_attn.training.runs.map_model import (
    OBJECTS,
    find_heads,
    load_map_model,
    named_heads,
)
from keras_attn.training.runs.run import model_file

# Name of the map model in a run's `checkpoints`.
MAP_MODEL = "map_model.keras"


def network_size(recipe):
    """Height and width that the network sees."""
    return recipe.options.network_size or recipe.image_size


def reads_maps(recipe):
    """True if the logits depend on the maps that the recipe's model is given."""
    options = recipe.options
    return (
        options.mask_target != "none"
        and options.mask_strength > 0
        and options.mask_control != "constant"
    )


def reads_true_maps(recipe):
    """True if the logits depend on the known objects of the images, so on no model."""
    return recipe.options.map_mode in known_objects.MODES and reads_maps(recipe)


def check_map_model(recipe):
    """Checks the `map_model` of a recipe that needs one.

    Raises:
        ValueError: If the recipe names none, or wants the true maps of objects that
            are not known.
        FileNotFoundError: If there is no such file.
    """
    if not reads_maps(recipe):
        return
    heads = named_heads(recipe.options.map_heads)
    if heads == OBJECTS and recipe.options.map_mode == "end_to_end":
        raise ValueError(
            "Expected heads by their indices with map_mode=end_to_end. "
            "Received: map_heads=objects"
        )
    if reads_true_maps(recipe):
        known_objects.check_true_maps(recipe)
        return
    if not recipe.options.map_model:
        raise ValueError(
            f"Expected map_model of recipe {recipe.name!r}, the run or file of the "
            "model that makes the maps: --set map_model=RUN. Received: none"
        )
    model_file(recipe.options.map_model)


class MapFeed(ImageFeed):
    """Whole images, augmented, and their maps, moved together.

    Maps are computed once for all images and kept beside the model that makes them,
    where all runs find them; with `map_mode` "online" they are computed for every
    augmented image, and with `true_mask` and `true_box` there is no map model, see
    `keras_attn.training.methods.feeds.known_objects`. Where the logits do not depend on
    maps there is none either, and the maps are zeros.

    Args:
        recipe: `Recipe` of the method `attention_masked_residual`.
        splits: See `ImageFeed`.
        spec: `ImageSpec` of the recipe's data, whose mean and standard deviation the
            network normalises with.

    Raises:
        ValueError: If the recipe needs a map model and names none, or the cached maps
            are not those of its model and images.
    """

    def __init__(self, recipe, splits, spec):
        super().__init__(recipe, splits, spec)
        check_map_model(recipe)
        options = recipe.options
        end_to_end = options.map_mode == "end_to_end"
        self.images_only = options.mask_target == "none" or end_to_end
        self.size = (network_size(recipe),) * 2
        self.map_model = None
        if not reads_maps(recipe) or end_to_end:
            self.maps = self._no_maps()
            return
        if reads_true_maps(recipe):
            self.maps = {
                name: known_objects.true_maps(recipe, self.splits[name][0])
                for name in self._names()
            }
            return
        self.heads = find_heads(
            options.map_model, options.map_heads, self.splits["train"][0], self.size
        )
        self.map_model = load_map_model(options.map_model, self.heads)
        if recipe.options.map_mode == "online":
            self.maps = dict.fromkeys(self._names(), self.map_model)
        else:
            self.maps = {name: self._cached(name) for name in self._names()}

    def _names(self):
        return [name for name in ("train", "validation") if len(self.splits[name][1])]

    def _no_maps(self):
        return {
            name: np.zeros((len(self.splits[name][1]), 1, 1, 1), "uint8")
            for name in self._names()
        }

    def _cached(self, name):
        """The maps of a split, as stored."""
        images, _ = self.splits[name]
        model = model_digest(self.map_model)
        if self.recipe.options.map_cache:
            cache = MapCache.open(self.recipe.options.map_cache)
            made = (cache.maker["model"], tuple(cache.maker["image_size"]))
            if made != (model, self.size):
                raise ValueError(
                    f"Expected the cached maps in {cache.path} to be made by "
                    f"{self.recipe.options.map_model} from images of size {self.size}. "
                    "Received: maps of "
                    + (
                        "another model or other heads"
                        if made[0] != model
                        else f"size {made[1]}"
                    )
                )
            return cache.maps_of(images)
        folder = model_file(self.recipe.options.map_model).parent
        if folder.name == "checkpoints":
            folder = folder.parent
        digests = (model, digest_of(image_keys(images)))
        label = "_".join(digest[:12] for digest in digests)
        path = folder / "maps" / f"{label}_{self.size[0]}"
        path.parent.mkdir(exist_ok=True)
        cache = compute_maps(
            self.map_model,
            images,
            path,
            image_size=self.size,
            progress=shown("Attention maps"),
        )
        return cache.read()[0]

    def training(self, start):
        """`({"images", "attention_map"}, labels)` of the epochs from `start` on.

        The images alone where the model takes no map.
        """
        recipe, maps = self.recipe, self.maps["train"]
        images, labels = self.splits["train"]
        online = maps is self.map_model
        batches = online_masked_batches if online else masked_batches
        dataset = batches(
            images,
            maps,
            labels,
            recipe.batch_size,
            recipe.seed,
            recipe.epochs,
            start,
            recipe.options.augmentation,
            image_size=self.size,
            normalization=self.spec,
            part=self.part,
        )
        return self._taken(dataset)

    def validation(self):
        """The same of all validation images, clean, or `None` if there are none."""
        if "validation" not in self.maps:
            return None
        images, labels = self.splits["validation"]
        maps = self.maps["validation"]
        if self.recipe.options.mask_control == "shuffled":
            # The maps of neighbours are not to be those of the same class.
            order = np.random.default_rng(self.recipe.split_seed).permutation(
                len(labels)
            )
            images, labels = images[order], labels[order]
            maps = maps if maps is self.map_model else maps[order]
        count = devices.device_count()
        largest = max(self.recipe.batch_size, VALIDATION_BATCH * count)
        size = build.evaluation_batch_size(len(labels), largest, count)
        own = build.own_examples(len(labels), size, self.part)
        maps = maps if maps is self.map_model else maps[own]
        return self._taken(
            masked_evaluation_batches(images[own], maps, labels[own], size, self.size)
        )

    def _taken(self, dataset):
        if not self.images_only:
            return dataset
        return dataset.map(lambda pair, labels: (pair["images"], labels))

    def save(self, run):
        """Copies the map model into the run's folder, which needs it to predict."""
        target = run.checkpoints / MAP_MODEL
        if self.map_model is None or target.exists():
            return
        if self.heads is None:
            copy_file(model_file(self.recipe.options.map_model), target)
        else:
            with save_then_rename(target) as temporary:
                self.map_model.save(temporary)
