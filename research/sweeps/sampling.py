"""The points of a sweep: all of a grid, seeded draws, or samples of what has no end."""

import itertools
import random
from collections.abc import Iterator

from research.sweeps.command import Point
from research.sweeps.parameters import assembled
from research.sweeps.spec import Sweep

DRAWS = 100  # for each point of a random sweep


def points_of(sweep: Sweep, seed: int) -> list[Point]:
    """The points of a grid or a random sweep; of one without an end, samples."""
    if sweep.method == "grid":
        return list(grid(sweep))
    return drawn(sweep, seed, sweep.run_cap) if sweep.is_exhaustive else probes(sweep, seed)


def grid(sweep: Sweep) -> Iterator[Point]:
    """Every combination, the last parameter fastest; no more than run_cap."""
    product = itertools.product(*(parameter.values for parameter in sweep.parameters))
    for values in itertools.islice(product, sweep.run_cap):
        yield assembled(sweep.parameters, values)


def drawn(sweep: Sweep, seed: int, count: int) -> list[Point]:
    """The seeded static plan of a random sweep, each point once; a longer one begins with a shorter one."""
    points: list[Point] = []
    seen = set()
    for i in range(DRAWS * count):  # of lists alone there may be fewer points than that
        draw = random.Random(f"sweep {sweep.name} {seed} {i}")
        point = assembled(sweep.parameters, [parameter.quantile(draw.random()) for parameter in sweep.parameters])
        if (text := repr(point)) not in seen:
            seen.add(text)
            points.append(point)
        if len(points) == count:
            break
    return points


def probes(sweep: Sweep, seed: int, count: int = 8) -> list[Point]:
    """Points that show what a sweep without an end can ask for: each parameter's extremes, and some draws."""
    middle = [parameter.quantile(0.5) for parameter in sweep.parameters]
    points = [assembled(sweep.parameters, middle)]
    for i, parameter in enumerate(sweep.parameters):
        points += [assembled(sweep.parameters, [*middle[:i], value, *middle[i + 1 :]]) for value in parameter.extremes()]
    points += drawn(sweep, seed, count)
    unique: list[Point] = []
    for point in points:
        if point not in unique:
            unique.append(point)
    return unique
