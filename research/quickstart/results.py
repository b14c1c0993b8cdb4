"""What a quickstart prints at its end: which system is better, by how much, is it chance; a language model's answers."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.metrics.significance import bootstrap_interval, compare
from research.quickstart.state import State
from research.runs.folder import RunFolder

METRIC = "ndcg@10"
SURE = 0.05
SHOWN = 2  # questions, the shortest: a line of the terminal holds them


class Row(NamedTuple):
    """A system: its name, values of single queries, and the name of the system that it is compared with."""

    name: str
    values: dict[str, float]
    against: str | None


def print_results(out: Path, state: State) -> None:
    """Print the table, the verdict and the answers to stdout; what was not run is not there."""
    rows = systems(out)
    queries = len(rows[0].values) if rows else 0
    print(f"\n{'system':34} nDCG@10 [95% interval]   against the other        p")
    for row in rows:
        print(_line(row, rows))
    print(f"{queries:,} test queries of {state.plan.data}, {state.speed.precision}; intervals over queries; one seed")
    if verdict := training_verdict(rows):
        print(f"\n{verdict}")
    for line in language_lines(out):
        print(line)


def systems(out: Path) -> list[Row]:
    """Read the systems that were measured, in the order of the steps."""
    rows = []
    for folder, stage, name, against in (
        ("bm25", "bm25", "BM25", None),
        ("exact", "bm25", "BM25", None),
        ("exact", "dense", "MiniLM, untrained", "BM25"),
        ("exact", "fused", "the two, fused", "MiniLM, untrained"),
        ("hnsw", "dense", "MiniLM, untrained, HNSW", "MiniLM, untrained"),
        ("trained", "dense", "MiniLM, trained", "MiniLM, untrained"),
        ("tandem", "dense", "MiniLM, trained", "MiniLM, untrained"),
        ("tandem", "reranked", "→ trained cross-encoder", "MiniLM, trained"),
    ):
        if values := RunFolder(out / folder).metrics.get("stages", {}).get(stage):
            rows.append(Row(name, values["per_query"][METRIC], against))
    return rows


def training_verdict(rows: list[Row]) -> str | None:
    """Return whether the trained encoder finds more than the untrained one; None where either was not run."""
    values = {row.name: row.values for row in rows}
    if not {"MiniLM, trained", "MiniLM, untrained"} <= values.keys():
        return None
    test = compare(values["MiniLM, untrained"], values["MiniLM, trained"])
    size = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}], p = {test.p:.4f}"
    if test.p < SURE and test.difference > 0:
        return f"Training helped: nDCG@10 {size}, better on {test.better} and worse on {test.worse} of {test.queries} queries."
    return (
        f"Training did not show an effect on these {test.queries} queries: nDCG@10 {size}. Give it more minutes: "
        "research quickstart --minutes 15"
    )


def language_lines(out: Path) -> list[str]:
    """Write the lines on what the language model learned, and its answers before and after."""
    lines = []
    if facts := RunFolder(out / "sft").metrics:
        first, best = facts["untrained"]["loss"], facts["metrics"]["loss"]
        before, after = (facts.get(name) or {} for name in ("untrained_per_query", "per_query"))
        p = ""
        if "loss" in before and "loss" in after:
            test = compare(before["loss"], after["loss"])
            p = f", p = {test.p:.4f} over {test.queries} examples"
        lines += ["", f"language model with LoRA after {facts['steps']} steps: loss on dev {first:.3f} → {best:.3f}{p}"]
    answers = out / "answers" / "answers.jsonl"
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()] if answers.exists() else []
    for row in sorted(rows, key=lambda row: len(_question(row)))[:SHOWN]:
        before, after = row["answers"].values()
        shown = {"question": _question(row), "before": before, "after": after, "reference": row["reference"]}
        lines += ["", *(f"  {name:9} {_short(value)}" for name, value in shown.items())]
    return lines


def _question(row: dict) -> str:
    return row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]


def _line(row: Row, rows: list[Row]) -> str:
    values = np.array(list(row.values.values()))
    low, high = bootstrap_interval(values)
    line = f"{row.name:34} {values.mean():.4f} [{low:.3f}, {high:.3f}]"
    other = next((system for system in rows if system.name == row.against), None)
    if other is None:
        return line
    test = compare(other.values, row.values)
    p = "< .001" if test.p < 0.001 else f"{test.p:.3f}"
    return f"{line:58} {other.name.split(', ')[-1]:>14} {test.difference:+.4f}  {p:>6}"


def _short(text: str | None) -> str:
    line = " ".join((text or "(nothing)").split())
    return line if len(line) <= 100 else line[:99] + "…"
