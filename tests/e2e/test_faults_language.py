"""Faults as language models meet them: generate, tokenize, and the trainings by SFT and DPO."""

import json
import shutil
from pathlib import Path

import pytest
from faults import Row, append, cells, cut, furnish, refuse, remove, write

from tests.lm import save_tiny

BOTH = "generate tokenize"
HUB = "tandem-tests/there-is-no-such-model"
AGAIN = "Copy or download it again"
SFT = """
out: out
monitor: val/loss
model:
  class_path: research.training.sft.SFTModule
  init_args:
    model: ./lm
data:
  class_path: research.data.instructions.InstructionData
  init_args:
    train: rows.jsonl
    train_split: null
    val: rows.jsonl
    val_split: null
    batch_size: 2
    max_length: 256
trainer:
  accelerator: cpu
  max_epochs: 1
"""
DPO = SFT.replace("sft.SFT", "dpo.DPO").replace("instructions.Instruction", "preferences.Preference")
DPO = DPO.replace("rows.jsonl", "pairs.jsonl").replace("val/loss", "val/reward_margin")
LORA = "{class_path: peft.LoraConfig, init_args: {task_type: CAUSAL_LM, target_modules: all-linear}}"
PROMPT = "{class_path: peft.PromptTuningConfig, init_args: {task_type: CAUSAL_LM, num_virtual_tokens: 4}}"
LONG = json.dumps({"prompt": "x" * 300, "completion": "y"}) + "\n"


def made_adapter(name: str = "adapter"):
    """An adapter of lm/ in a folder of that name."""

    def act(_):
        import peft

        from research.models import adapters
        from research.models.policy import load_policy, save_policy

        policy = load_policy("./lm")
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        policy.model.transformer = adapters.attach(policy.model.transformer, config)
        save_policy(policy.model, Path(name), policy)

    return act


def another_base(_) -> None:
    shutil.rmtree("lm")
    save_tiny(Path("lm"), seed=9)


def row(fault: str, what: str, verbs: str, value: str, expected: str, cure: str, options: str = "", *breaks) -> Row:
    return Row(fault, what, verbs, value, expected, cure, options, breaks)


def fit(fault: str, what: str, value: str, expected: str, cure: str, options: str = "", *breaks, file: str = "sft.yaml") -> Row:
    return Row(
        fault, f"{file[:3]}: {what}", "fit", value, expected, cure, f"research fit -c {file} --out out {options}", breaks
    )


def adapted(options: str, base: str = LORA) -> str:
    return f"--model.adapter '{base}' {options}"


