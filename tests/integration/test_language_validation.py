"""What validation of the language models measures beside the loss: answers, forgetting, distance to the reference."""

import itertools
import json
import math
from pathlib import Path

import lightning as L
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from research.data.instructions import InstructionData
from research.data.preferences import PreferenceData
from research.errors import UserError
from research.models import adapters
from research.models.causal_lm import CausalLM
from research.models.generate import Decoding, generate
from research.training.best_model import BestModel
from research.training.dpo import DPOModule
from research.training.optimisation import Optimisation
from research.training.sft import SFTModule
from tests.lm import byte_tokenizer, rows, save_tiny, tiny_llama

CAUSAL = {"task_type": "CAUSAL_LM"}
LORA = {"r": 4, "target_modules": "all-linear", **CAUSAL}
TEXTS = ["the parts of a text that nobody is asked about", "a second one, longer than the first " * 4]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_tiny(tmp_path / "model")


def written(path: Path, lines: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return str(path)


def fitted(module, data, out: Path, **trainer):
    """The module after training, beside a run folder with its best model."""
    best = BestModel(out, "val/loss", lower=True)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        callbacks=[best],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **trainer,
    )
    trainer.fit(module, datamodule=data)
    return json.loads((out / "metrics.json").read_text())


def sft(folder, tmp_path, metrics, adapter=None, **data):
    module = SFTModule(
        str(folder),
        adapter=adapter,
        metrics=metrics,
        answers=5,
        max_new_tokens=6,
        optimisation=Optimisation(lr=3e-3, warmup=0.0),
    )
    train = written(tmp_path / "train.jsonl", rows(24))
    val = written(tmp_path / "val.jsonl", rows(9))
    data = InstructionData(train, None, val, None, batch_size=4, max_length=256, **data)
    return module, data, fitted(module, data, tmp_path / "run")


@pytest.mark.parametrize("method", ["whole", "lora", "prefix"])
def test_answers_in_training_are_those_of_the_verb(method, folder, tmp_path, research):
    made = {"whole": None, "lora": peft.LoraConfig(**LORA), "prefix": peft.PrefixTuningConfig(num_virtual_tokens=3, **CAUSAL)}
    metrics = ["loss", "exact_match", "token_f1", "rouge_l"]
    _, _, found = sft(folder, tmp_path, metrics, made[method])
    assert set(found["metrics"]) == set(found["untrained"]) == set(metrics)
    sample = [rows(9)[i] for i in (0, 1, 3, 5, 7)]
    assert list(found["answers"]) == ["0", "1", "3", "5", "7"]  # the same five at every validation and of every seed
    assert [row["completion"][0]["content"] for row in sample] == [one["reference"] for one in found["answers"].values()]
    file = written(tmp_path / "sample.jsonl", sample)
    result = research(
        "generate",
        "--model",
        tmp_path / "run/model",
        "--data",
        file,
        "--max-new-tokens",
        6,
        "--out",
        tmp_path / "answers",
        "--json",
    )
    assert result.code == 0, result.err
    assert {name: found["metrics"][name] for name in metrics[1:]} == pytest.approx(result.json["metrics"])
    lines = [json.loads(line) for line in (tmp_path / "answers/answers.jsonl").read_text().splitlines()]
    assert [next(iter(line["answers"].values())) for line in lines] == [one["answer"] for one in found["answers"].values()]


def test_answers_to_plain_text_are_refused_before_training(folder, tmp_path):
    module = SFTModule(str(folder), metrics=["loss", "rouge_l"])
    data = InstructionData(
        written(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS * 4]),
        None,
        None,
        None,
        loss_on="all",
        batch_size=2,
        max_length=256,
    )
    data.collections["val"] = data.examples
    with pytest.raises(UserError, match=r"have no prompt \(text\).*Leave rouge_l"):
        fitted(module, data, tmp_path / "run")
    assert module.window.last_count == 0


