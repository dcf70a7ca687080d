"""Putting blocks into somebody's own model."""

import collections
import difflib
import tempfile
from collections.abc import Callable, Sequence

import keras
from keras import tree

from keras_attn.graph.keras_graph import call_count, layers_of, own_layers, producer


def insert_blocks(
    model: keras.Model,
    at: str | Sequence[str],
    block: Callable | Sequence[Callable],
    name: str | None = None,
) -> keras.Model:
    """A copy of a model with layers or functions behind some of its layers.

    See `keras_attn.insert`, which takes blocks by name too.
    """
    check_graph(model)
    blocks = _blocks(at, block)
    for path in blocks:
        _check_path(model, path)
    copier = _Copier(blocks)
    inputs, outputs, found = copier.graph(model)
    copier.copy_state()
    if found or isinstance(outputs, dict):
        outputs = _with_further(_named(model, outputs, "logits"), found)
    return keras.Model(inputs, outputs, name=name or model.name)


def check_graph(model):
    """Raises an error for a model that cannot be taken apart."""
    if not _is_graph(model):
        raise ValueError(
            "Expected a functional model, or a sequential one that is built. "
            f"Received: {model}"
        )


class _Copier:
    """Copies graphs, nested models included, with blocks behind some layers.

    Args:
        blocks: Dict from paths of layers, such as `"backbone/conv5_out"`, to layers or
            functions.
    """

    def __init__(self, blocks):
        self.blocks = blocks
        self.copies = {}  # id of an original layer -> its copy
        self.pairs = []  # (original, copy, whether a model around it is frozen)
        self.inner = {}  # id of a copied model -> what takes its outputs apart

    def graph(self, model, prefix="", frozen=False):
        """A copy of the graph of a model, without its state.

        Args:
            prefix: Path of the model, with a slash behind it.
            frozen: Whether a model around this one is frozen.

        Returns:
            Inputs and outputs, in the model's structure, and a list of the further
            outputs of blocks: `(at, name, tensor)`.
        """
        frozen = frozen or not model.trainable
        # A view of its own: the copy of a compiled model would be compiled too.
        view = view_of(model)
        inputs = tree.map_structure(_input_like, view.input)
        found, seen, replaced = [], set(), {}

        def put(at, features):
            if at in seen:
                raise ValueError(
                    "Expected `at` to name a layer that the model calls once. "
                    f"Received: at={at!r}, called several times in {model.name!r}. "
                    "Inside a model that is used as a layer, `model/layer`, a block "
                    "is shared by the calls"
                )
            seen.add(at)
            features, further = _put(self.blocks[at], at, features, view)
            found.extend((at, *item) for item in further.items())
            return features

        def call(layer, *args, **kwargs):
            args, kwargs = tree.map_structure(
                lambda tensor: replaced.get(id(tensor), tensor), (args, kwargs)
            )
            outputs = layer(*args, **kwargs)
            if id(layer) in self.inner:
                outputs, further = self.inner[id(layer)](outputs)
                if {at for at, *_ in further} & {at for at, *_ in found}:
                    raise ValueError(
                        "Expected a block that returns features alone, since the model "
                        f"{layer.name!r} that it goes into is called several times. "
                        f"Received: further outputs {[name for _, name, _ in further]}"
                    )
                found.extend(further)
            at = prefix + layer.name
            return put(at, outputs) if at in self.blocks else outputs

        for tensor in tree.flatten(inputs):
            at = prefix + producer(tensor).name
            if at in self.blocks:
                replaced[id(tensor)] = put(at, tensor)

        outputs = keras.models.clone_model(
            view, inputs, lambda layer: self.layer(layer, prefix, frozen), call
        ).output
        outputs = tree.map_structure(lambda x: replaced.get(id(x), x), outputs)
        return inputs, outputs, found

    def layer(self, layer, prefix, frozen):
        """A copy of a layer or operation; the same one for a layer that is shared."""
        if id(layer) not in self.copies:
            self.copies[id(layer)] = self._copied(layer, prefix, frozen)
        return self.copies[id(layer)]

    def _copied(self, layer, prefix, frozen):
        path = f"{prefix}{layer.name}/"
        within = any(at.startswith(path) for at in self.blocks)
        if within or _is_plain_graph(layer):
            index = len(self.pairs)
            copy = self._model(layer, path, within, frozen)
            if not within:
                # In front of its layers, whose own flags are to have the last word.
                self.pairs.insert(index, (layer, copy, frozen))
            return copy
        if type(layer) is keras.layers.Lambda:
            # Its config holds byte code, which Keras refuses to read, rightly.
            copy = _lambda_like(layer)
        else:
            copy = type(layer).from_config(layer.get_config())
        if isinstance(layer, keras.layers.Layer):
            self.pairs.append((layer, copy, frozen))
        return copy

    def _model(self, model, path, within, frozen):
        """A copy of a model inside the model; what blocks further return goes out.

        Args:
            within: Whether a block goes into it.
        """
        if not within and isinstance(model, keras.Sequential):
            copies = [self.layer(layer, path, frozen) for layer in model.layers]
            if isinstance(own_layers(model)[0], keras.layers.InputLayer):
                copies.insert(0, producer(_input_like(model.inputs[0])))
            return keras.Sequential(copies, name=model.name)
        inputs, outputs, found = self.graph(model, path, frozen)
        if not found:
            return keras.Model(inputs, outputs, name=model.name)
        own = _named(model, outputs, "features")
        outer = _with_further(own, found)
        names = [name for name in outer if name not in own]
        places = [at for at, *_ in found]
        kinds = [kind for _, kind, _ in found]

        def take_apart(results):
            further = [results[name] for name in names]
            mine = {name: results[name] for name in own}
            if not isinstance(outputs, dict):
                mine = tree.pack_sequence_as(outputs, list(mine.values()))
            return mine, list(zip(places, kinds, further, strict=True))

        copy = keras.Model(inputs, outer, name=model.name)
        self.inner[id(copy)] = take_apart
        return copy

    def copy_state(self):
        """Gives all copies the state of their originals, and what is frozen."""
        for original, copy, frozen in self.pairs:
            layers = layers_of(original, True), layers_of(copy, True)
            for mine, its in zip(*layers, strict=True):
                its.trainable = mine.trainable and not frozen
                if isinstance(mine, keras.Model):
                    continue
                copy_state_of(mine, its)


