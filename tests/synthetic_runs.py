"""Run folders of a sweep as `research sweep run` leaves them, of any number of points and without any training.

  write_study(Path("runs/sweeps/big"), points=1000)

The same arguments write the same bytes. Some points have failed, were pruned or are missing, as in a sweep of this size.
"""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SEEDS = 3
STEPS, VALIDATIONS = 500, 20
EXAMPLES = 32  # that have a value of their own; as many as a run answers, or more
NOISE = 0.02  # standard deviation of the loss over seeds
STARTED = 1_795_406_623.0
FACTORS = {
    "r": [2**k for k in range(1, 9)],
    "scale": [2.0**k for k in range(8)],
    "lr": [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2],
    "dropout": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35],
}
"""Of LoRA: the rank, alpha over it, the learning rate and the dropout; a study has the first levels of each."""
CONFIG = Path(__file__).with_name("synthetic_config.yaml")  # of one run, with places for its point's values
WORDS = "return the value of a name list file path from given object and key in this class with new string".split()


class Point(NamedTuple):
    """One point: its id, its place in the plan, its levels, and what has become of it."""

    id: str
    number: int
    r: int
    scale: float
    lr: float
    dropout: float
    seed: int

    @property
    def state(self) -> str:
        """failed | pruned | missing | done, by its place: 2.5%, 2% and 1% of all, the first three within 42."""
        kinds = {"failed": (40, 17), "pruned": (50, 29), "missing": (100, 41)}
        return next((state for state, (every, at) in kinds.items() if self.number % every == at), "done")

    @property
    def step_seconds(self) -> float:
        return 0.15 + 0.02 * math.log2(self.r) + 0.003 * self.seed

    @property
    def values(self) -> dict[str, Any]:
        return {
            "model.adapter": {"r": self.r, "lora_alpha": int(self.r * self.scale), "lora_dropout": self.dropout},
            "model.optimisation.lr": self.lr,
            "seed_everything": self.seed,
        }


def write_study(folder: Path, points: int, outputs: int = 0, seed: int = 0) -> None:
    """Write a sweep's folder: plan, ledger, and a run folder for each point that was begun.

    Args:
        folder: new; its name is the sweep's.
        points: up to 12,288: settings of four factors, three seeds each, in the order of the plan.
        outputs: answers that each run keeps.
        seed: of the noise.
    """
    folder.mkdir(parents=True)
    made = list(_points(points))
    lines = [{"point": one.id, "values": one.values, "argv": _argv(folder, one), "facts": _facts(one)} for one in made]
    _write_lines(folder / "plan.jsonl", lines)
    _write_lines(folder / "ledger.jsonl", [event for one in made for event in _events(one)])
    for one in made:
        if one.state != "missing":
            _write_run(folder, one, outputs, random.Random(f"{seed} {one.id}"))


def ids(points: int) -> list[str]:
    """The points of such a study, in the order of the plan; the first three are of one setting, and done."""
    return [one.id for one in _points(points)]


def _points(count: int) -> Iterator[Point]:
    groups, levels = math.ceil(count / SEEDS), dict.fromkeys(FACTORS, 2)
    for name in itertools.cycle(FACTORS):
        if math.prod(levels.values()) >= groups:
            break
        levels[name] += 1
    assert max(levels.values()) <= 8, f"{count} points; expected at most {SEEDS * 8**4}"
    settings = itertools.product(*(FACTORS[name][: levels[name]] for name in FACTORS), range(SEEDS))
    for number, setting in enumerate(itertools.islice(settings, count)):
        yield Point(hashlib.sha256(json.dumps(setting).encode()).hexdigest()[:16], number, *setting)


