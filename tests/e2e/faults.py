"""What the fault tests share: a place to break things in, rows of the matrix, and what a refusal must look like.

Every test stands in a folder of its own with collection/ (BEIR: 30 documents d0…, 8 queries q0…, splits test and dev),
model/ (a tiny BERT of 64 positions), good.trec (a run of split test), dual.yaml (a training of four steps), sweep.yaml (two
points of it), lm/ (a tiny language model of 512 positions), rows.jsonl (six instructions) and, where a test asks for it,
reranker/ (a tiny cross-encoder). Paths in the tables are relative to it.
"""

import atexit
import functools
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lm import rows, save_tiny

COMMANDS = {
    "encode": "encode --data beir:collection --split test --model ./model --out out",
    "retrieve": "retrieve --data beir:collection --split test --retriever ./model --out out",
    "mine": "mine --data beir:collection --split test --retriever ./model --out out/negatives.jsonl",
    "evaluate": "evaluate --data beir:collection --split test --runs good.trec --out out",
    "report": "report run --out out",
    "quickstart": "quickstart --full --out out",
    "fit": "fit -c dual.yaml --out out",
    "validate": "validate -c dual.yaml --out out",
    "test": "test -c dual.yaml --out out",
    "generate": "generate --model ./lm --data rows.jsonl --max-new-tokens 2 --out out",
    "tokenize": "tokenize --model ./lm --data rows.jsonl",
    "export": "export ./lm --out out",
    "sweep": "sweep plan sweep.yaml",
}
"""verb → a command that works once `run` is made; a row's options are added, and the last value of an option wins."""

MAKE_RUN = "retrieve --data beir:collection --split test --retriever bm25 --out run"
MAKE_NEGATIVES = "mine --data beir:collection --split test --retriever bm25 --out out/negatives.jsonl"
MAKE_FIT = COMMANDS["fit"] + " --keep_checkpoints true"
MAKE_STORE = "encode --data beir:collection --model ./model --out store"
RESULTS = (
    "metrics.json",
    "store.json",
    "*.trec",
    "*.html",
    "negatives.jsonl",
    "validate.json",
    "test.json",
    "*.ckpt",
    "plan.jsonl",
    "model",
)
DUAL = """
out: out
save_every: 1
model:
  class_path: research.training.dual_encoder.DualEncoderModule
  init_args:
    model: ./model
data:
  class_path: research.data.pairs.PairData
  init_args:
    train: beir:collection
    train_split: test
    val_split: dev
    batch_size: 2
trainer:
  accelerator: cpu
  max_epochs: 2
"""

SWEEP = """
method: grid
command: [research, fit, -c, dual.yaml, --out, "out/{point}", "${args}"]
parameters:
  seed_everything: {values: [0, 1]}
"""

Break = Callable[[pytest.MonkeyPatch], None]


class Row(NamedTuple):
    """One line of the matrix: a fault, and the three things that its message must hold.

    Attributes:
        fault: the class, as in FAULTS of test_faults.py.
        what: what is wrong, as the test's id says it.
        verbs: to which the fault applies, separated by blanks.
        value, expected, cure: parts of the message.
        options: added to the verb's command; a whole command line where it begins with "research".
        breaks: how the place is broken.
        before: commands that run first, and must succeed.
    """

    fault: str
    what: str
    verbs: str
    value: str
    expected: str
    cure: str
    options: str = ""
    breaks: tuple[Break, ...] = ()
    before: tuple[str, ...] = ()


class Cell(NamedTuple):
    row: Row
    verb: str

    @property
    def argv(self) -> list[str]:
        if self.row.options.startswith("research "):
            return shlex.split(self.row.options)[1:]
        return shlex.split(f"{COMMANDS[self.verb]} {self.row.options}")


def cells(rows: Iterable[Row]) -> list:
    """Each (row, verb) as a test of its own."""
    return [pytest.param(Cell(row, verb), id=f"{verb}: {row.what}") for row in rows for verb in row.verbs.split()]


# ---- ways to break a file -------------------------------------------------------------------------------------------


def remove(name: str) -> Break:
    return lambda _: shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()


def write(name: str, content: str | bytes) -> Break:
    def act(_):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return act


def append(name: str, line: str | bytes) -> Break:
    def act(_):
        with open(name, "ab") as stream:
            stream.write((line if isinstance(line, bytes) else line.encode()) + b"\n")

    return act