def copy_state_of(mine, its):
    """Gives a layer the variables, seeds and vocabularies of another."""
    # Not set_weights, behind which Normalization keeps its old averages.
    state = {}
    mine.save_own_variables(state)
    if state:
        its.load_own_variables(state)
    if hasattr(mine, "save_assets"):
        # A vocabulary is no variable: Keras stores it in a file of its own.
        with tempfile.TemporaryDirectory() as folder:
            mine.save_assets(folder)
            its.load_assets(folder)
    for old, new in zip(_beside_weights(mine), _beside_weights(its), strict=True):
        new.assign(old)


def _beside_weights(layer):
    """Variables that are no weights, such as the states of random generators."""
    weights = {id(weight) for weight in layer.weights}
    return [each for each in layer.variables if id(each) not in weights]


# ---- what is asked for -----------------------------------------------------------


def _blocks(at, block):
    """Dict from each place to what goes there."""
    several = isinstance(at, (list, tuple))
    places = list(at) if several else [at]
    blocks = list(block) if isinstance(block, (list, tuple)) else [block] * len(places)
    layers = [id(each) for each in blocks if isinstance(each, keras.layers.Layer)]
    if (
        not places
        or len(set(places)) != len(places)
        or len(blocks) != len(places)
        or len(set(layers)) != len(layers)
    ):
        raise ValueError(
            "Expected different places and as many different layers, or a function "
            f"that makes one for each place. Received: at={at!r}, block={block!r}"
        )
    for each in blocks:
        if not callable(each) or isinstance(each, type):
            raise ValueError(
                "Expected `block` to be a layer or a function of a tensor. "
                f"Received: block={each!r}"
            )
        if call_count(each):
            raise ValueError(
                "Expected a new block. Received: "
                f"block={each.name!r}, which is part of a model already"
            )
    return dict(zip(places, blocks, strict=True))


def _check_path(model, at):
    """Raises an error if `at` does not lead to a layer."""
    here = model
    *models, last = str(at).split("/")
    for name in models:
        here = {each.name: each for each in _operations(here)}.get(name)
        if here is None or not _is_graph(here):
            break
    if here is None or not _is_graph(here):
        known = False
    else:
        known = last in [each.name for each in _operations(here)]
    if known:
        return
    paths = list(layer_paths(model))
    nearest = [path for path in paths if path.split("/")[-1] == last]
    nearest += difflib.get_close_matches(str(at), paths, 3)
    nearest = list(dict.fromkeys(nearest))[:3] or paths[-3:]
    raise ValueError(
        f"Expected `at` to name a layer of {model.name!r}. Received: at={at!r}. "
        f"Nearest: {', '.join(nearest)}"
    )


