"""The parts, the classes and the drawing behind the generated data set.

A shape is a signed distance function: negative inside, positive outside, in the
units of the frame it is evaluated in. A part is a union of a few simple shapes,
some with a two-coloured pattern, drawn in its own frame: `u` points away from the
body, `v` across, the origin is where the part is attached.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

PART_NAMES = ("beak", "wing", "tail", "foot", "crest")
MAX_CLASSES = 64


def clip_to_unit(values):
    """`values`, overwritten, clipped to [0, 1]; much faster than `np.clip` on small
    arrays.
    """
    np.maximum(values, 0, out=values)
    return np.minimum(values, 1, out=values)


@dataclasses.dataclass(frozen=True)
class Ellipse:
    centre: tuple[float, float]
    radii: tuple[float, float]

    def distance(self, u, v):
        u, v = u - self.centre[0], v - self.centre[1]
        a, b = self.radii
        if a == b:
            return np.sqrt(u * u + v * v) - a
        # First-order distance: the implicit function over its gradient.
        scaled_u, scaled_v = u / a, v / b
        level = np.sqrt(scaled_u * scaled_u + scaled_v * scaled_v)
        scaled_u /= a
        scaled_v /= b
        gradient = np.sqrt(scaled_u * scaled_u + scaled_v * scaled_v)
        return level * (level - 1) / np.maximum(gradient, 1e-6)

    def outline(self):
        angles = np.arange(24) * (2 * np.pi / 24)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.asarray(self.centre) + circle * self.radii


@dataclasses.dataclass(frozen=True)
class Ring:
    """The points within `width / 2` of a circle."""

    centre: tuple[float, float]
    radius: float
    width: float

    def distance(self, u, v):
        circle = Ellipse(self.centre, (self.radius, self.radius))
        return np.abs(circle.distance(u, v)) - self.width / 2

    def outline(self):
        outer = self.radius + self.width / 2
        return Ellipse(self.centre, (outer, outer)).outline()


@dataclasses.dataclass(frozen=True)
class Capsule:
    """The points within `radius` of a segment."""

    start: tuple[float, float]
    end: tuple[float, float]
    radius: float

    def distance(self, u, v):
        along_u = self.end[0] - self.start[0]
        along_v = self.end[1] - self.start[1]
        u, v = u - self.start[0], v - self.start[1]
        length = along_u * along_u + along_v * along_v
        share = clip_to_unit(u * (along_u / length) + v * (along_v / length))
        u, v = u - share * along_u, v - share * along_v
        return np.sqrt(u * u + v * v) - self.radius

    def outline(self):
        radii = (self.radius, self.radius)
        ends = (self.start, self.end)
        return np.concatenate([Ellipse(end, radii).outline() for end in ends])


@dataclasses.dataclass(frozen=True)
class Polygon:
    """A convex polygon, its vertices in either order."""

    vertices: tuple[tuple[float, float], ...]

    @functools.cached_property
    def _edges(self):
        points = np.asarray(self.vertices)
        along = np.roll(points, -1, axis=0) - points
        normals = np.stack([along[:, 1], -along[:, 0]], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        offsets = np.sum(normals * points, axis=1)
        # Outward: the centre lies on the negative side of every edge.
        signs = np.where(normals @ points.mean(axis=0) < offsets, 1.0, -1.0)
        return [
            tuple(map(float, (sign * normal[0], sign * normal[1], sign * offset)))
            for sign, normal, offset in zip(signs, normals, offsets, strict=True)
        ]

    def distance(self, u, v):
        # Exact inside, a lower bound beyond a corner.
        result = None
        for normal_u, normal_v, offset in self._edges:
            side = normal_u * u + (normal_v * v - offset)
            result = side if result is None else np.maximum(result, side, out=side)
        return result

    def outline(self):
        return np.asarray(self.vertices)


def _box(u0, v0, u1, v1):
    return Polygon(((u0, v0), (u1, v0), (u1, v1), (u0, v1)))


def _disc(u, v, radius):
    return Ellipse((u, v), (radius, radius))


def _stripes(period):
    """Bands across `u`, half of them in the second colour."""

    def pattern(u, v, pixel):
        wave = np.abs((u / period) % 1 - 0.5) - 0.25
        return clip_to_unit(0.5 + wave * (period / pixel))

    return pattern


def _second_colour(shape):
    """The inside of `shape` in the second colour."""

    def pattern(u, v, pixel):
        return clip_to_unit(0.5 - shape.distance(u, v) / pixel)

    return pattern


@dataclasses.dataclass(frozen=True)
class Part:
    """One variant of one part: a union of shapes, and its pattern if it has one.

    `pattern(u, v, pixel)` is the share of the second colour at a point, blurred
    over `pixel`, the side of a pixel in the frame of the part.
    """

    name: str
    shapes: tuple
    pattern: Callable | None = None

    def distance(self, u, v):
        result = self.shapes[0].distance(u, v)
        for shape in self.shapes[1:]:
            np.minimum(result, shape.distance(u, v), out=result)
        return result

    @functools.cached_property
    def outline(self):
        return np.concatenate([shape.outline() for shape in self.shapes])

    @functools.cached_property
    def box(self):
        """Centre and half sides of the box around the part in its frame."""
        low, high = self.outline.min(axis=0), self.outline.max(axis=0)
        return (low + high) / 2, (high - low) / 2


# The first two variants of every part are the ones that up to ten classes use.
PARTS = {
    "beak": (
        Part("pointed", (Polygon(((-0.1, -0.2), (-0.1, 0.2), (0.46, 0.0))),)),
        Part(
            "forked",
            (
                Capsule((-0.06, 0.0), (0.38, -0.2), 0.075),
                Capsule((-0.06, 0.0), (0.38, 0.2), 0.075),
            ),
        ),
        Part("knob", (Capsule((-0.1, 0.0), (0.2, 0.0), 0.07), _disc(0.3, 0.0, 0.16))),
        Part("blunt", (_box(-0.1, -0.18, 0.34, 0.18),), _stripes(0.22)),
    ),
    "wing": (
        Part("leaf", (Ellipse((0.0, 0.0), (0.25, 0.12)),)),
        Part("ring", (Ring((0.0, 0.0), 0.17, 0.11),)),
        Part("striped", (_disc(0.0, 0.0, 0.22),), _stripes(0.2)),
        Part("cross", (_box(-0.24, -0.06, 0.24, 0.06), _box(-0.06, -0.24, 0.06, 0.24))),
    ),
    "tail": (
        Part(
            "fan",
            (Polygon(((-0.06, -0.04), (-0.06, 0.04), (0.42, 0.3), (0.42, -0.3))),),
            _second_colour(_box(0.24, -1.0, 1.0, 1.0)),
        ),
        Part("club", (Capsule((-0.1, 0.0), (0.3, 0.0), 0.07), _disc(0.34, 0.0, 0.17))),
        Part(
            "swallow",
            (
                Polygon(((-0.06, -0.1), (-0.06, 0.1), (0.46, -0.3))),
                Polygon(((-0.06, -0.1), (-0.06, 0.1), (0.46, 0.3))),
            ),
        ),
        Part("paddle", (_box(-0.08, -0.13, 0.5, 0.13),), _stripes(0.26)),
    ),
    "foot": (
        Part(
            "legs",
            (
                Capsule((-0.1, -0.16), (0.34, -0.2), 0.07),
                Capsule((-0.1, 0.16), (0.34, 0.2), 0.07),
            ),
        ),
        Part("wheel", (_disc(0.16, 0.0, 0.24),), _second_colour(_disc(0.16, 0.0, 0.1))),
        Part("block", (_box(-0.1, -0.2, 0.24, 0.2),), _stripes(0.24)),
        Part(
            "skid",
            (
                Capsule((-0.1, 0.0), (0.28, 0.0), 0.07),
                Capsule((0.3, -0.3), (0.3, 0.3), 0.075),
            ),
        ),
    ),
    "crest": (
        Part(
            "comb",
            (
                _disc(0.06, -0.24, 0.12),
                _disc(0.12, 0.0, 0.14),
                _disc(0.06, 0.24, 0.12),
            ),
        ),
        Part(
            "plume",
            (
                Capsule((-0.1, 0.0), (0.4, -0.06), 0.07),
                Capsule((0.4, -0.06), (0.36, -0.3), 0.09),
            ),
        ),
        Part(
            "horns",
            (
                Polygon(((-0.1, -0.24), (-0.1, -0.02), (0.42, -0.2))),
                Polygon(((-0.1, 0.24), (-0.1, 0.02), (0.42, 0.2))),
            ),
        ),
        Part("hoop", (Ring((0.2, 0.0), 0.17, 0.11),)),
    ),
}

# Where each part is attached to the body (x to the front, y down) and which way,
# in degrees, its `u` axis points there.
ATTACHMENTS = {
    "beak": ((0.32, -0.08), 0.0),
    "wing": ((-0.05, 0.02), 0.0),
    "tail": ((-0.34, 0.0), 180.0),
    "foot": ((0.0, 0.25), 90.0),
    "crest": ((0.06, -0.26), -90.0),
}
BODY_RADII = (0.4, 0.3)
EYE = Part("eye", (_disc(0.24, -0.1, 0.06),), _second_colour(_disc(0.25, -0.1, 0.03)))


def class_table(num_classes):
    """The variant of every part for every class, an integer array (C, P).

    Class 0 has the first variant of every part. Class k is class k-1 with one part
    changed, the parts taking turns, to its next variant that gives a class not yet in
    the table. So neighbours in the table differ in exactly one part, and fewer
    classes are the beginning of more. The first ten use two variants of each of
    the five parts and close a ring: each variant is shared by five of the ten
    classes, and no part alone tells the class.
    """
    table = [(0,) * len(PART_NAMES)]
    while len(table) < num_classes:
        position = (len(table) - 1) % len(PART_NAMES)
        variants = len(PARTS[PART_NAMES[position]])
        usable = 2 if len(table) < 2 * len(PART_NAMES) else variants
        row = list(table[-1])
        for _ in range(usable - 1):
            row[position] = (row[position] + 1) % usable
            if tuple(row) not in table:
                break
        table.append(tuple(row))
    return np.asarray(table)


def class_name(row):
    """For example "beak-pointed_wing-leaf_tail-fan_foot-legs_crest-comb"."""
    chosen = zip(PART_NAMES, row, strict=True)
    return "_".join(f"{part}-{PARTS[part][variant].name}" for part, variant in chosen)


@dataclasses.dataclass(frozen=True)
class Pose:
    """A similarity from a local frame to the image: `point @ matrix.T + shift`.

    Convention: points are (x, y), x to the right and y down; the image is the unit
    square, so that a scene does not depend on the number of pixels.
    """

    matrix: np.ndarray
    shift: np.ndarray
    scale: float

    @classmethod
    def turned(cls, degrees, scale=1.0, shift=(0.0, 0.0), mirrored=False):
        radians = np.deg2rad(degrees)
        cosine, sine = scale * np.cos(radians), scale * np.sin(radians)
        matrix = np.array([[cosine, -sine], [sine, cosine]])
        if mirrored:
            matrix[:, 0] *= -1
        return cls(matrix, np.asarray(shift, dtype="float64"), scale)

    def after(self, outer):
        """This pose followed by `outer`."""
        shift = outer.matrix @ self.shift + outer.shift
        return Pose(outer.matrix @ self.matrix, shift, outer.scale * self.scale)

    def __call__(self, points):
        return points @ self.matrix.T + self.shift

    def local(self, x, y):
        """Local coordinates of the grid points with columns `x` and rows `y`."""
        inverse = (self.matrix.T / self.scale**2).astype("float32")
        x = x - np.float32(self.shift[0])
        y = (y - np.float32(self.shift[1]))[:, None]
        u = inverse[0, 0] * x + inverse[0, 1] * y
        v = inverse[1, 0] * x + inverse[1, 1] * y
        return u, v


# Depth of the darker rim of every shape, in the units of its frame.
_RIM = 0.06


class Canvas:
    """A float image in 0..1, and for every pixel which part of the object it shows.

    `owner` is 0 where the object is not visible and otherwise the number that the
    visible shape was painted with.
    """

    def __init__(self, background):
        self.image = background
        self.size = background.shape[0]
        self.owner = np.zeros((self.size, self.size), "uint8")
        self.centres = ((np.arange(self.size) + 0.5) / self.size).astype("float32")

    def paint(self, part, pose, colours, owner=0):
        """Paint `part` over what is there. `colours` is (2, 3)."""
        columns, rows = self._window(part, pose)
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return
        u, v = pose.local(self.centres[columns], self.centres[rows])
        pixel = 1 / (self.size * pose.scale)
        distance = part.distance(u, v)
        cover = clip_to_unit(0.5 - distance / pixel)
        if part.pattern is None:
            colour = colours[0]
        else:
            mix = part.pattern(u, v, pixel)[:, :, None]
            colour = colours[0] + mix * (colours[1] - colours[0])
        shade = 1 - 0.4 * clip_to_unit(1 + distance / _RIM)
        target = self.image[rows, columns]
        target += cover[:, :, None] * (shade[:, :, None] * colour - target)
        np.putmask(self.owner[rows, columns], cover >= 0.5, owner)

    def _window(self, part, pose):
        """The columns and rows that `part` can reach, with a pixel to spare."""
        centre, half = part.box
        centre = (pose(centre) * self.size).tolist()
        reach = (np.abs(pose.matrix) @ half * self.size + 1).tolist()
        return tuple(
            slice(max(0, math.floor(c - r)), min(self.size, math.ceil(c + r)))
            for c, r in zip(centre, reach, strict=True)
        )
