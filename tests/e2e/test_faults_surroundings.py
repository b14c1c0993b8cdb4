"""No network, an interrupt, and help: what a verb does when the world around it is not there, or has no time."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import (
    COMMANDS,
    MAKE_FIT,
    MAKE_RUN,
    Row,
    assert_nothing_changed,
    assert_refused,
    cells,
    furnish,
    shorten_quickstart,
    snapshot,
)

from tests.conftest import ROOT, Result

HUB = "tandem-tests/there-is-no-such-model"
NETWORK = [
    Row(
        "no network",
        "hub model",
        "encode",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"--model {HUB}",
    ),
    Row(
        "no network",
        "hub model",
        "retrieve",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"research retrieve --data beir:collection --split test --retriever {HUB} --out out",
    ),
    Row(
        "no network",
        "hub model",
        "mine",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"research mine --data beir:collection --split test --retriever {HUB} --out out/negatives.jsonl",
    ),
    Row(
        "no network",
        "hub reranker",
        "retrieve mine",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"--reranker {HUB}",
    ),
    Row(
        "no network",
        "hub model",
        "fit validate test",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"--model.model {HUB}",
    ),
    Row(
        "no network",
        "hub training data",
        "fit",
        f"hf:{HUB}",
        "expected a dataset of the hub",
        "without one use beir:PATH",
        f"--data.train hf:{HUB}",
    ),
    Row(
        "no network",
        "hub data",
        "encode retrieve mine evaluate",
        f"hf:{HUB}",
        "expected a dataset of the hub",
        "without one use beir:PATH",
        f"--data hf:{HUB}",
    ),
]
COVERED = [("interrupt", verb) for verb in COMMANDS] + [("help", verb) for verb in COMMANDS]
COVERED += [("lost W&B", "retrieve"), ("lost W&B", "fit")]


def process(argv: str, env: dict | None = None) -> Result:
    environment = {**os.environ, "TANDEM_CACHE": "cache", "PYTHONPATH": str(ROOT), **(env or {})}
    done = subprocess.run(
        [sys.executable, "-m", "research", *shlex.split(argv)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def place(research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    return tmp_path


@pytest.mark.sample(3)
@pytest.mark.parametrize("cell", cells(NETWORK))
def test_no_network_is_refused(cell, place):
    before = snapshot()
    nowhere = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "cache/hub")}
    result = process(shlex.join(cell.argv), nowhere)
    assert_refused(result, cell.row.value, cell.row.expected, cell.row.cure)
    assert_nothing_changed(before)


@pytest.mark.parametrize("verb", ["encode", "retrieve"])
def test_unreachable_hub_is_refused_within_half_a_minute(verb, place):
    cell = next(c.values[0] for c in cells(NETWORK) if c.values[0].verb == verb)
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(place / "cache/hub")}
    started = time.monotonic()
    assert_refused(process(shlex.join(cell.argv), nowhere), cell.row.value, cell.row.expected, cell.row.cure)
    assert time.monotonic() - started < 30


@pytest.mark.thorough
@pytest.mark.parametrize("command", [MAKE_RUN, MAKE_FIT.replace("--out out", "--out run")], ids=["retrieve", "fit"])
def test_unreachable_wandb_is_a_warning_and_the_run_goes_on(command, place):
    nowhere = {
        "WANDB_MODE": "online",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_DIR": str(place / "cache"),
    }
    started = time.monotonic()
    result = process(command + " --json --wandb online", nowhere)
    assert time.monotonic() - started < 60
    assert result.code == 0, result.err
    assert "warning: W&B failed" in result.err
    assert "the run goes on" in result.err
    assert result.json["metrics"]
    assert Path("run/metrics.json").exists()


# ---- interrupts -----------------------------------------------------------------------------------------------------

INTERRUPTED = {
    "encode": "research.retrieval.encode.encode_batch",
    "retrieve": "research.retrieval.stages.exact_search",
    "mine": "research.retrieval.mine.to_triplets",
    "evaluate": "research.metrics.scores.score",
    "report": "research.report.page.html.page",
    "quickstart": "research.models.sources.resolve",
    "fit": "research.training.dual_encoder.embed",
    "validate": "research.training.validation.exact_search",
    "test": "research.training.validation.exact_search",
    "generate": "research.rag.answers.generate",
    "tokenize": "research.models.policy.load_policy",
    "export": "research.models.export._check",
    "sweep": "research.sweeps.plan.sampled_points",
}
"""verb → a function in its middle."""


@pytest.mark.parametrize("verb", INTERRUPTED)
def test_interrupt_is_130_leaves_no_result_and_the_same_command_finishes(verb, place, research, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    shorten_quickstart(monkeypatch)
    assert research(*MAKE_RUN.split()).code == 0
    before = snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(INTERRUPTED[verb], interrupt)
        result = research(*COMMANDS[verb].split())
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1].startswith("interrupted; ")
    assert "Traceback" not in result.err
    assert_nothing_changed(before)
    assert research(*COMMANDS[verb].split()).code == 0


def test_signal_to_a_process_is_130_without_a_traceback(place):
    (place / "pipe").mkdir()
    os.mkfifo("pipe/corpus.jsonl")  # the process waits here until the signal comes
    (place / "pipe/qrels").mkdir()
    (place / "pipe/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    command = [sys.executable, "-m", "research", *shlex.split(COMMANDS["encode"].replace("collection", "pipe"))]
    child = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # a shell's background job is born with SIGINT ignored, and so would its children be
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with open("pipe/corpus.jsonl", "w"):  # opens once the process has
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err


# ---- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *COMMANDS])
def test_help_answers_within_a_second_without_torch(verb):
    script = (
        f"import sys; from research.cli import main\ntry: main({[*verb.split(), '--help']})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'lightning', 'wandb'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0, f"imported: {done.stderr}"
        assert "usage: research" in done.stdout
    assert min(seconds) < 1
