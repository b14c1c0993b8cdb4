"""What trainings, answers and a search say on stderr is our own lines alone: no library's warnings, bars or greetings."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.fitting import MINE, RETRIEVE, furnish, process
from tests.e2e.test_sweep import CONFIG as SFT
from tests.lm import rows, save_tiny

DPO = SFT.replace("sft.SFT", "dpo.DPO").replace("instructions.Instruction", "preferences.Preference")
DPO = DPO.replace("rows.jsonl", "pairs.jsonl").replace("val: val.jsonl", "val: val_pairs.jsonl")
SHAPES = (
    r"W&B: offline, files in \S+ \(wandb sync uploads them\)",
    r"\./\w+: [\d,]+ parameters to train; .*",
    r"trained: [\d,]+ adapter \(.*",
    r"(untrained|step \d+): val/.*",
    r"before reranking: mrr@10 0\.\d+, .*",
    r"warning: .*",  # ours; a library's begins with its file
    r"\w+: finished; \d checkpoints? removed, .*",
    r"\w+/model: plain sentence-transformers' .*",
    r"first/bm25\.trec: .* no ranking, .*",
    r"model has no head that scores; a new one is drawn at random, to be trained",
    r"candidates\.jsonl: (\d+ negatives a query|left out: ).*",
    r"log-probabilities of \d+ \w+ pairs under the reference, .*",
    r"\w+: \d+ answers of [\d.]+ tokens, [\d.,]+ tokens/s",
    r"(index|dense|bm25|fused|reranked): .*",
    r"\w+: +\d+%\|.*\[.*\]",  # a bar: of what takes more than two seconds
    r"cache/embeddings/\w+: encoding \d+ texts \(doc\)",
)
"""Lines that tell a user something."""
COMMANDS = (
    "fit -c dual.yaml --out dual",
    "fit -c cross.yaml --out cross",
    "fit -c sft.yaml --out sft",
    "fit -c dpo.yaml --out dpo",
    "generate --model lm --model sft --data val.jsonl --max-new-tokens 4",
    "search --corpus collection/corpus.jsonl --query the --retriever dual --retriever bm25 --reranker cross",
)


@pytest.mark.thorough
def test_stderr_has_no_library_s_lines(tmp_path, tiny_bert, monkeypatch, research):
    furnish(tmp_path, tiny_bert, monkeypatch)
    save_tiny(tmp_path / "lm")
    Path("sft.yaml").write_text(SFT)
    Path("dpo.yaml").write_text(DPO)
    for name, count in (("rows", 16), ("val", 5)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    for name, count in (("pairs", 12), ("val_pairs", 5)):
        no = [{"role": "assistant", "content": "no"}]
        pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": no} for row in rows(count)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    for split, out in (("dev", "first"), ("test", "testrun")):
        assert research(*RETRIEVE.format(split=split, out=out).split()).code == 0
    assert research(*MINE.split()).code == 0
    for command in COMMANDS:
        result = process(*command.split(), env={"WANDB_MODE": "offline"})
        assert result.code == 0, result.err
        others = [line for line in result.err.splitlines() if not any(re.fullmatch(shape, line) for shape in SHAPES)]
        assert others == [], command
