"""The explorer's learning curves: as many points of each as the page has room for."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from research.runs.curves import Curve
from research.types import Json

CURVES = 1_600_000  # bytes of a page for learning curves
POINTS = (200, 100, 60, 40, 25, 15)  # of a curve; the first number with which all of them fit
LEAST = 5.5  # bytes of a value, or more
FIRST = "train/loss"

Thinned = dict[str, Json]
"""{"curves": {metric: for each run [number of its steps, values] or null}, "steps": lists of steps}, as JSON has it."""


def thinned_curves(runs: Sequence[Mapping[str, Curve]], metric: str | None) -> Thinned:
    """Thin the curves of all runs to at most CURVES bytes of JSON, with "thinned": the points of the longest.

    Steps that many curves share are there once. What does not fit with the fewest points is left out, the least asked for
    first.

    Args:
        runs: metric → curve, of each run.
        metric: that the runs are judged by; its curves come first.
    """
    names = list(dict.fromkeys(name for curves in runs for name in curves))
    names.sort(key=lambda name: (name != metric, name != FIRST, not name.startswith("val/"), name))
    lengths = [len(curve) for curves in runs for curve in curves.values()]
    for most in POINTS[:-1]:
        if sum(min(length, most) for length in lengths) * LEAST > CURVES:  # not even so many values fit
            continue
        thinned = _thinned(runs, names, most)
        if _size(thinned) <= CURVES:
            return thinned | {"thinned": most}
    thinned = _thinned(runs, names, POINTS[-1])
    while names and _size(thinned) > CURVES:
        names = names[:-1]
        thinned = _thinned(runs, names, POINTS[-1])
    return thinned | {"thinned": POINTS[-1]}


def _thinned(runs: Sequence[Mapping[str, Curve]], names: Sequence[str], most: int) -> Thinned:
    grids: dict[tuple[int, ...], int] = {}
    by_metric: dict[str, list[list[object] | None]] = {}
    for name in names:
        by_metric[name] = []
        for curves in runs:
            points = thin(curves[name], most) if name in curves else []
            grid = grids.setdefault(tuple(step for step, _ in points), len(grids)) if points else None
            by_metric[name].append(None if grid is None else [grid, [value for _, value in points]])
    return {"curves": by_metric, "steps": [list(steps) for steps in grids]}


def thin(curve: Curve, most: int) -> Curve:
    """Keep at most so many points: the mean of each of `most` equal stretches, at its last step; values to four digits."""
    steps, values = np.array(curve, dtype=np.float64).reshape(-1, 2).T
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    if values.size > most:
        edges = values.size * np.arange(most + 1) // most
        steps, values = steps[edges[1:] - 1], np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return [(int(step), float(f"{value:.4g}")) for step, value in zip(steps.tolist(), values.tolist(), strict=True)]


def _size(thinned: Thinned) -> int:
    return len(json.dumps(thinned, separators=(",", ":")))
