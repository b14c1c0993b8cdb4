"""Every block of docs/language-data.md runs."""

import json
import re
import shlex
from pathlib import Path

import pytest

from research.data.instructions import read_examples
from research.data.language_shapes import ROLES
from research.data.preferences import read_preferences
from tests.lm import save_tiny
from tests.tiers import ROOT

PAGE = (ROOT / "docs/language-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [(kind, line) for language, kind, block in BLOCKS if language == "json" for line in block.splitlines()]
SFT = {
    "out": "out",
    "monitor": "val/loss",
    "model": {"class_path": "research.training.sft.SFTModule", "init_args": {"model": "./lm"}},
    "data": {"class_path": "research.data.instructions.InstructionData", "init_args": {"batch_size": 2}},
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}


@pytest.mark.parametrize(("kind", "line"), ROWS, ids=[f"{kind} {i}" for i, (kind, _) in enumerate(ROWS)])
def test_rows_of_the_page_are_read_whole(kind, line, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    (row,) = (read_examples if kind == "instructions" else read_preferences)(str(path), None).rows
    assert not capsys.readouterr().err  # no column is left unread
    said = json.dumps(row)
    assert all(word in said for word in ("4", "5" if kind == "preferences" else "2"))


def test_commands_of_the_page_run(research, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("lm"), layers=1)
    Path("configs").mkdir()
    Path("configs/sft.yaml").write_text(json.dumps(SFT))
    rows = [{"question": f"What is {i} + 2?", "answer": str(i + 2)} for i in range(8)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("named.jsonl").write_text("".join(json.dumps({"ask": r["question"], "reply": r["answer"]}) + "\n" for r in rows))
    commands = [line for language, _, block in BLOCKS if language == "bash" for line in block.splitlines()]
    assert len(commands) == 2
    for i, command in enumerate(commands):
        verb, *argv = shlex.split(command)
        result = research(*argv, "--out", f"out{i}")
        assert verb == "research"
        assert result.code == 0, result.err
        if "[" in command:
            assert "6 examples; validation on 2 examples" in result.err
    result = research("tokenize", "--model", "lm", "--data", "rows.jsonl", "--row", "0", "--json")
    assert "What is 0 + 2?" in result.json["text"]


def test_roles_of_the_page_are_those_there_are():
    listed = PAGE.split("Roles are ")[1]
    assert re.findall(r"`(\w+)`", listed) == list(ROLES)
