"""What the tests of fit share: a configuration of a tiny training, and how to stand beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Result, write_collection

DUAL = """
seed_everything: 0
out: run
save_every: 4
model:
  class_path: research.training.dual_encoder.DualEncoderModule
  init_args:
    model: ./model
    optimisation:
      lr: 1.0e-3
data:
  class_path: research.data.pairs.PairData
  init_args:
    train: beir:collection
    train_split: test
    val_split: dev
    test_split: dev
    batch_size: 4
trainer:
  accelerator: cpu
  max_epochs: 3
"""
CROSS = """
seed_everything: 0
out: cross
model:
  class_path: research.training.cross_encoder.CrossEncoderModule
  init_args:
    model: ./model
    optimisation:
      lr: 1.0e-3
data:
  class_path: research.data.candidates.CandidateData
  init_args:
    train: candidates.jsonl
    val: beir:collection
    val_run: first/bm25.trec
    test_split: test
    test_run: testrun/bm25.trec
    depth: 8
    batch_size: 4
trainer:
  accelerator: cpu
  max_epochs: 2
"""
MINE = "mine --data beir:collection --split test --retriever bm25 --out candidates.jsonl"
RETRIEVE = "retrieve --data beir:collection --split {split} --retriever bm25 --out {out}"


def furnish(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """collection/ (60 documents, 20 queries to train on and 20 to validate on), model/, dual.yaml, cross.yaml."""
    write_collection(place / "collection", documents=60, queries=40)
    (place / "model").symlink_to(model)
    (place / "dual.yaml").write_text(DUAL)
    (place / "cross.yaml").write_text(CROSS)
    monkeypatch.chdir(place)


def curve(folder: str | Path) -> list[dict]:
    lines = [json.loads(line) for line in Path(folder, "curves.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def same_run(a: str | Path, b: str | Path) -> None:
    """Curves, best model and metrics are equal, bit for bit."""
    assert curve(a) == curve(b)
    weights = [Path(folder, "model/model.safetensors").read_bytes() for folder in (a, b)]
    assert weights[0] == weights[1]
    values = [json.loads(Path(folder, "metrics.json").read_text()) for folder in (a, b)]
    assert {n: v for n, v in values[0].items() if n != "seconds"} == {n: v for n, v in values[1].items() if n != "seconds"}


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TANDEM_CACHE": "cache", "PYTHONPATH": str(ROOT), **more}


def process(*argv: str, **options) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "research", *argv],
        env=environment(**options.pop("env", {})),
        text=True,
        capture_output=True,
        timeout=options.pop("timeout", 300),
        check=False,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def signalled(number: int, argv: str, until: str, group: bool = False) -> Result:
    """A process of its own that gets the signal as soon as the file `until` is there; with `group`, its children too."""
    child = subprocess.Popen(
        [sys.executable, "-m", "research", *argv.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # a shell's background job is born with SIGINT ignored, and so would its children be
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        process_group=0,
    )
    started = time.monotonic()
    while not Path(until).exists():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() - started < 120, f"{until} has not come"
        time.sleep(0.005)
    os.killpg(child.pid, number) if group else child.send_signal(number)
    out, err = child.communicate(timeout=120)
    return Result(child.returncode, out, err)
