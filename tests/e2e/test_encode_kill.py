"""SIGKILL half-way through `research encode`, then the same command again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, write_collection


@pytest.mark.thorough
def test_killed_encode_gives_the_same_bits_and_does_not_repeat_what_was_done(tmp_path, tiny_bert, research_process):
    data = write_collection(tmp_path / "big", documents=12000)
    command = ["encode", "--data", f"beir:{data}", "--model", str(tiny_bert), "--token-budget", "64", "--json"]
    straight = research_process(*command, "--out", tmp_path / "straight").json

    process = subprocess.Popen(
        [sys.executable, "-m", "research", *command, "--out", str(tmp_path / "killed")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    journal = tmp_path / "killed/journal.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and len(journal.read_text().splitlines()) > 5:  # the header and some batches
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/store.json").exists()
    done = len(journal.read_text().splitlines()) - 1

    again = research_process(*command, "--out", tmp_path / "killed")
    assert again.json["resumed_batches"] >= done > 0
    assert f"resuming after {again.json['resumed_batches']} finished batches" in again.err
    assert again.json["key"] == straight["key"]
    assert (tmp_path / "killed/embeddings.npy").read_bytes() == (tmp_path / "straight/embeddings.npy").read_bytes()
