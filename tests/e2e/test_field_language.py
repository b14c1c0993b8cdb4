"""Files as people bring them, through the verbs: what they say is trained on, or refused by name."""

import csv
import json
from pathlib import Path

import pytest

from tests.lm import MARKED, save_tiny

SFT = """
out: out
monitor: {monitor}
model:
  class_path: research.training.{module}
  init_args: {{model: ./lm, optimisation: {{lr: 1.0e-3, warmup: 0.0}}}}
data:
  class_path: research.data.{data}
  init_args: {{train: {train}, batch_size: 2, max_length: 256}}
trainer: {{accelerator: cpu, max_epochs: 1}}
"""
SYSTEM = {"role": "system", "content": "Answer like a pirate."}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("lm"), MARKED, layers=1)
    for name, module, data, monitor in (
        ("sft", "sft.SFTModule", "instructions.InstructionData", "val/loss"),
        ("dpo", "dpo.DPOModule", "preferences.PreferenceData", "val/reward_margin"),
    ):
        Path(f"{name}.yaml").write_text(SFT.format(module=module, data=data, monitor=monitor, train="rows.jsonl"))


@pytest.fixture
def tokens(research):
    """The text of a row as it is trained on, and of what is learned of it."""

    def read(*argv) -> tuple[str, str]:
        result = research("tokenize", "--model", "lm", "--json", *argv)
        assert result.code == 0, result.err
        found = result.json
        return found["text"], "".join(t for t, label in zip(found["tokens"], found["labels"], strict=True) if label != -100)

    return read


