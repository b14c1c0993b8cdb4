"""generate and tokenize as a user types them, on a tiny language model and adapters trained on it."""

import itertools
import json
from pathlib import Path

import peft
import pytest
import torch

from research.metrics.generation import evaluate, exact_match, normalise, rouge_l, token_f1
from research.models import adapters
from research.models.policy import load_policy, save_policy
from tests.lm import rows, save_tiny

CAUSAL = {"task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """base/, and folders of adapters on it whose weights are noise."""
    root = tmp_path_factory.mktemp("models")
    save_tiny(root / "base")
    made = {
        "lora": peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **CAUSAL),
        "prompt": peft.PromptTuningConfig(num_virtual_tokens=4, **CAUSAL),
        "prefix": peft.PrefixTuningConfig(num_virtual_tokens=4, **CAUSAL),
    }
    for name, config in made.items():
        torch.manual_seed(1)
        policy = load_policy(str(root / "base"))
        policy.model.transformer = adapters.attach(policy.model.transformer, config)
        save_policy(policy.model, root / name, policy)
    return root


@pytest.fixture
def data(tmp_path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(9)))
    return tmp_path / "rows.jsonl"


def test_models_answer_the_same_prompts_side_by_side(research, models, data, tmp_path):
    names = [arg for name in ("base", "lora", "prompt", "prefix") for arg in ("--model", models / name)]
    result = research("generate", *names, "--data", data, "--max-new-tokens", 8, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert list(result.json["models"]) == ["base", "lora", "prompt", "prefix"]
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(answers) == 9
    assert len({tuple(row["answers"].items()) for row in answers}) == 9
    assert any(len({*row["answers"].values()}) > 1 for row in answers)  # adapters do something
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert set(metrics["models"]["lora"]["metrics"]) == {"exact_match", "token_f1", "rouge_l"}
    assert len(metrics["models"]["lora"]["per_query"]["rouge_l"]) == 9


def test_a_slice_of_a_file_is_answered(research, models, data, tmp_path):
    """The rows that `fit --data.train_split train[:75%]` holds out."""
    options = ("--data", data, "--split", "train[75%:]", "--max-new-tokens", 2)
    assert research("generate", "--model", models / "base", *options, "--out", tmp_path / "out").code == 0
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [one["reference"] for one in answers] == [row["completion"][0]["content"] for row in rows(9)[7:]]


@pytest.mark.parametrize("name", ["base", "lora", "prompt", "prefix"])
def test_answer_is_the_most_likely_token_at_each_step(research, models, data, tmp_path, name):
    """Greedy decoding by hand through plain PEFT, prompt by prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert (
        research("generate", "--model", models / name, "--data", data, "--max-new-tokens", 6, "--out", tmp_path / "o").code == 0
    )
    found = [json.loads(line)["answers"][name] for line in (tmp_path / "o/answers.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    plain = AutoModelForCausalLM.from_pretrained(models / "base").eval()
    plain = plain if name == "base" else peft.PeftModel.from_pretrained(plain, models / name).eval()
    for row, answer in zip(rows(9), found, strict=True):
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        made: list[int] = []
        with torch.no_grad():
            while len(made) < 6 and tokenizer.eos_token_id not in made:
                tensor = torch.tensor([ids + made])
                logits = plain(input_ids=tensor, attention_mask=torch.ones_like(tensor)).logits
                made.append(int(logits[0, -1].argmax()))
        made = made[: made.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in made else made
        assert answer == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_draws_are_a_function_of_the_seed(research, models, data, tmp_path):
    def drawn(seed: int, out: str) -> str:
        options = ("--temperature", 1, "--seed", seed, "--max-new-tokens", 8, "--out", tmp_path / out)
        assert research("generate", "--model", models / "base", "--data", data, *options).code == 0
        return (tmp_path / out / "answers.jsonl").read_text()

    assert drawn(0, "a") == drawn(0, "b")
    assert drawn(0, "a") != drawn(1, "c")


def test_prompts_from_a_file_have_no_metrics(research, models, tmp_path):
    (tmp_path / "p.txt").write_text("who is it\nwhat is it for\n")
    result = research("generate", "--model", models / "base", "--prompts", tmp_path / "p.txt", "--max-new-tokens", 4)
    assert result.code == 0, result.err
    assert "» who is it" in result.out
    assert "rouge" not in result.out


def test_no_answer_is_computed_and_hidden(research, models, tmp_path):
    """Without --out all of them are printed, or stand in the JSON line; with it, a line says where the others are."""
    (tmp_path / "p.txt").write_text("".join(f"question {i}\n" for i in range(5)))
    words = ("generate", "--model", models / "base", "--prompts", tmp_path / "p.txt", "--max-new-tokens", 4)
    assert [f"» question {i}" in research(*words).out for i in range(5)] == [True] * 5
    (answers,) = research(*words, "--json").json["answers"].values()
    assert len(answers) == 5
    written = research(*words, "--out", tmp_path / "out")
    assert written.out.count("» question") == 3
    assert f"… and 2 more in {tmp_path / 'out/answers.jsonl'}" in written.out
    assert "answers" not in research(*words, "--out", tmp_path / "out", "--json").json


def test_a_report_of_answers_says_what_it_cannot_show(research, models, tmp_path):
    (tmp_path / "p.txt").write_text("who is it\n")
    words = ("generate", "--model", models / "base", "--prompts", tmp_path / "p.txt", "--max-new-tokens", 4)
    assert research(*words, "--out", tmp_path / "answers").code == 0
    result = research("report", tmp_path / "answers", "--out", tmp_path / "report")
    assert result.code == 2
    assert "a run of `research generate`" in result.err
    assert "answers.jsonl" in result.err


def test_tokenize_shows_tokens_shapes_and_what_is_learned(research, models, data):
    shown = research("tokenize", "--model", models / "base", "--data", data, "--row", 2, "--json").json
    row = rows(9)[2]
    learned = [token for token, label in zip(shown["ids"], shown["labels"], strict=True) if label != -100]
    answer = row["completion"][0]["content"]
    assert len(learned) == len(answer) + 2  # a byte a token, <|end|> and the line's end
    assert shown["shapes"]["logits"] == [1, len(shown["ids"]), 260]
    assert shown["shapes"]["embeddings"] == [1, len(shown["ids"]), 32]
    assert "<|assistant|>" in shown["text"]
    result = research("tokenize", "--model", models / "prompt", "--text", "hello")
    assert "4 virtual tokens before them" in result.out
    assert research("tokenize", "--model", models / "base", "--text", "ab", "--raw", "--json").json["tokens"] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data", "rows.jsonl", "--prompts", "p.txt"), "both --data and --prompts"),
        ((), "neither --data nor --prompts"),
        (("--prompts", "hits.jsonl"), "is a table; expected a text file, a prompt a line. Pass --data hits.jsonl"),
        (("--prompts", "nope.txt"), "nope.txt does not exist"),
        (("--data", "rows.jsonl", "--max-new-tokens", "0"), "expected 1"),
        (("--data", "rows.jsonl", "--temperature", "-1"), "--temperature -1"),
        (("--data", "rows.jsonl", "--top-p", "0.5"), "without --temperature"),
        (("--data", "rows.jsonl", "--seed", "0"), "--seed 0 without --temperature"),
        (("--data", "rows.jsonl", "--raw"), "--raw is for --prompts"),
        (("--prompts", "p.txt", "--split", "test"), "--split test is for --data"),
        (("--prompts", "p.txt", "--columns", "{}"), "--columns {} is for --data"),
        (("--prompts", "p.txt", "--skip-bad-rows"), "--skip-bad-rows is for --data"),
        (("--data", "rows.jsonl", "--max-prompt-tokens", "1"), "no prompt fits"),
        (("--data", "x.txt"), "is not instruction data"),
        (("--data", "builtin:stdlib", "--split", "tset"), "did you mean 'test'"),
        (("--data", "rows.jsonl", "--split", "test"), "pass --split 'test[:100]'"),
    ],
)
def test_wrong_generate_is_refused(research, models, data, monkeypatch, options, says):
    monkeypatch.chdir(data.parent)
    result = research("generate", "--model", models / "base", *options)
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err


def test_adapter_for_another_base_is_refused(research, models, tmp_path, data):
    import shutil

    shutil.copytree(models / "lora", tmp_path / "lora")
    save_tiny(tmp_path / "other", seed=5)
    facts = json.loads((tmp_path / "lora/tandem.json").read_text())
    (tmp_path / "lora/tandem.json").write_text(json.dumps(facts | {"base": str(tmp_path / "other")}))
    result = research("generate", "--model", tmp_path / "lora", "--data", data)
    assert result.code == 2
    assert "was trained on" in result.err
    assert "expected the same weights" in result.err


def test_metrics_by_hand():
    assert normalise("The  Cat, sat!") == "cat sat"
    assert exact_match("the cat.", ["A cat"]) == 1.0
    assert token_f1("a cat sat down", ["cat sat"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("dog", ["cat", "dog"]) == 1.0
    assert rouge_l("police killed the gunman", ["police kill the gunman"]) == 1.0  # stemming
    assert rouge_l("the gunman killed police", ["police killed the gunman"]) == pytest.approx(0.5)
    assert evaluate({"1": "x"}, {"1": ["x"], "2": ["y"]})["exact_match"] == {"1": 1.0, "2": 0.0}


def test_sft_then_dpo_is_one_road(research, models, data, tmp_path, monkeypatch):
    """DPO from an SFT run starts at ln 2 (its reference is the merged SFT model), and what it saves goes on."""
    import math

    from test_faults_language import DPO, SFT

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    made = rows(9)
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(made)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    Path("sft.yaml").write_text(SFT.replace("./lm", str(models / "base")))
    Path("dpo.yaml").write_text(DPO.replace("./lm", "sft"))
    lora = (
        "--model.adapter",
        "{class_path: peft.LoraConfig, init_args: {task_type: CAUSAL_LM, target_modules: all-linear}}",
        "--model.optimisation.lr",
        "0.05",
        "--wandb",
        "disabled",
    )
    assert research("fit", "-c", "sft.yaml", "--out", "sft", *lora).code == 0
    result = research("fit", "-c", "dpo.yaml", "--out", "dpo", *lora, "--json")
    assert result.code == 0, result.err
    curve = [json.loads(line) for line in Path("dpo/curves.jsonl").read_text().splitlines()]
    assert curve[0]["val/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert result.json["metrics"]["reward_margin"] > 0
    again = research("validate", "dpo", "--json")
    assert again.json["metrics"] == pytest.approx(result.json["metrics"], abs=1e-4)
    answers = research("generate", "--model", "sft", "--model", "dpo", "--data", data, "--max-new-tokens", 6, "--json")
    assert answers.code == 0, answers.err
    assert list(answers.json["models"]) == ["sft", "dpo"]
    facts = json.loads(Path("sft/model/tandem.json").read_text())
    Path("sft/model/tandem.json").write_text(json.dumps(facts | {"base_hash": "0" * 64}))
    assert "expected the same weights" in research("generate", "--model", "dpo", "--data", data).err
