"""Data → px, and where the ticks stand."""

import itertools
import math
from typing import NamedTuple

from research.report.labels import Box


class Scale(NamedTuple):
    """Linear map from data (log10 of it for x) to px."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def x_scale(times: list[float], plot: Box, room: float) -> Scale:
    """Logarithmic, at least half a decade, with `room` px kept free right of the slowest for its name."""
    low, high = math.log10(min(times)), math.log10(max(times))
    if high - low < 0.5:
        low, high = (low + high) / 2 - 0.25, (low + high) / 2 + 0.25
    unit = (high - low) / (plot.right - room - plot.left - 28)  # decades a px
    return Scale(low - 28 * unit, high + room * unit, plot.left, plot.right)


def y_scale(intervals: list[tuple[float, float]], plot: Box, room: float = 0) -> Scale:
    """Around the intervals, not from 0: differences are what is looked at, and the axis has no bars to mislead.

    Args:
        intervals: (low, high) of what is drawn.
        plot: where.
        room: px kept free above and below, for labels.
    """
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    pad = max(0.08 * (high - low), 0.01 * max(1, abs(high)))
    pad = max(pad, room * (high - low) / (plot.bottom - plot.top - 2 * room))
    return Scale(low - pad, high + pad, plot.bottom, plot.top)


def x_ticks(x: Scale, distance: float) -> list[float]:
    """1, 2, 5 of each power of ten, or fewer, so that ticks stand at least `distance` px apart."""
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        exponents = range(math.floor(x.low) - 1, math.ceil(x.high) + 1)
        ticks = [m * 10.0**e for e in exponents for m in multiples if x.low <= math.log10(m * 10.0**e) <= x.high]
        places = [x(math.log10(tick)) for tick in ticks]
        if all(b - a >= distance for a, b in itertools.pairwise(places)):
            return ticks
    return ticks


def y_ticks(y: Scale, least: float = 0, most: float = 1) -> list[float]:
    """About seven round values; none beyond `least` and `most`: no metric passes 0 and 1."""
    return round_values(max(y.low, least), min(y.high, most), (y.high - y.low) / 7)


def step_scale(last: int, plot: Box, edge: float) -> Scale:
    """Linear from the untrained model at step 0, with `edge` px at either end for markers and half a number."""
    return Scale(0, max(last, 1), plot.left + edge, plot.right - edge)


def step_ticks(x: Scale, distance: float) -> list[int]:
    """Round numbers of steps, at least `distance` px apart."""
    apart = distance * (x.high - x.low) / (x.end - x.start)
    return [round(value) for value in round_values(x.low, x.high, max(apart, 1))]


def round_values(low: float, high: float, distance: float) -> list[float]:
    """The multiples of 1, 2 or 5 times a power of ten that are at least `distance` apart."""
    power = 10.0 ** math.floor(math.log10(distance))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= distance)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]