def lines(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "saved", "hf:set"])
def test_alpaca_files_are_conversations_in_every_format(name, tokens):
    """pandas writes NaN where a row has no input."""
    from datasets import Dataset

    rows = [{"instruction": f"What is {i}?", "input": "", "output": "It is."} for i in range(3)]
    if name.endswith(("csv", "tsv")):
        with open(name, "w", newline="") as stream:
            table = csv.DictWriter(stream, rows[0], delimiter="," if name == "a.csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    elif name == "a.json":
        Path(name).write_text(json.dumps([row | {"input": float("nan")} for row in rows], indent=1))
    elif name == "a.jsonl":
        lines(name, [row | {"input": float("nan")} for row in rows])
    else:
        table = Dataset.from_list([row | {"input": None} for row in rows])
        Path("set").mkdir()
        {"a.parquet": table.to_parquet, "saved": table.save_to_disk, "hf:set": lambda _: table.to_json("set/train.jsonl")}[
            name
        ](name)
    text, learned = tokens("--data", name, "--row", 2, *(["--split", "train"] if name == "hf:set" else []))
    assert text == "<|user|>What is 2?<|end|><|assistant|>It is.<|end|>"
    assert learned.startswith("It")


def test_system_and_history_of_llama_factory_are_in_the_conversation(tokens):
    row = {"instruction": "And?", "input": "", "output": "Aye.", "system": SYSTEM["content"], "history": [["Who?", "I."]]}
    text, learned = tokens("--data", lines("a.jsonl", [row]))
    assert text == (
        "<|system|>Answer like a pirate.<|end|><|user|>Who?<|end|><|assistant|>I.<|end|><|user|>And?<|end|>"
        "<|assistant|>Aye.<|end|>"
    )
    assert "I." not in learned
    text, learned = tokens("--data", "a.jsonl", "--loss-on", "assistant")
    assert "I." in learned
    assert "Aye." in learned


def test_sharegpt_is_a_conversation(tokens):
    talk = [
        {"from": "human", "value": "Who?", "weight": 0},
        {"from": "gpt", "value": "I.", "weight": 1},
        {"from": "human", "value": "And?"},
        {"from": "gpt", "value": "Aye.", "weight": 0},
    ]
    text, learned = tokens("--data", lines("a.jsonl", [{"conversations": talk, "system": "Hm."}]), "--loss-on", "assistant")
    assert text.startswith("<|system|>Hm.<|end|><|user|>Who?")
    assert "I." in learned
    assert "Aye." not in learned


def test_pairs_of_questions_are_trained_on_with_question_and_system(research):
    rows = [
        {"system": "Be brief.", "question": f"What is {i}?", "chosen": f"It is {i}.", "rejected": f"I believe {i + 2}."}
        for i in range(8)
    ]
    lines("rows.jsonl", rows)
    result = research("fit", "-c", "dpo.yaml", "--model.reference", "copy")
    assert result.code == 0, result.err
    system = {"role": "system", "content": "Be brief."}
    asked = [
        {
            "prompt": [system, {"role": "user", "content": row["question"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows
    ]
    lines("asked.jsonl", asked)
    same = research("fit", "-c", "dpo.yaml", "--model.reference", "copy", "--data.train", "asked.jsonl", "--out", "two")
    assert same.code == 0, same.err
    assert Path("out/curves.jsonl").read_text().count("\n") == 4
    first, second = (
        json.loads(Path(f"{out}/curves.jsonl").read_text().splitlines()[-1])["train/loss"] for out in ("out", "two")
    )
    assert first == second


def test_pairs_that_the_template_makes_equal(research):
    strips = MARKED.replace("message['content']", "message['content'] | trim")
    save_tiny(Path("lm"), strips, layers=1)
    asked = [{"role": "user", "content": "What?"}]
    rows = [
        {
            "prompt": asked,
            "chosen": [{"role": "assistant", "content": "It is."}],
            "rejected": [{"role": "assistant", "content": "It is. "}],
        }
        for _ in range(4)
    ]
    lines("rows.jsonl", rows)
    result = research("fit", "-c", "dpo.yaml", "--model.reference", "copy")
    assert result.code == 2
    assert "all pairs of rows.jsonl that fit have the same tokens on both sides" in result.err
    lines("rows.jsonl", rows + [rows[0] | {"rejected": [{"role": "assistant", "content": f"No {i}."}]} for i in range(2)])
    result = research("fit", "-c", "dpo.yaml", "--model.reference", "copy", "--out", "two")
    assert result.code == 0, result.err
    assert "train: 4 of 6 pairs have the same tokens on both sides and are left out" in result.err


def test_what_stands_between_raw_texts_is_said(research):
    for between, shown in ((" ", "' ' stands between"), ("", "nothing stands between"), ("\n", r"'\n' stands between")):
        lines("rows.jsonl", [{"prompt": "Q: what?\nAnswer:", "completion": f"{between}It is {i}."} for i in range(4)])
        result = research("fit", "-c", "sft.yaml", "--out", f"out{len(between)}{between == ' '}")
        assert result.code == 0, result.err
        assert f"without the model's chat template: {shown} 'Q: what? Answer:' and 'It is 0.'" in result.err


def test_several_files_slices_and_columns(research):
    for name in ("a", "b"):
        lines(f"{name}.jsonl", [{"ask": f"{name} {i}?", "reply": "It is."} for i in range(10)])
    Path("more.yaml").write_text(
        "data:\n  init_args:\n    train: [a.jsonl, b.jsonl]\n    columns: {question: ask, answer: reply}\n"
    )
    split = ("--data.train_split", "train[:80%]", "--data.val_split", "train[80%:]")
    result = research("fit", "-c", "sft.yaml", "-c", "more.yaml", *split)
    assert result.code == 0, result.err
    assert "16 examples; validation on 4 examples" in result.err
    assert "trained on too" not in result.err
    columns = ("--data.columns", '{"question": "ask", "answer": "reply"}')
    result = research("fit", "-c", "sft.yaml", "--data.train", "[a.jsonl, b.jsonl]", *columns, *split, "--out", "two")
    assert result.code == 0, result.err
    first, second = (json.loads(Path(f"{out}/metrics.json").read_text())["metrics"] for out in ("out", "two"))
    assert first == second
    result = research("fit", "-c", "sft.yaml", "--data.train", "*.jsonl", *columns, "--data.val", "b.jsonl", "--out", "three")
    assert result.code == 0, result.err
    assert "warning: 10 of the 10 rows of b.jsonl (val) are trained on too; its numbers are too high" in result.err
    result = research("fit", "-c", "sft.yaml", "--data.train", "a.jsonl", "--data.columns", "{question: aks}", "--out", "four")
    assert result.code == 2
    assert "did you mean 'ask'" in result.err


def test_tools_are_in_the_prompts_that_are_answered(research):
    tools = "{% if tools %}{% for t in tools %}{{ t.function.name }} {% endfor %}{% endif %}" + MARKED
    save_tiny(Path("lm"), tools, layers=1)
    row = {"prompt": [{"role": "user", "content": "add"}], "completion": [{"role": "assistant", "content": "3"}]}
    name = lines("a.jsonl", [row | {"tools": [{"type": "function", "function": {"name": "adder"}}]}])
    argv = ("generate", "--model", "lm", "--data", name, "--max-new-tokens", 4, "--out", "out")
    made = research(*argv, "--max-prompt-tokens", 8)
    assert made.code == 2  # the messages have 6 tokens, "adder " 6 more
    assert "the shortest has 12 tokens" in made.err
    made = research(*argv)
    assert made.code == 0, made.err
    assert json.loads(Path("out/answers.jsonl").read_text())["prompt"] == row["prompt"]