def _write_run(folder: Path, one: Point, outputs: int, dice: random.Random) -> None:
    run = folder / one.id
    run.mkdir()
    (run / "config.yaml").write_text(
        CONFIG.read_text().format(folder=folder.name, **one._asdict(), alpha=int(one.r * one.scale))
    )
    (run / "provenance.json").write_text(json.dumps(_provenance(folder, one), indent=1))
    losses = _losses(one, dice)
    last = {"done": STEPS, "pruned": STEPS // 2, "failed": STEPS // 5}[one.state]
    losses = {step: values for step, values in losses.items() if step <= last}
    _write_lines(run / "curves.jsonl", _curves(one, losses, last, dice))
    if one.state != "failed":
        (run / "metrics.json").write_text(json.dumps(_metrics(one, losses, last, outputs, dice), indent=1))


def _losses(one: Point, dice: random.Random) -> dict[int, float]:
    """Step → validation loss: a fall from 3.7 to what the setting is worth, and the seed's noise."""
    best_lr = math.log10(one.lr / 1e-3) ** 2
    end = 3.0 - 0.08 * math.log2(one.r) + 0.03 * abs(math.log2(one.scale) - 1) + 0.1 * best_lr + 0.2 * one.dropout
    end += dice.gauss(0, NOISE)
    every = STEPS // VALIDATIONS
    return {step: end + (3.7 - end) * math.exp(-6 * step / STEPS) for step in range(0, STEPS + 1, every)}


def _numbers(loss: float) -> dict[str, float]:
    return {"loss": loss, "perplexity": math.exp(loss), "token_accuracy": 1 / loss, "rouge_l": 0.5 / loss}


def _curves(one: Point, losses: dict[int, float], last: int, dice: random.Random) -> list[dict[str, float]]:
    lines = []
    for step in range(last + 1):
        if step:
            loss = 2.8 + 0.9 * math.exp(-4 * step / STEPS) + dice.gauss(0, 0.2)
            lines.append(
                {
                    "step": step,
                    "train/loss": loss,
                    "train/grad_norm": 0.4 + 0.1 * dice.random(),
                    "train/lr": one.lr * (1 - (step - 1) / STEPS),
                    "train/token_accuracy": 1 / loss,
                    "train/tokens": 2400.0,
                    "seconds": round(one.step_seconds * step, 3),
                }
            )
        if step in losses:
            found = {f"val/{name}": value for name, value in _numbers(losses[step]).items()}
            lines.append({"step": step, **found, "seconds": round(one.step_seconds * step + 0.1, 3)})
    return lines


def _metrics(one: Point, losses: dict[int, float], last: int, outputs: int, dice: random.Random) -> dict[str, Any]:
    best = min(losses, key=losses.__getitem__)
    means = _numbers(losses[best])
    spread = {str(i): (i % 11 - 5) / 10 + dice.gauss(0, 0.05) for i in range(EXAMPLES)}
    per_query = {name: {i: means[name] * (1 + by / 10) for i, by in spread.items()} for name in ("loss", "token_accuracy")}
    per_query["rouge_l"] = {str(i): means["rouge_l"] * (1 + spread[str(i)]) for i in range(min(outputs, EXAMPLES))}
    answers = {
        str(i): {
            "prompt": [{"role": "user", "content": _text(random.Random(f"prompt {i}"), 40)}],
            "reference": _text(random.Random(f"reference {i}"), 12),
            "answer": _text(dice, 12),
        }
        for i in range(outputs)
    }
    found = {
        "kind": "fit",
        "monitor": "val/loss",
        "step": best,
        "metrics": means,
        "untrained": _numbers(losses[0]),
        "per_query": per_query,
    } | ({"answers": answers} if outputs else {})
    if one.state == "pruned":
        found["pruned"] = {"step": last, "values": len(losses) - 1, "why": "is worse than 2 of 3 others at this step"}
    return found | {
        "finished": True,
        "steps": last,
        "seconds": round(one.step_seconds * last + 3, 3),
        "temperature": None,
        "trained": _trained(one),
    }


def _text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(WORDS, k=words))


def _trained(one: Point) -> dict[str, Any]:
    size = 305_280 * one.r
    return {
        "trained_parameters": size,
        "adapter_parameters": size,
        "parameters": 134_515_008 + size,
        "effective_scale": one.scale,
        "virtual_tokens": 0,
        "adapter_bytes": 4 * size,
    }


def _argv(folder: Path, one: Point) -> list[str]:
    options = [f"--{name}={value}" for name, value in one.values.items()]
    return [
        "research",
        "fit",
        "-c",
        "configs/sft.yaml",
        "-c",
        "configs/adapter/lora.yaml",
        "--out",
        f"runs/sweeps/{folder.name}/{one.id}",
        *options,
    ]


def _made_of() -> dict[str, Any]:
    """Hashes: every run has the same data, code and base model."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    return {
        "code": digest("code")[:16],
        "base": digest("base"),
        "data": {"train": digest("train"), "examples": 192, "val": digest("val")},
    }


def _facts(one: Point) -> dict[str, Any]:
    made, trained = _made_of(), _trained(one)
    return {
        "computes": one.id,
        "trained_parameters": trained["trained_parameters"],
        "adapter_bytes": trained["adapter_bytes"],
        "memory": 288_567_936,
        "base_hash": made["base"],
        "data": made["data"],
    }


def _provenance(folder: Path, one: Point) -> dict[str, Any]:
    made = _made_of()
    return {
        "command": _argv(folder, one),
        "time": "2026-11-23T04:03:51+0000",
        "git_commit": made["code"] * 2 + "0" * 8,
        "git_dirty": False,
        "python": "3.11.7",
        "platform": "Linux-x86_64",
        "cpus": 2,
        "packages": {"torch": "2.13.0+cpu"},
        "made_of": hashlib.sha256(one.id.encode()).hexdigest(),
        "seed": one.seed,
        "device": "cpu",
        "point": one.id,
        "fingerprint": made["code"],
        "model_hash": made["base"],
        "data": made["data"],
    }


def _events(one: Point) -> list[dict[str, Any]]:
    if one.state == "missing":
        return []
    start = STARTED + 110.0 * one.number
    shared = {"point": one.id, "host": "node1", "job": None, "pid": 9637}
    more = {"done": {"seconds": 103.0}, "pruned": {"seconds": 53.0}, "failed": {"code": 1, "error": "CUDA out of memory"}}
    return [
        {**shared, "state": "running", "time": start, "attempt": 1},
        {**shared, "state": one.state, "time": start + 105, **more[one.state]},
    ]


def _write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