def replace(name: str, old: str, new: str) -> Break:
    def act(_):
        text = Path(name).read_text()
        assert old in text, f"{name} has no {old!r} to replace"
        Path(name).write_text(text.replace(old, new, 1))

    return act


def cut(name: str, size: int) -> Break:
    """Keep the first `size` bytes; a negative `size` takes so many off the end."""
    return lambda _: os.truncate(name, size if size >= 0 else Path(name).stat().st_size + size)


def rename(old: str, new: str) -> Break:
    return lambda _: Path(old).rename(new)


def copy(old: str, new: str) -> Break:
    return lambda _: shutil.copytree(old, new) if Path(old).is_dir() else shutil.copy(old, new)


# ---- the check ------------------------------------------------------------------------------------------------------


def furnish(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, reranker: Path | None = None) -> None:
    """Make `place`, which holds collection/ already, the place that COMMANDS work in, and stand in it."""
    shutil.copytree(model, place / "model")
    if reranker is not None:
        shutil.copytree(reranker, place / "reranker")
    (place / "good.trec").write_text("".join(f"q{i} Q0 d{i} 1 1.5 good\nq{i} Q0 d9 2 0.5 good\n" for i in (0, 2, 4, 6)))
    (place / "dual.yaml").write_text(DUAL)
    (place / "sweep.yaml").write_text(SWEEP)
    shutil.copytree(_language_model(), place / "lm")
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(6)))
    monkeypatch.chdir(place)


@functools.cache
def _language_model() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tandem-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save_tiny(folder / "lm")


def shorten_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    """`quickstart` on ./collection and ./model instead of minutes of data, without its trainings: these are `fit`'s."""
    from research.quickstart import run, speed, steps
    from research.quickstart.plan import Speed

    report = steps.STEPS["report"]._replace(whole="report {out}/exact {out}/hnsw --out {out}/report")
    road = {"exact": steps.STEPS["exact"], "hnsw": steps.STEPS["hnsw"], "report": report}
    for room in (run, steps):
        monkeypatch.setattr(room, "STEPS", road)
    monkeypatch.setattr(speed, "measure", lambda: Speed("cpu", "fp32", 100, 1.0))
    monkeypatch.setattr("research.verbs.quickstart.DATA", "beir:collection")
    monkeypatch.setattr("research.models.sources.MINILM", "./model")


def refuse(cell: Cell, research, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the place as the row says, run the command, and hold what it leaves against the contract."""
    for command in cell.row.before:
        done = research(*shlex.split(command))
        assert done.code == 0, done.err
    for action in cell.row.breaks:
        action(monkeypatch)
    before = snapshot()
    result = research(*cell.argv)
    assert_refused(result, cell.row.value, cell.row.expected, cell.row.cure)
    assert_nothing_changed(before)


def assert_refused(result, *words: str) -> None:
    """Exit code 2; on stderr, after progress, one paragraph `error: …` with every word; nothing on stdout."""
    assert result.code == 2, f"exit code {result.code}\n{result.err}"
    assert "Traceback" not in result.err, result.err
    *progress, last = result.err.rstrip("\n").split("\n")
    assert last.startswith("error: "), result.err
    assert not any(line.startswith("error: ") for line in progress), result.err
    for word in words:
        assert word, "a row must say what the message holds"
        assert word in last, f"{word!r} is not in: {last}"
    assert result.out == "", result.out


def snapshot() -> dict[str, bytes]:
    """Every file here but the cache's, with its bytes."""
    files = (path for path in sorted(Path().rglob("*")) if path.is_file() and path.parts[0] != "cache")
    return {str(path): path.read_bytes() for path in files}


def assert_nothing_changed(before: dict[str, bytes], out: str = "out") -> None:
    """Files that were there are the same, byte for byte; what is new lies in `out`, made by this command, and is no
    result."""
    after = snapshot()
    fresh = not any(name == out or name.startswith(f"{out}/") for name in before)
    new = {name for name in after.keys() - before.keys() if not (fresh and name.startswith(f"{out}/"))}
    assert not new, f"new files: {sorted(new)}"
    changed = {name for name in before if before[name] != after.get(name)}
    assert not changed, f"changed or removed: {sorted(changed)}"
    results = [str(path) for pattern in RESULTS for path in Path(out).rglob(pattern) if fresh]
    assert not results, f"half-written: {results}"
