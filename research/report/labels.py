"""Where the labels of a scatter plot go: near their point, off every point, whisker and label, inside the plot."""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LEADER_FROM = 14  # px of displacement beyond which a line ties the label to its point


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: "Box") -> bool:
        inside = self.left >= other.left and self.right <= other.right
        return inside and self.top >= other.top and self.bottom <= other.bottom


class Label(NamedTuple):
    """A placed label: its box, and the leader's ends if it stands far from its point."""

    box: Box
    leader: tuple[float, float, float, float] | None


def text_width(text: str, size: float) -> float:
    """An upper estimate of a sans-serif text's width: the page cannot know which font a reader has."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" or char in "MWm@—" for char in text)
    return size * (0.57 * (len(text) - wide) + 1.0 * wide)


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    taken: Sequence[Box],
    room: Box,
    gap: float,
    reach: float,
) -> list[Label] | None:
    """Give every label a free place, trying three orders of the points; None if none works.

    Args:
        points: (x, y) of each label's point.
        sizes: (width, height) of each label.
        taken: what may not be covered: markers and whiskers.
        room: the box that labels stay within.
        gap: free space between a point and its label.
        reach: how far up or down a label may go, in its heights; a name far from its point misleads.
    """
    indices = range(len(points))
    rightwards = sorted(indices, key=lambda i: points[i])
    for order in (indices, rightwards, rightwards[::-1]):
        placed: dict[int, Label] = {}
        for i in order:
            used = [*taken, *(label.box for label in placed.values())]
            lines = [label.leader for label in placed.values() if label.leader]
            label = next((x for x in _places(points[i], sizes[i], gap, reach) if _free(x, used, lines, room)), None)
            if label is None:
                break
            placed[i] = label
        else:
            return [placed[i] for i in indices]
    return None


def _places(point: tuple[float, float], size: tuple[float, float], gap: float, reach: float) -> Iterator[Label]:
    """Candidates, nearest first: level with the point right and left, then in steps up and down, and further out."""
    (x, y), (width, height) = point, size
    steps = sorted((k * height / 2 for k in range(-int(2 * reach), int(2 * reach) + 1)), key=lambda dy: (abs(dy), dy))
    for out, dy, side in itertools.product((gap, 3 * gap), steps, (1, -1)):
        left = x + out if side > 0 else x - out - width
        box = Box(left, y + dy - height / 2, left + width, y + dy + height / 2)
        near = abs(dy) <= LEADER_FROM and out == gap
        edge = box.left - 2 if side > 0 else box.right + 2
        start = (x + side * gap * 0.75, y + (gap * 0.75 if dy > 0 else -gap * 0.75 if dy < 0 else 0))
        yield Label(box, None if near else (*start, edge, y + dy))


def _free(label: Label, used: list[Box], lines: list[tuple], room: Box) -> bool:
    if not label.box.within(room) or any(label.box.meets(box) for box in used):
        return False
    if any(_crosses(line, label.box) for line in lines):
        return False
    return label.leader is None or not any(_crosses(label.leader, box) for box in used)


def _crosses(line: tuple[float, float, float, float], box: Box, steps: int = 24) -> bool:
    """Does the line pass through the box? Sampled: boxes are wider than the distance of two samples."""
    x0, y0, x1, y1 = line
    for k in range(1, steps + 1):
        x, y = x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps
        if box.left < x < box.right and box.top < y < box.bottom:
            return True
    return False
