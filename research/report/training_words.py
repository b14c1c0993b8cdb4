"""A training in words: what came of it, and what it was made of. One line on the page, one row in Markdown."""

import re
from pathlib import Path

from research.report.markdown import escape
from research.report.numbers import plain, share, signed
from research.report.systems import Row
from research.report.tables import NOTHING, title
from research.report.training import Training
from research.runs.options import is_file
from research.types import Json


def metric(training: Training) -> str:
    """Name the metric: `MRR@10 on dev`, or the spec's words for it."""
    name = title(training.monitor) if "@" in training.monitor else training.monitor
    name = training.labels.get(f"val/{training.monitor}", name)
    where = validated_on(training)
    return f"{name} on {where}" if where else name


def validated_on(training: Training) -> str:
    """Name the set that chose the model: `dev` of the training data, `dev of beir:other`, or a file, which has no splits."""
    val, split = training.run.options.get("data.val"), training.run.options.get("data.val_split")
    source = val or training.run.options.get("data.train")
    if is_file(source):
        return Path(source).name + _slice(split)
    return f"{split} of {source_name(val)}" if val and split else str(val or split or "")


def source_name(source: str) -> str:
    """Shorten a data source for a heading: `rows:/home/me/faq.csv,query=Frage` → `rows:faq.csv`."""
    kind, _, rest = source.partition(":")
    if kind not in ("rows", "beir"):
        return source
    return f"{kind}:{','.join(Path(part).name for part in rest.split(',') if kind == 'beir' or '=' not in part)}"


def _slice(split: Json) -> str:
    part = re.search(r"\[.*\]", str(split or ""))
    return part[0] if part else ""


def state(training: Training) -> str:
    """Return what is to be known before the numbers are trusted; "" where nothing is."""
    remarks = []
    if not training.finished:
        remarks.append(f"unfinished at step {training.steps:,}")
    if training.drawn < training.steps:
        remarks.append(f"its curves end at step {training.drawn:,} of {training.steps:,}")
    if training.not_finite:
        steps = "1 step" if training.not_finite == 1 else f"{training.not_finite:,} steps"
        remarks.append(f"{steps} without a finite loss, not drawn")
    return ", ".join(remarks)


def result(training: Training) -> str:
    """Write the result: `MRR@10 on dev .5889 at step 84 of 84, untrained .4965 (+.0924).`"""
    best, untrained = training.best, training.untrained
    if best is None and untrained is None:
        return "Trained without validation: nothing says how good it is, or which step was best."
    if best is None:
        return f"{metric(training)}: untrained {share(untrained)}; not validated since."
    so_far = "" if training.finished else ", the best so far"
    text = f"{metric(training)} {share(best[1])} at step {best[0]:,} of {training.steps:,}{so_far}"
    if untrained is None:
        return f"{text}; the untrained model was not validated."
    return f"{text}; untrained {share(untrained)} ({signed(best[1] - untrained)})."


def facts(training: Training) -> list[str]:
    """List base model, data, steps, time, learning rate, temperature, seed; what the run does not record is left out."""
    size, seed = training.run.options.get("data.batch_size"), training.run.provenance.get("seed")
    phrases = [
        f"from {base(training)}",
        f"on {data(training)}",
        f"{training.steps:,} step{'' if training.steps == 1 else 's'}"
        + (f" of {size:,} examples" if isinstance(size, int) else ""),
        _time(training.seconds),
        f"{plain(training.per_second)} examples/s" if training.per_second else None,
        f"lr peak {plain(training.lr)}" if training.lr else None,
        f"temperature {temperature(training)}" if training.temperature else None,
        None if seed is None else f"seed {seed}",
    ]
    return [phrase for phrase in phrases if phrase]


def base(training: Training) -> str:
    """Name the model that was trained, as its configuration does."""
    return str(training.run.options.get("model.model") or "an unnamed model")


def data(training: Training) -> str:
    """Name the data: `builtin:stdlib train, 1,814 examples`."""
    train, split = (training.run.options.get(f"data.{key}") for key in ("train", "train_split"))
    source = (
        f"{train}{_slice(split)}" if is_file(train) else " ".join(source_name(str(part)) for part in (train, split) if part)
    )
    recorded = training.run.provenance.get("data")
    sizes = recorded if isinstance(recorded, dict) else {}
    count = next((sizes[name] for name in ("examples", "queries") if isinstance(sizes.get(name), int)), None)
    return (source or "unnamed data") + ("" if count is None else f", {count:,} examples")


def temperature(training: Training) -> str:
    """Write the temperature: `.05`; `.05 to .031` where it was learned."""
    if training.temperature is None:
        return NOTHING
    return " to ".join(dict.fromkeys(plain(value) for value in training.temperature))


def used_in(training: Training, rows: list[Row]) -> list[int]:
    """List the positions of rows whose retriever or reranker is this folder by name: the end of its path, as it was typed."""
    return [i for i, row in enumerate(rows) if _names(training.run.path, row.facts.get("model"))]


def table(trainings: list[Training]) -> str:
    """Write all trainings as one Markdown table; "" of none."""
    if not trainings:
        return ""
    head = [
        "Training",
        "Metric",
        "Best",
        "Untrained",
        "At step",
        "Steps",
        "Base model",
        "Trained on",
        "lr peak",
        "Temperature",
        "Seed",
    ]
    rows = []
    for training in trainings:
        step, value = training.best or (None, None)
        name = f"{training.run.name} ({state(training)})" if state(training) else training.run.name
        rows.append(
            [
                name,
                metric(training),
                NOTHING if value is None else share(value),
                NOTHING if training.untrained is None else share(training.untrained),
                NOTHING if step is None else f"{step:,}",
                f"{training.steps:,}",
                base(training),
                data(training),
                NOTHING if training.lr is None else plain(training.lr),
                temperature(training),
                str(training.run.provenance.get("seed", NOTHING)),
            ]
        )
    align = [":--", ":--", "--:", "--:", "--:", "--:", ":--", ":--", "--:", "--:", "--:"]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *([*map(escape, row)] for row in rows)])


def summary(training: Training) -> dict[str, Json]:
    """Return a training's numbers for programs."""
    step, value = training.best or (None, None)
    return {
        "run": training.run.name,
        **({"point": training.run.point} if training.run.point else {}),
        "finished": training.finished,
        "monitor": f"val/{training.monitor}",
        "best": value,
        "step": step,
        "untrained": training.untrained,
        "steps": training.steps,
        "base_model": base(training),
        "train": training.run.options.get("data.train"),
        "data": training.run.provenance.get("data"),
        "lr": training.lr,
        "temperature": training.temperature and training.temperature[1],
        "seed": training.run.provenance.get("seed"),
        "seconds": training.seconds,
    }


def _time(seconds: float) -> str:
    """Write a time: `48 s`, `4 min 56 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _names(path: Path, model: object) -> bool:
    """Return whether `model`, absolute or relative to wherever the user stood, ends as the folder's path does."""
    if not isinstance(model, str) or ":" in model:
        return False
    parts = [part for part in Path(model).parts if part not in (".", "..")]
    parts = parts[:-1] if parts[-1:] == ["model"] else parts
    return bool(parts) and list(path.parts[-len(parts) :]) == parts