GENERATE = [
    row("missing file", "no data", BOTH, "nope.jsonl", "does not exist", "Check the path", "--data nope.jsonl"),
    row("missing file", "no model", BOTH, "'./nowhere'", "expected a model folder", "Check the path", "--model ./nowhere"),
    row(
        "malformed line",
        "no JSON",
        BOTH,
        "rows.jsonl:7",
        "Expected one JSON object",
        "mend the line",
        "",
        append("rows.jsonl", "{"),
    ),
    row("malformed line", "not UTF-8", BOTH, "rows.jsonl:7", "expected UTF-8", "Convert", "", append("rows.jsonl", b"\xff")),
    row(
        "wrong type",
        "completion is a number",
        BOTH,
        "completion is '5'",
        "expected a text or a list",
        "Mend the row",
        "",
        write("rows.jsonl", '{"prompt": "a", "completion": 5}\n'),
    ),
    row(
        "wrong type",
        "a message without content",
        BOTH,
        "prompt is",
        "expected a text or a list",
        "Mend the row",
        "",
        write("rows.jsonl", '{"prompt": [{"role": "user"}], "completion": [{"role": "assistant", "content": "x"}]}\n'),
    ),
    row(
        "wrong value",
        "completion is empty",
        BOTH,
        "completion is empty",
        "expected some text",
        "Mend the row",
        "",
        write("rows.jsonl", '{"prompt": "a", "completion": " "}\n'),
    ),
    row(
        "wrong value",
        "unknown keys",
        BOTH,
        "'utterance'",
        "expected prompt and completion",
        "Rename the keys",
        "",
        write("rows.jsonl", '{"utterance": "a", "reply": "b"}\n'),
    ),
    row(
        "wrong value",
        "empty data",
        BOTH,
        "rows.jsonl has no usable row",
        "expected one or more",
        "Name another",
        "",
        write("rows.jsonl", ""),
    ),
    row(
        "wrong value",
        "messages with a model that has no template",
        "generate",
        "no chat template",
        "expected one",
        "instruction-tuned",
        "",
        remove("lm/chat_template.jinja"),
    ),
    row(
        "wrong value",
        "messages with a model that has no template",
        "tokenize",
        "no chat template",
        "expected one",
        "instruction-tuned",
        "",
        remove("lm/chat_template.jinja"),
    ),
    row(
        "wrong value",
        "failing template",
        "generate",
        "template of ./lm fails",
        "expected messages that it takes",
        "Correct",
        "",
        write("lm/chat_template.jinja", "{{ raise_exception('no') }}"),
    ),
    row(
        "wrong value",
        "failing template",
        "tokenize",
        "cannot be tokenised",
        "expected what the model's chat template takes",
        "Correct the rows, the template",
        "",
        write("lm/chat_template.jinja", "{{ raise_exception('no') }}"),
    ),
    row("wrong value", "row out of range", "tokenize", "--row 99", "expected 0 to 5", "Correct it", "--row 99"),
    row(
        "wrong value",
        "prompts without room",
        "generate",
        "no prompt fits",
        "expected one or more",
        "Raise",
        "--max-prompt-tokens 1",
    ),
    row(
        "mismatched store",
        "adapter for another base",
        BOTH,
        "/lm of hash",
        "expected the same weights",
        "Bring them back",
        "--model ./adapter",
        made_adapter(),
        another_base,
    ),
    row(
        "unreadable model",
        "adapter cut short",
        BOTH,
        "adapter",
        "expected",
        "Copy it again",
        "--model ./adapter",
        made_adapter(),
        cut("adapter/adapter_model.safetensors", -50),
    ),
    row(
        "unreadable model",
        "adapter without its weights",
        BOTH,
        "adapter",
        "expected",
        "again",
        "--model ./adapter",
        made_adapter(),
        remove("adapter/adapter_model.safetensors"),
    ),
    row(
        "unreadable model", "weights cut short", BOTH, "lm", "expected a complete", AGAIN, "", cut("lm/model.safetensors", -100)
    ),
    row("unreadable model", "an encoder", BOTH, "model", "expected a causal language model", "Name one", "--model ./model"),
    row(
        "unreadable model",
        "not GGUF",
        BOTH,
        "x.gguf is not GGUF",
        "expected a GGUF file",
        "Download it again",
        "--model ./x.gguf",
        write("x.gguf", "nothing"),
    ),
    row(
        "no network",
        "hub model",
        BOTH,
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"--model {HUB}",
    ),
]
TRAINING = [
    fit("wrong value", "r is 0", "adapter.r", "expected", "Correct", adapted("--model.adapter.r 0")),
    fit(
        "wrong value",
        "unknown target module",
        "'q_porj'",
        "expected of its linear modules",
        "nearest: q_proj",
        adapted("--model.adapter.target_modules [q_porj]"),
    ),
    fit(
        "wrong value",
        "virtual tokens longer than the context",
        "num_virtual_tokens=600",
        "expected less",
        "Lower it",
        adapted("--model.adapter.num_virtual_tokens 600", PROMPT),
    ),
    fit(
        "wrong value",
        "virtual tokens and text longer than the context",
        "make 514 tokens",
        "expected 512",
        "Lower one",
        adapted("--data.max_length 510", PROMPT),
    ),
    fit(
        "wrong value",
        "packing with virtual tokens",
        "packing with PROMPT_TUNING",
        "expected packing: false",
        "sorted by length",
        adapted("--data.packing true", PROMPT),
    ),
    fit(
        "wrong value",
        "longer than the context",
        "max_length=600",
        "expected that or fewer",
        "Lower data.max_length",
        "--data.max_length 600",
    ),
    fit("wrong value", "unknown metric", "'bleu'", "expected loss", "Correct model.metrics", "--model.metrics [bleu]"),
    fit(
        "wrong value",
        "unknown tokens to learn",
        "loss_on=answer",
        "completion | assistant | all",
        "Correct",
        "--data.loss_on answer",
    ),
    fit("wrong value", "length of one token", "max_length=1", "expected 2 or more", "Correct", "--data.max_length 1"),
    fit(
        "wrong value",
        "no label fits",
        "max_length=256 leaves no label",
        "expected room",
        "Raise data.max_length",
        "",
        write("rows.jsonl", LONG),
    ),
    fit(
        "wrong value",
        "assistant turns that the template does not mark",
        "cannot be tokenised",
        "chat template takes",
        "data.loss_on",
        "--data.loss_on assistant",
        write("lm/chat_template.jinja", "{{ messages | length }}{% for one in messages %}{{ one['content'] }}{% endfor %}"),
    ),
    fit(
        "wrong value",
        "training on layers and by an adapter",
        "an adapter (LORA) with train_layers",
        "expected either",
        "layers_to_transform",
        adapted("--model.train_layers 1"),
    ),
    fit(
        "wrong value", "more layers than there are", "train_layers=9", "expected 1 to 2", "Correct it", "--model.train_layers 9"
    ),
    fit(
        "wrong value",
        "PEFT's own refusal",
        "layers_to_transform",
        "expected arguments of its class",
        "Correct model.adapter",
        adapted("--model.adapter.layers_to_transform [0]"),
    ),
    fit(
        "malformed line",
        "broken row",
        "rows.jsonl:7",
        "Expected one JSON object",
        "--data.skip_bad_rows",
        "",
        append("rows.jsonl", "{"),
    ),
    fit(
        "wrong value",
        "loss that is not known",
        "loss='dop'",
        "expected sigmoid | hinge",
        "Correct it",
        "--model.loss dop",
        file="dpo.yaml",
    ),
    fit(
        "wrong value",
        "beta is 0",
        "model.beta=0;",
        "expected a finite number above 0",
        "Correct the configuration",
        "--model.beta 0",
        file="dpo.yaml",
    ),
    fit(
        "wrong value",
        "reference is itself",
        "reference='adapter_off' without an adapter",
        "expected copy or cached",
        "Choose one",
        "--model.reference adapter_off",
        file="dpo.yaml",
    ),
    fit(
        "wrong value",
        "reference that the init has moved",
        "init_lora_weights='pissa'",
        "expected an init",
        "copy",
        adapted("--model.adapter.init_lora_weights pissa --model.reference adapter_off"),
        file="dpo.yaml",
    ),
    fit(
        "wrong value",
        "chosen equals rejected",
        "pairs.jsonl:1",
        "expected two answers",
        "Mend the row",
        "",
        write("pairs.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "b"}\n'),
        file="dpo.yaml",
    ),
    fit(
        "wrong type",
        "no rejected",
        "pairs.jsonl:1",
        "expected prompt, chosen and rejected",
        "Mend the row",
        "",
        write("pairs.jsonl", '{"prompt": "a", "chosen": "b"}\n'),
        file="dpo.yaml",
    ),
    fit(
        "wrong value",
        "prompt as long as max_length",
        "completion at max_length=256",
        "expected both",
        "raise",
        "",
        write("pairs.jsonl", LONG.replace("completion", "chosen").replace('"y"', '"y", "rejected": "z"')),
        file="dpo.yaml",
    ),
]
ROWS = [*GENERATE, *TRAINING]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_of_a_language_model_is_refused(cell, research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    Path("sft.yaml").write_text(SFT)
    Path("dpo.yaml").write_text(DPO)
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    worse = [{"role": "assistant", "content": "no"}]
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": worse} for row in rows]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    refuse(cell, research, monkeypatch)