def layer_paths(model, prefix=""):
    """Yields the paths of all layers and operations, as `at` names them."""
    for operation in _operations(model):
        yield prefix + operation.name
        if _is_graph(operation):
            yield from layer_paths(operation, f"{prefix}{operation.name}/")


# ---- the block ---------------------------------------------------------------------


def _put(block, at, before, model):
    """Features behind a block, and its further outputs by name."""
    rest = {}
    if isinstance(before, dict) and "features" in before:
        rest = {name: each for name, each in before.items() if name != "features"}
        before = before["features"]
    if not isinstance(before, keras.KerasTensor):
        shapes = tree.map_structure(lambda tensor: tensor.shape, before)
        raise ValueError(
            "Expected `at` to name a layer that returns one tensor, or a dict with "
            f"`features`. Received: at={at!r}, which returns {shapes}"
        )
    names = [operation.name for operation in _operations(model)]
    if isinstance(block, keras.layers.Layer) and block.name in names:
        raise ValueError(
            f"Expected a block with a name that {model.name!r} does not have. "
            f"Received: block={block.name!r}; give it another `name`"
        )
    after = block(before)
    further = {}
    if isinstance(after, dict) and "features" in after:
        further = {name: each for name, each in after.items() if name != "features"}
        after = after["features"]
    if not isinstance(after, keras.KerasTensor):
        shapes = tree.map_structure(lambda x: getattr(x, "shape", x), after)
        raise ValueError(
            "Expected a block that returns one tensor, or a dict with `features`. "
            f"Received: {_name_of(block)} behind {at!r}, which returns {shapes}"
        )
    if not _same_shape(before.shape, after.shape):
        raise ValueError(
            "Expected a block that keeps the shape of the map, since the layers that "
            f"follow were made for it. Received: {_name_of(block)} behind {at!r}, from "
            f"{before.shape} to {after.shape}"
        )
    if after.dtype != before.dtype and keras.backend.is_float_dtype(before.dtype):
        cast_name = f"{at.split('/')[-1]}_{before.dtype}"
        after = keras.layers.Identity(dtype=before.dtype, name=cast_name)(after)
    return ({"features": after, **rest} if rest else after), further


def _same_shape(before, after):
    return len(before) == len(after) and all(
        known == found or None in (known, found)
        for known, found in zip(before, after, strict=True)
    )


def _name_of(block):
    return repr(getattr(block, "name", None) or getattr(block, "__name__", block))


# ---- graphs ------------------------------------------------------------------------


def _is_graph(layer):
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def _is_plain_graph(layer):
    """`True` for a graph and nothing more; subclasses may keep their class."""
    if not _is_graph(layer):
        return False
    return type(layer) in (type(view_of(layer)), keras.Sequential)


def _operations(model):
    if isinstance(model, keras.Sequential):
        return view_of(model).operations
    return model.operations


def view_of(model):
    """The graph of a functional or built `Sequential` model, as a functional model."""
    return keras.Model(_inputs(model), _outputs(model))


def _inputs(model):
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _outputs(model):
    if not isinstance(model, keras.Sequential):
        return model.output
    return model.outputs[0] if len(model.outputs) == 1 else model.outputs


def _input_like(tensor):
    layer = producer(tensor)
    return keras.layers.InputLayer.from_config(layer.get_config()).output


def _lambda_like(layer):
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def _named(model, outputs, name):
    """A model's own outputs as a dict, in the order of `tree.flatten`."""
    if isinstance(outputs, dict):
        return outputs
    tensors = tree.flatten(outputs)
    if len(tensors) == 1:
        return {name: tensors[0]}
    names = [producer(each).name for each in model.outputs]
    if len(set(names)) < len(names):
        names = [f"{name}_{number}" for number, name in enumerate(names)]
    return dict(zip(names, tensors, strict=True))


def _with_further(own, found):
    """The model's own outputs and the further ones of blocks, each with its name."""
    counts = collections.Counter([*own, *(name for _, name, _ in found)])
    further = {
        name if counts[name] == 1 else f"{name}_{at.replace('/', '_')}": tensor
        for at, name, tensor in found
    }
    return {**own, **further}