def test_forgetting_is_the_loss_on_other_text(folder, tmp_path):
    other = written(tmp_path / "other.jsonl", [{"text": text} for text in TEXTS])
    _, _, found = sft(folder, tmp_path, ["loss", "other_loss"], other=other)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def by_hand(model) -> float:
        sums = []
        for text in TEXTS:
            ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])  # TRL ends a text
            log_p = model(ids).logits[0, :-1].log_softmax(-1)
            sums.append((-log_p.gather(1, ids[0, 1:, None]).sum().item(), ids.shape[1] - 1))
        return sum(nll for nll, _ in sums) / sum(count for _, count in sums)

    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(folder).eval()
        assert found["untrained"]["other_loss"] == pytest.approx(by_hand(base), abs=1e-5)
        trained = AutoModelForCausalLM.from_pretrained(tmp_path / "run/model").eval()
        assert found["metrics"]["other_loss"] == pytest.approx(by_hand(trained), abs=1e-5)
    assert abs(found["metrics"]["other_loss"] - found["untrained"]["other_loss"]) > 1e-3


def test_forgetting_without_other_text_is_not_measured_and_said(folder, tmp_path, capfd):
    assert set(sft(folder, tmp_path, ["loss", "other_loss"])[2]["metrics"]) == {"loss"}
    assert "forgetting is not measured" in capfd.readouterr().err


def test_python_s_reference_is_text():
    from research.data.instructions import read_examples

    found = read_examples("builtin:reference", None, 5)
    assert [list(row) for row in found.rows] == [["text"]] * 5
    assert all(len(row["text"]) > 100 for row in found.rows)


# ---- the distance to the reference -----------------------------------------------------------------------------------


def dpo(folder, tmp_path, adapter, **options):
    module = DPOModule(str(folder), adapter=adapter, optimisation=Optimisation(lr=3e-3, warmup=0.0), **options)
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(rows(17))
    ]
    file = written(tmp_path / "pairs.jsonl", pairs)
    val = written(tmp_path / "val.jsonl", pairs[:6])
    data = PreferenceData(file, None, val, None, batch_size=4, max_length=256)
    return module, data, fitted(module, data, tmp_path / "run")


@pytest.mark.parametrize("reference", ["adapter_off", "cached", "copy"])
@pytest.mark.parametrize("shared", [True, False])
def test_kl_is_that_of_the_whole_vocabulary(reference, shared, folder, tmp_path):
    module, data, found = dpo(folder, tmp_path, peft.LoraConfig(**LORA), reference=reference)
    assert found["untrained"]["kl"] == pytest.approx(0, abs=1e-7)
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    policy = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "run/model").eval()
    expected = {}
    with torch.no_grad():
        for name, row in zip(map(str, data.tokens["val"].index), data.tokens["val"].rows, strict=True):
            values = []
            for side in ("chosen_ids", "rejected_ids"):
                ids = torch.tensor([row["prompt_ids"] + row[side]])
                at = slice(len(row["prompt_ids"]) - 1, ids.shape[1] - 1)
                ours, theirs = (model(ids).logits[0, at].log_softmax(-1) for model in (policy, base))
                values.append(torch.nn.functional.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1))
            expected[name] = float(torch.cat(values).mean())
    assert min(expected.values()) > 1e-4
    data.share_prompt = shared
    module.eval()
    with torch.no_grad():
        module.evaluate("val")
    assert module.per_query["kl"] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert found["metrics"]["kl"] == pytest.approx(sum(expected.values()) / 6, rel=1e-4)


def test_kl_needs_the_reference_itself(folder, tmp_path, capfd):
    _, _, found = dpo(folder, tmp_path, None, reference="cached")
    assert "kl" not in found["metrics"]
    assert "kl is not measured" in capfd.readouterr().err


def test_kl_of_a_base_that_the_init_moved_is_not_measured(folder, tmp_path):
    moved = peft.LoraConfig(**LORA, init_lora_weights="pissa")
    assert "kl" not in dpo(folder, tmp_path, moved, reference="cached")[2]["metrics"]
    assert dpo(folder, tmp_path, moved, reference="copy")[2]["untrained"]["kl"] == pytest.approx(0, abs=1e-7)


