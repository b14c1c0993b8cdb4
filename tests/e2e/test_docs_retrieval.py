"""Every row and every block of docs/retrieval-data.md is read, or run."""

import json
import re
import shlex
from pathlib import Path

import pytest

from research.data.rows import BadRows
from research.data.shapes.reading import read_training
from research.data.shapes.table import EXAMPLES
from research.data.sources import load
from tests.conftest import ROOT
from tests.e2e.test_field_training import DUAL

TEXT = (ROOT / "docs/retrieval-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ROWS = [json.loads(row) for row in re.findall(r"^\| [^|]+ \| `([\[{].*[\]}])` \|$", TEXT, re.MULTILINE)]
COMMANDS = [line for kind, _, block in BLOCKS if kind == "sh" for line in block.splitlines()]


def test_docs_have_rows_and_blocks():
    assert (len(ROWS), len(COMMANDS), len(BLOCKS)) == (14, 7, 8)
    for example in EXAMPLES:  # each shape that a reader knows has its row
        assert any(type(row) is type(example) and {*example} <= {*row} for row in ROWS), example


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "+".join(row)[:40])
def test_row_is_read(tmp_path, row):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "corpus.tsv").write_text("d1\tbees make honey\nd2\tflour is ground\n")
    corpus = str(tmp_path / "corpus.tsv") if "positive_document_ids" in row else None
    one, *others = read_training(str(tmp_path / "rows.jsonl"), None, BadRows(), corpus_file=corpus)
    assert [other.query for other in others] == row["set"][1:] if "set" in row else not others
    assert one.query == "a bee"
    assert {doc.content.lower() for doc in one.positives.values()} <= {"bees make honey", "an insect"}
    assert {doc.content for doc in one.negatives.values()} <= {"flour is ground", "cloth is woven"}


def test_triples_and_collection_are_read(tmp_path):
    (triples,) = (block for kind, name, block in BLOCKS if (kind, name) == ("tsv", ""))
    (tmp_path / "triples.tsv").write_text(triples)
    assert [one.query for one in read_training(str(tmp_path / "triples.tsv"), None, BadRows())] == ["a bee", "a mill"]
    for _, name, block in BLOCKS:
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(block)
    data = load(f"beir:{tmp_path}", "test")
    assert (len(data.corpus), data.qrels) == (2, {"q1": {"d1": 2}})


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(research, collection, tiny_bert, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(tiny_bert)
    Path("configs").mkdir(exist_ok=True)
    Path("configs/dual_encoder.yaml").write_text(DUAL)
    Path("faq.csv").write_text("Frage,Antwort\n" + "".join(f'"who, then, {n}?",weaver {n}\n' for n in range(40)))
    Path("run.json").write_text(json.dumps({f"q{i}": {f"d{i}": 1.0} for i in (0, 2)}))
    Path("run.trec").write_text("".join(f"q{i} Q0 d{i} 1 1.5 x\n" for i in (0, 2, 4)))
    result = research(*shlex.split(command)[1:])
    assert result.code == 0, result.err
