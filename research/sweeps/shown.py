"""How the points of a sweep are shown: what tells them apart in a few words, where they stand, and the time that is left."""

import json
import time
from collections import Counter
from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from research.runs.ledger import AGAIN, Standing
from research.runs.options import scaled, short_names
from research.runs.plan import PlannedPoint
from research.sweeps.command import Point
from research.sweeps.sampling import SEED, count_of
from research.types import Json

VALUE = 18  # characters of a value that is shown short
ENDED = ("done", "pruned")


def short_options(points: Iterable[Point]) -> list[str]:
    """Write options that differ between points as a report names them, `r=4 lora_alpha/r=2 seed=0`; "" of none."""
    options = [{name: value for key, inner in point.items() for name, value in _leaves(key, inner)} for point in points]
    names = list(dict.fromkeys(name for point in options for name in point))
    varied = [name for name in names if len({json.dumps(point.get(name), sort_keys=True) for point in options}) > 1]
    options, varied = scaled(options, varied)
    labels = short_names(varied) | {SEED: "seed"}
    return [" ".join(f"{labels[name]}={_short(point[name])}" for name in varied if name in point) for point in options]


def _leaves(name: str, value: Json) -> Iterable[tuple[str, Json]]:
    """Yield the options that a parameter sets: those in its mapping, or itself."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(name if key == "init_args" else f"{name}.{key}", inner)
    else:
        yield name.replace(".init_args.", "."), value


def _short(value: Json) -> str:
    """Write a value in a few characters: a class by its name, a path by its end, a drawn rate by four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if text.replace(".", "").isidentifier():
        text = text.rpartition(".")[2]
    if len(text) <= VALUE:
        return text
    return f"…{text[1 - VALUE :]}" if "/" in text else f"{text[: VALUE - 1]}…"


def table(points: list[PlannedPoint], standings: dict[str, Standing], is_wide: bool = False) -> Table:
    """Make rich's table of points and where they stand.

    Args:
        points: of a plan.
        standings: point → where it stands.
        is_wide: options by their whole names and values, in columns of their own.
    """
    rows = Table(box=None, pad_edge=False)
    has_values = any(standing.last.get("value") is not None for standing in standings.values())
    values = [planned.values for planned in points]
    varied = [name for name in (values[0] if values else ()) if len({str(point.get(name)) for point in values}) > 1]
    names = varied if is_wide else ["options"]
    for name in ("point", *names, "state", "tries", "time", *(["value"] if has_values else [])):
        rows.add_column(escape(name), overflow="fold", no_wrap=is_wide or name != "options")  # an id is there to be copied
    for planned, short in zip(points, short_options(values), strict=True):
        standing = standings[planned.point]
        seconds, value = standing.last.get("seconds"), standing.last.get("value")
        shown = [str(planned.values.get(name)) for name in varied] if is_wide else [short]
        rows.add_row(
            planned.point,
            *map(escape, shown),
            standing.state,
            str(standing.attempts),
            "" if seconds is None else duration_text(seconds),
            *([("" if value is None else f"{value:.4f}")] if has_values else []),
        )
    return rows


def errors(points: list[PlannedPoint], standings: dict[str, Standing]) -> list[str]:
    """List the errors that points ended with, each once."""
    by_error: dict[str, list[str]] = {}
    for planned in points:
        if error := standings[planned.point].last.get("error"):
            by_error.setdefault(error, []).append(planned.point)
    more = {error: f" and {len(names) - 1} more" if len(names) > 1 else "" for error, names in by_error.items()}
    return [f"{names[0]}{more[error]}: {error}" for error, names in by_error.items()]


def lost_rows(points: list[PlannedPoint]) -> list[str]:
    """List the rows that trainings leave out, each with the number of points that it concerns; the plan has counted them."""
    counts: Counter[str] = Counter()
    for planned in points:
        for split, lost in planned.facts.get("lost_rows", {}).items():
            if dropped := lost.get("dropped", 0) + lost.get("equal", 0):
                counts[f"{dropped:,} of {lost['rows']:,} rows of {split} are left out"] += 1
    of = f"of {count_of(len(points), 'point')}"
    return [f"{count} {of}: {text} (data.max_length leaves nothing of them)" for text, count in counts.items()]


def outcome_text(standing: Standing, metric: str | None) -> str:
    """Write what became of a point: `done in 41 s, val/loss=2.3456`."""
    if standing.state == "running":
        return "is running" if standing.attempts < 2 else f"is running, attempt {standing.attempts}"
    last = standing.last
    text = standing.state + (f" in {duration_text(last['seconds'])}" if "seconds" in last else "")
    text += f", {metric}={last['value']:.4f}" if metric and "value" in last else ""
    return text + (f": {last['error']}" if last.get("error") else "")


def progress_text(points: list[PlannedPoint], standings: dict[str, Standing], total: int, workers: int) -> str:
    """Write how far a sweep is: `4 of 18, about 9 min left`; the arguments are those of time_left."""
    ended = sum(standing.state not in ("missing", "running", "preempted", "killed") for standing in standings.values())
    left = time_left(points, standings, total, workers)
    return f"{ended} of {total}" + ("" if not left else f", about {duration_text(left)} left")


def time_left(points: list[PlannedPoint], standings: dict[str, Standing], total: int, workers: int) -> float | None:
    """Estimate the seconds until all points have ended, from those that have; None before the first, unless it was measured.

    Args:
        points: of a plan; of a search, those so far.
        standings: point → where it stands.
        total: how many points there will be.
        workers: that run them.
    """
    guesses = {planned.point: planned.facts.get("seconds") for planned in points}  # of `plan --measure`
    is_measured = all(guess is not None for guess in guesses.values())
    weights = {point: guess if is_measured else 1.0 for point, guess in guesses.items()}
    ended = [point for point in weights if standings[point].state in ENDED and "seconds" in standings[point].last]
    if not ended and not (is_measured and weights):
        return None
    # the first points of workers have also paid for the imports
    ended = sorted(ended, key=lambda point: float(standings[point].last.get("time", 0)))
    ended = ended[workers:] or ended
    ratio = 1.0
    if ended:
        ratio = sum(standings[point].last["seconds"] for point in ended) / (sum(weights[point] for point in ended) or 1.0)
    left = []
    for point, weight in weights.items():
        state, last = standings[point].state, standings[point].last
        if state == "running":
            left.append(max(0.0, ratio * weight - (time.time() - float(last.get("time", time.time())))))
        elif state in AGAIN:
            left.append(ratio * weight)
    left += [ratio * sum(weights.values()) / len(weights)] * max(0, total - len(weights)) if weights else []
    return max(sum(left) / max(1, min(workers, len(left))), max(left, default=0.0)) if left else 0.0


def duration_text(seconds: float) -> str:
    """Write a duration: 41 s, 12 min or 2 h 05 min."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