def test_noise_swaps_exactly_its_share_of_the_training_pairs(tmp_path):
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(rows(31))
    ]
    file = written(tmp_path / "pairs.jsonl", pairs)

    def swapped(noise: float, seed: int = 0) -> list[bool]:
        data = PreferenceData(file, None, file, None, batch_size=4, noise=noise, seed=seed)
        assert [row["chosen"] for row in data.collections["val"].rows] == [row["chosen"] for row in pairs]
        assert all(
            {str(a[s]) for s in ("chosen", "rejected")} == {str(b[s]) for s in ("chosen", "rejected")}
            for a, b in zip(pairs, data.examples.rows, strict=True)
        )
        return [a["chosen"] != b["chosen"] for a, b in zip(pairs, data.examples.rows, strict=True)]

    assert [sum(swapped(noise)) for noise in (0.0, 0.1, 0.5, 1.0)] == [0, 3, 15, 30]
    assert swapped(0.5) == swapped(0.5)
    assert swapped(0.5) != swapped(0.5, seed=1)


def test_untrained_validation_has_the_batches_of_the_reference(folder, tmp_path, monkeypatch):
    """In bf16 a sequence's sum moves with its neighbours' lengths (SmolLM2: .2 nats): cached or computed now, it has the same,
    over the cache's parts too."""
    from research.training import dpo as trainer

    seen = []
    monkeypatch.setattr("research.training.reference.PART", 16)
    plain = trainer.sequence_logps

    def recorded(model, chunk):
        if not model.training:
            seen.append(chunk["input_ids"].tolist())
        return plain(model, chunk)

    monkeypatch.setattr(trainer, "sequence_logps", recorded)
    module = DPOModule(str(folder), adapter=peft.LoraConfig(**LORA), optimisation=Optimisation(lr=3e-3))
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(rows(41))
    ]
    train, val = written(tmp_path / "pairs.jsonl", pairs[:4]), written(tmp_path / "val.jsonl", pairs)
    data = PreferenceData(train, None, val, None, batch_size=4, max_length=256)
    found = fitted(module, data, tmp_path / "run", precision="bf16-mixed")
    assert found["untrained"]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    seen = seen[2:]  # the two layouts of a pair were compared first
    count = (len(seen) - 1) // 3  # of the reference, before and after the one step; the training pairs' is the first
    assert seen[1 : 1 + count] == seen[1 + count : 1 + 2 * count] == seen[1 + 2 * count :]


# ---- decoding --------------------------------------------------------------------------------------------------------

METHODS = {
    "base": lambda: None,
    "lora": lambda: peft.LoraConfig(init_lora_weights=False, **LORA),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, **CAUSAL),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16, **CAUSAL),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, **CAUSAL),
    "prefix-projection": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=16, **CAUSAL
    ),
}


def tiny(architecture: str):
    if architecture == "llama":
        return tiny_llama()
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=260,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=512,
            eos_token_id=0,
            bos_token_id=0,
            initializer_range=0.2,
        )
    ).eval()


@pytest.mark.parametrize("method", METHODS)
def test_loss_does_not_depend_on_padding(method):
    """A row alone, and beside a longer one, in training's layout."""
    torch.manual_seed(1)
    config = METHODS[method]()
    transformer = tiny_llama() if config is None else adapters.attach(tiny_llama(), config)
    model = CausalLM(transformer, byte_tokenizer()).eval()
    ids = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, 7:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    together = model.labelled(ids, labels, attention_mask=mask)
    alone = model.labelled(ids[:1, :7], labels[:1, :7], attention_mask=mask[:1, :7])
    torch.testing.assert_close(together.hidden[together.rows == 0], alone.hidden, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_an_answer_does_not_depend_on_its_neighbours(method, architecture):
    """Positions (learned ones in GPT-2) and virtual tokens are where they are without padding."""
    transformer = tiny(architecture)
    torch.manual_seed(1)
    if (config := METHODS[method]()) is not None:
        if architecture == "gpt2" and config.peft_type == "LORA":
            config.fan_in_fan_out = True
        transformer = adapters.attach(transformer, config, init_scale=None)
    model = CausalLM(transformer, byte_tokenizer()).eval()
    draw = torch.Generator().manual_seed(2)
    prompts = [torch.randint(4, 260, (length,), generator=draw).tolist() for length in (3, 11, 7, 3, 19, 1, 12)]
    alone = generate(model, prompts, Decoding(8), batch_size=1)
    assert generate(model, prompts, Decoding(8), batch_size=7) == alone
    assert generate(model, prompts, Decoding(8), batch_size=3) == alone
    assert len({answer.text for answer in alone}) > 3
