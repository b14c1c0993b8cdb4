"""docs/how-to/troubleshooting.md quotes messages of the first hour; each is what a command says."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs/how-to/troubleshooting.md"
SAID = {
    "unknown verb": "fitt",
    "unknown option": "fit -c configs/dual_encoder.yaml --model.lr 1",
    "no configuration; expected -c CONFIG.yaml": "fit",
    "does not exist; expected a YAML file": "fit -c lora.yml",
    "does not exist; expected a model folder": "encode --data beir:collection --model ./none --out new",
    "which is not installed": "encode --data beir:collection --model pkg:no_such_package/model --out new",
    "does not exist; expected a folder with corpus.jsonl": "retrieve --data beir:none --split test --retriever bm25 --out new",
    "has no split": "retrieve --data beir:collection --split tset --retriever bm25 --out new",
    "is for a reranker, and there is none": "retrieve --data beir:collection --split test --retriever bm25 --depth 9 --out new",
    "has no head that scores pairs": "search --corpus notes.txt --query a --retriever bm25 --reranker encoder",
    "is no device": "encode --data beir:collection --model encoder --device gpu --out new",
    "neither --corpus nor --data": "search --query a",
    "neither --data nor --prompts": "generate --model encoder",
    "holds files but no provenance.json": "retrieve --data beir:collection --split test --retriever bm25 --out full",
    "is not a run folder": "report full --out new",
    "holds no config.yaml": "test full",
    "it is a source; expected a plain W&B sweep": "sweep plan sweeps/src/lora_r_alpha.yaml",
    "unknown key": "sweep plan metod.yaml",
    "there is no sbatch here": "sweep submit foreign.yaml",
}
"""Message → a command that ends in it."""


def quoted() -> list[str]:
    section = PAGE.read_text(encoding="utf-8").partition("## Messages of the first hour")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_the_page_quotes_the_messages_that_are_tried():
    assert quoted() == [*SAID]


@pytest.mark.parametrize("message", SAID)
def test_a_quoted_message_is_what_a_command_says(message, tmp_path, collection, tiny_bert, research, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch
    shutil.copytree(ROOT / "configs", "configs")
    shutil.copytree(ROOT / "sweeps", "sweeps")
    Path("encoder").symlink_to(tiny_bert)
    Path("notes.txt").write_text("a passage\n")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    Path("metod.yaml").write_text("metod: grid\n")
    Path("foreign.yaml").write_text("method: grid\nname: foreign\nprogram: train.py\nparameters: {a: {values: [1]}}\n")
    result = research(*SAID[message].split())
    assert result.code == 2
    assert message in result.err
    assert not Path("new").exists()
