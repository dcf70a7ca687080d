"""One scene of the generated data set, and its difficulty."""

import dataclasses
import functools

import numpy as np

from keras_attn.pipelines.generated.shapes import (
    ATTACHMENTS,
    BODY_RADII,
    EYE,
    PART_NAMES,
    PARTS,
    Canvas,
    Capsule,
    Ellipse,
    Part,
    Polygon,
    Pose,
)

_PAINT_ORDER = ("tail", "foot", "crest", "beak", "body", "wing")
# Colours of body and parts when there is no colour noise.
_PLAIN_COLOURS = np.array(
    [
        [0.95, 0.55, 0.1],
        [0.9, 0.9, 0.3],
        [0.3, 0.75, 0.9],
        [0.85, 0.3, 0.3],
        [0.8, 0.4, 0.8],
        [0.45, 0.7, 0.35],
    ],
    "float32",
)


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Ranges of a scene's properties; with the difficulty each grows harder or stays.

    Attributes:
        rotation: the object is turned by up to this many degrees either way.
        joint: every part is turned on its own by up to this many degrees.
        stretch: every part is scaled by up to this share either way.
        mirror: probability that the object is mirrored.
        smallest: lowest share of the image side that the object's longer side
            spans; the highest is always 0.9.
        wander: share of the free room over which the object is moved.
        overhang: share of the image by which the object may leave it.
        shapes: number of random background shapes.
        distractors: number of loose parts of other classes.
        occlusion: probability that a bar hides a piece of the object.
        texture: strength of the background's texture.
        colour: 0 for the fixed colours of the parts, 1 for random ones.
        light: strength of the changes of brightness, contrast and tint.
    """

    rotation: float
    joint: float
    stretch: float
    mirror: float
    smallest: float
    wander: float
    overhang: float
    shapes: int
    distractors: int
    occlusion: float
    texture: float
    colour: float
    light: float


def difficulty_ranges(difficulty):
    """The `Ranges` of a difficulty in [0, 1]."""
    soon = min(1.0, 4 * difficulty)
    late = max(0.0, 2 * difficulty - 1)
    return Ranges(
        rotation=70 * difficulty,
        joint=25 * difficulty,
        stretch=0.25 * difficulty,
        mirror=0.5 * soon,
        smallest=0.8 - 0.5 * difficulty,
        wander=soon,
        overhang=0.12 * late,
        shapes=round(10 * difficulty),
        distractors=round(8 * difficulty),
        occlusion=max(0.0, difficulty - 0.4),
        texture=0.05 + 0.5 * difficulty,
        colour=soon,
        light=0.6 * difficulty,
    )


def draw_scene(rng, size, table, label, ranges):
    """One scene: image `uint8` (S, S, 3) and owner (S, S).

    The owner of a pixel is 1 + the index of the part that it shows, P + 1 for the
    body, and 0 where the object is not visible.

    All random numbers are drawn in units of the image side, never of pixels, so that
    a scene is the same at every size.
    """
    image, tone = _background(rng, size, ranges)
    canvas = Canvas(image)
    object_parts, middle = _place_object(rng, table[label], ranges)
    scale = object_parts["body"][1].scale
    for _ in range(ranges.shapes):
        pose = Pose.turned(rng.uniform(0, 360), 1.0, rng.random(2))
        canvas.paint(_random_shape(rng), pose, rng.random((2, 3), "float32"))
    for pair in _colour_pairs(rng, tone[None], ranges.distractors):
        canvas.paint(*_distractor(rng, table, label, middle, scale), pair)
    colours = _object_colours(rng, tone, ranges)
    for name in _PAINT_ORDER:
        part, pose = object_parts[name]
        owner = 1 + (*PART_NAMES, "body").index(name)
        canvas.paint(part, pose, colours[name], owner)
        if name == "body":
            black_on_white = np.array([[0.95] * 3, [0.05] * 3], "float32")
            canvas.paint(EYE, pose, black_on_white, owner)
    if rng.random() < ranges.occlusion:
        part, pose = _occluder(rng, object_parts["body"][1])
        canvas.paint(part, pose, rng.random((2, 3), "float32"))
    return _relight(rng, canvas.image, ranges), canvas.owner


def _background(rng, size, ranges):
    """A gradient with texture, float (S, S, 3), and its mean colour."""
    ends = 0.15 + 0.7 * rng.random((2, 3), "float32")
    ends[1] = ends[0] + (0.2 + ranges.texture) * (ends[1] - ends[0])
    angle = rng.uniform(0, 2 * np.pi)
    grid = ((np.arange(size) + 0.5) / size - 0.5).astype("float32")
    ramp = 0.5 + 0.7 * (
        np.float32(np.cos(angle)) * grid + np.float32(np.sin(angle)) * grid[:, None]
    )
    image = ends[0] + ramp[:, :, None] * (ends[1] - ends[0])
    for cells, strength in ((4, 0.6), (11, 0.5), (27, 0.4)):
        lattice = rng.random((cells, cells, 3), "float32") - 0.5
        image += _smooth(lattice, size) * np.float32(strength * ranges.texture)
    return image, ends.mean(axis=0)


def _smooth(lattice, size):
    """Bilinear enlargement of a lattice (g, g, 3) to (size, size, 3)."""
    cells = lattice.shape[0]
    weights = _bilinear_weights(cells, size)
    tall = (weights @ lattice.reshape(cells, -1)).reshape(size, cells, 3)
    return np.matmul(weights, tall)


@functools.lru_cache(maxsize=16)
def _bilinear_weights(cells, size):
    position = (np.arange(size) + 0.5) / size * (cells - 1)
    distance = np.abs(position[:, None] - np.arange(cells))
    return (1 - distance).clip(0).astype("float32")


def _place_object(rng, variants, ranges):
    """`{name: (part, pose)}` of body and parts, and the centre of their box."""
    squash = rng.uniform(-0.1, 0.1)
    radii = (BODY_RADII[0] * (1 + squash), BODY_RADII[1] * (1 - squash))
    parts = {"body": (Part("body", (Ellipse((0.0, 0.0), radii),)), Pose.turned(0))}
    for name, variant in zip(PART_NAMES, variants, strict=True):
        at, degrees = ATTACHMENTS[name]
        turn = degrees + ranges.joint * rng.uniform(-1, 1)
        scale = 1 + ranges.stretch * rng.uniform(-1, 1)
        parts[name] = PARTS[name][variant], Pose.turned(turn, scale, at)
    turn = ranges.rotation * rng.uniform(-1, 1)
    turned = Pose.turned(turn, mirrored=rng.random() < ranges.mirror)
    parts = {name: (part, pose.after(turned)) for name, (part, pose) in parts.items()}
    points = np.concatenate([pose(part.outline) for part, pose in parts.values()])
    low, high = points.min(axis=0), points.max(axis=0)
    scale = rng.uniform(ranges.smallest, 0.9) / (high - low).max()
    free = 1 - scale * (high - low) + 2 * ranges.overhang
    middle = 0.5 + free * ranges.wander * (rng.random(2) - 0.5)
    moved = Pose.turned(0, scale, middle - scale * (low + high) / 2)
    parts = {name: (part, pose.after(moved)) for name, (part, pose) in parts.items()}
    return parts, middle


def _distractor(rng, table, label, middle, scale):
    """A part of a random other class, away from the middle of the object."""
    other = (label + rng.integers(1, len(table))) % len(table)
    name = PART_NAMES[rng.integers(len(PART_NAMES))]
    part = PARTS[name][table[other, PART_NAMES.index(name)]]
    places = rng.uniform(0.02, 0.98, (5, 2))
    place = places[np.abs(places - middle).max(axis=1).argmax()]
    size = scale * rng.uniform(0.7, 1.1)
    turned = Pose.turned(rng.uniform(0, 360), size, mirrored=rng.random() < 0.5)
    # The middle of the part, not its attachment, goes to the place.
    return part, Pose(turned.matrix, place - turned(part.box[0]), size)


def _random_shape(rng):
    """A background shape about the origin, 0.05 to 0.3 of the image across."""
    kind, (width, height) = rng.integers(3), rng.uniform(0.03, 0.15, 2)
    if kind == 0:
        return Part("blob", (Ellipse((0.0, 0.0), (width, height)),))
    if kind == 1:
        return Part("bar", (Capsule((-width, 0.0), (width, 0.0), 0.2 * height + 0.01),))
    corners = ((-width, -height), (width, -height * rng.random()), (0.0, height))
    return Part("triangle", (Polygon(corners),))


def _occluder(rng, body):
    """A bar over a random place of the object, a fifth of the body wide."""
    ends = ((-0.6, 0.0), (0.6, 0.0))
    spot = rng.uniform(-0.5, 0.5, 2) * (1.2, 0.9)
    return (
        Part("occluder", (Capsule(*ends, 0.08),)),
        Pose.turned(rng.uniform(0, 360), body.scale, body(spot)),
    )


def _object_colours(rng, tone, ranges):
    """`{name: two colours}` for body and parts, distinct from their background."""
    body = _contrasting(rng, tone[None], 1)
    colours = np.concatenate(
        [
            np.repeat(body[None], 2, axis=1),
            _colour_pairs(rng, np.concatenate([tone[None], body]), len(PART_NAMES)),
        ]
    )
    plain = np.stack([_PLAIN_COLOURS, 1 - _PLAIN_COLOURS], axis=1)
    colours = plain + np.float32(ranges.colour) * (colours - plain)
    return dict(zip(("body", *PART_NAMES), colours, strict=True))


def _colour_pairs(rng, others, count):
    """Random colours (count, 2, 3), each apart from its partner and from `others`."""
    first = _contrasting(rng, others, count)
    others = np.broadcast_to(others, (count, *others.shape))
    second = _contrasting(rng, np.concatenate([others, first[:, None]], axis=1), count)
    return np.stack([first, second], axis=1)


def _contrasting(rng, others, count):
    """Random colours (count, 3), each apart from `others`, (K, 3) or (count, K, 3).

    The first of six candidates that is far enough, or else the farthest.
    """
    candidates = rng.random((count, 6, 3), "float32")
    others = others[..., None, :, :]
    gaps = np.abs(candidates[:, :, None] - others).max(axis=-1).min(axis=-1)
    return candidates[np.arange(count), np.minimum(gaps, 0.5).argmax(axis=1)]


def _relight(rng, image, ranges):
    """`image` with random contrast, brightness and tint, as `uint8`."""
    contrast = 1 + ranges.light * rng.uniform(-0.5, 0.5)
    shift = ranges.light * (rng.uniform(-0.3, 0.3) + rng.uniform(-0.15, 0.15, 3))
    image = image * np.float32(255 * contrast)
    image += (255 * (0.5 - 0.5 * contrast + shift) + 0.5).astype("float32")
    return image.clip(0, 255).astype("uint8")
