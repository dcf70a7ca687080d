import keras
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from PIL import Image

from keras_attn.layers.volumetric_transformer import VolumetricTransformer
from keras_attn.ops.sampling import warp
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.drawing import new_figure
from keras_attn.training.explain import warps
from keras_attn.training.explain.explainers import explainer_of
from keras_attn.training.explain.files import explain
from keras_attn.training.explain.warps import (
    WarpExplanation,
    cell_colours,
    distinct_groups,
    draw_points,
    picture,
    sheet,
)
from keras_attn.training.explain.warps import explain as explain_images
from keras_attn.training.trained import Trained
from tests.training import tiny_models as tiny

SIZE, CELL = (24, 32), 4
ROWS, COLUMNS = 6, 8


def model_with(deform, maps=True):
    """Mean colours of cells, three times over, and whatever moves them."""
    spec = ImageSpec(*SIZE, class_names=tiny.COLOURS)
    images = keras.Input((*SIZE, 3), name="images")
    x = ImagePreprocessing(spec, name="preprocessing")(images)
    x = keras.layers.AveragePooling2D(CELL)(x)
    x = keras.layers.Concatenate()([x, x, x, x])
    x = keras.layers.Identity(name="features" if maps else "map")(x)
    outputs = deform(x)
    x = keras.layers.Identity(name="warped")(outputs["features"])
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(x[..., :3])
    return keras.Model(images, {"logits": logits, "fields": outputs["fields"]})


class Shifted(keras.layers.Layer):
    """Every group moved by a displacement of its own, the same for all cells."""

    def __init__(self, *displacements):
        super().__init__()
        self.displacements = np.array(displacements, "float32")

    def call(self, x):
        shape = (*x.shape[1:3], *self.displacements.shape)
        fields = np.broadcast_to(self.displacements, shape)
        fields = 0.0 * x[..., :1, None] + fields
        return {"features": warp(x, fields), "fields": fields}


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (2, *SIZE, 3)).astype("uint8")


@pytest.fixture(scope="module")
def transformer():
    return model_with(VolumetricTransformer(4, 3, 1.0, (2, 2), name="deformation"))


def test_explains_what_the_model_answers(transformer, images):
    explained = explain_images(Trained(transformer, None), images, ["a", "b"])
    outputs = transformer.predict(images, verbose=0)
    for each, logits, fields in zip(
        explained, outputs["logits"], outputs["fields"], strict=True
    ):
        np.testing.assert_allclose(
            each.probabilities, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5
        )
        np.testing.assert_array_equal(each.fields, fields)
        assert each.top(1) == [logits.argmax()]
        assert each.groups == (0, 1, 2, 3)
        assert each.before.shape == each.after.shape == (ROWS, COLUMNS, 4)
    assert [each.title for each in explained] == ["a", "b"]


def test_maps_before_and_behind_a_known_field(images):
    model = model_with(Shifted((0, 0), (1, -2)))
    (each, _) = explain_images(Trained(model, None), images, ["a", "b"])
    np.testing.assert_allclose(each.before[..., 0], each.before[..., 1], atol=1e-6)
    np.testing.assert_allclose(each.after[..., 0], each.before[..., 0], atol=1e-6)
    np.testing.assert_allclose(each.after[:-1, 2:, 1], each.before[1:, :-2, 1])
    # In pixels of the image: cell (2, 3) is that of rows 8..11 and columns 12..15.
    assert each.points()[2, 3].tolist() == [10, 14]
    assert each.points(1)[2, 3].tolist() == [14, 6]


def test_the_image_is_moved_as_the_map_is(images):
    model = model_with(Shifted((0, 0), (1, -2)))
    (each, _) = explain_images(Trained(model, None), images, ["a", "b"])
    np.testing.assert_allclose(each.sampled(0), images[0] / 255, atol=1e-6)
    moved = each.sampled(1)
    np.testing.assert_allclose(moved[:-4, 8:], images[0, 4:, :-8] / 255, atol=1e-5)
    assert not moved[-3:].any() and not moved[:, :7].any()


