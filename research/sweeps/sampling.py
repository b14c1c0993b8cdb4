"""The points of a sweep: all of a grid, seeded draws, or samples of what has no end."""

import itertools
import json
import random
from collections.abc import Iterator

from research.sweeps.command import Point
from research.sweeps.parameters import assembled
from research.sweeps.spec import Sweep

SEED = "seed_everything"
DRAWS = 100  # for each point of a random sweep


def sampled_points(sweep: Sweep, seed: int) -> list[Point]:
    """Return the points of a grid or a random sweep; samples where a sweep has no end."""
    if sweep.method == "grid":
        return list(grid(sweep))
    return drawn(sweep, seed, sweep.run_cap) if sweep.is_exhaustive else probes(sweep, seed)


def size_text(sweep: Sweep) -> str:
    """Write how many points, settings and seeds a sweep has, as a user reads it."""
    if sweep.is_exhaustive:
        return count_text(sampled_points(sweep, 0))
    if sweep.run_cap is None:
        return f"{sweep.method}, without an end"
    return f"{count_of(sweep.run_cap, 'point')} at most, proposed one by one"


def count_text(points: list[Point]) -> str:
    """Write counts as text, such as `18 points: 6 settings × 3 seeds`."""
    settings, seeds = settings_and_seeds(points)
    if not seeds:
        return f"{count_of(len(points), 'point')}, a seed each ({SEED} is not swept)"
    times = "×" if settings * seeds == len(points) else "and"
    return f"{count_of(len(points), 'point')}: {count_of(settings, 'setting')} {times} {count_of(seeds, 'seed')}"


def settings_and_seeds(points: list[Point]) -> tuple[int, int]:
    """Count the points that differ in more than their seed, and the seeds; 0 where none is swept."""
    settings = {json.dumps({name: value for name, value in point.items() if name != SEED}, sort_keys=True) for point in points}
    return len(settings), len({point[SEED] for point in points if SEED in point})


def count_of(number: int, noun: str) -> str:
    """Write a number of things: 1 point, 2 points."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def are(number: int, noun: str) -> str:
    """Write a number of things that are something: `1 point is`, `2 points are`."""
    return f"{count_of(number, noun)} {'is' if number == 1 else 'are'}"


def grid(sweep: Sweep) -> Iterator[Point]:
    """Yield every combination, the last parameter fastest; no more than run_cap."""
    product = itertools.product(*(parameter.values for parameter in sweep.parameters))
    for values in itertools.islice(product, sweep.run_cap):
        yield assembled(sweep.parameters, values)


def drawn(sweep: Sweep, seed: int, count: int) -> list[Point]:
    """Draw the seeded static plan of a random sweep, each point once; a longer one begins with a shorter one."""
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
    """Sample points of a sweep without an end: each parameter's extremes, and some draws."""
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