def test_groups_that_differ_are_shown():
    fields = np.zeros((2, 5, 3, 6, 2))
    fields[1, :, :, 4, 0] = 3.0  # varies most
    fields[1, :, :, 1, 0] = 2.9  # like it
    fields[:, :, 0, 2, 1] = -2.0  # another way
    assert distinct_groups(fields, 2) == (2, 4)
    assert distinct_groups(fields, 3) == (0, 2, 4)
    assert distinct_groups(fields[:, :, :, :1]) == (0,)


def test_points_have_the_colours_of_the_cells_that_they_are_taken_to(images):
    model = model_with(Shifted((0, 0), (1, -2)))
    (each, _) = explain_images(Trained(model, None), images, ["a", "b"])
    colours = []
    for group in (None, 1):
        axis = new_figure((3, 3)).subplots()
        draw_points(axis, each, group)
        (points,) = (c for c in axis.collections if isinstance(c, PathCollection))
        wanted = each.points(group)[..., ::-1].reshape(-1, 2)
        np.testing.assert_allclose(points.get_offsets(), wanted)
        colours.append(points.get_facecolors())
        assert axis.get_xlim() == (0, 32) and axis.get_ylim() == (24, 0)
    np.testing.assert_array_equal(*colours)
    assert len(np.unique(colours[0], axis=0)) == ROWS * COLUMNS
    assert cell_colours(1, 1).shape == (1, 1, 3)


def test_picture_has_a_column_a_group(transformer, images):
    each = explain_images(Trained(transformer, None), images, ["x.png", "y"])[0]
    figure = picture(each, [2, 0])
    assert figure.get_suptitle().startswith("x.png: ")
    panels = np.reshape(figure.axes[:20], (4, 5))
    np.testing.assert_array_equal(panels[0, 0].images[0].get_array(), images[0])
    titles = [panel.get_title() for panel in panels[0, 1:]]
    assert [title.split(":")[0] for title in titles] == [
        f"group {n} of 4" for n in (1, 2, 3, 4)
    ]
    names = [text.get_text().split(":")[0] for text in panels[1, 0].texts]
    assert names == ["blue", "red"]
    for column in panels.T:
        before, after = column[2].images[-1], column[3].images[-1]
        assert before.get_clim() == after.get_clim()


@pytest.mark.parametrize("maps", [True, False])
def test_one_field_for_all_channels_and_models_without_named_maps(images, maps):
    model = model_with(Shifted((0.5, 0.0)), maps)
    explained = explain_images(Trained(model, None), images, ["x", "y"])
    assert (explained[0].before is not None) == maps
    titles = [axis.get_title() for axis in picture(explained[0], [1]).axes]
    assert "all channels: moved by 0.5 cells" in titles
    assert ("activation after the warp" in titles) == maps
    assert not any("all groups" in title for title in titles)
    overview = sheet(explained, [[1], [0]])
    panels = [axis for axis in overview.axes if axis.images]
    assert len(panels) == 4
    assert panels[2].get_title().startswith("y\nred: ")


def test_needs_fields(images):
    with pytest.raises(ValueError, match="Expected.*'fields'.*Received: 'colours'"):
        explain_images(Trained(tiny.colour_model(), None), images)


def test_explain_draws_fields_of_models_that_have_them(tmp_path, transformer, images):
    assert explainer_of(Trained(transformer, None)) is warps
    path = tmp_path / "model.keras"
    transformer.save(path)
    file = tiny.save_image(tmp_path / "x.png", images[0])
    written, _ = explain(path, [file], tmp_path / "out", top=2)
    assert [each.name for each in written] == ["x.png", "overview.png"]
    for each in written:
        with Image.open(each) as drawn:
            assert len(np.unique(np.asarray(drawn))) > 50


def test_a_field_that_leads_out_of_the_image_can_be_drawn():
    far = np.full((ROWS, COLUMNS, 1, 2), 500.0)
    maps = np.ones((ROWS, COLUMNS, 1))
    each = WarpExplanation(
        np.zeros((*SIZE, 3), "uint8"),
        np.array([0.2, 0.5, 0.3]),
        tiny.COLOURS,
        "x",
        far,
        maps,
        0 * maps,
        (0,),
    )
    assert not each.sampled(0).any()
    assert len(picture(each, [1]).axes) >= 6
