"""A mixture of experts trains with its router's loss: as TRL's trainers do, whatever family, padding and windows."""

import itertools
import json

import peft
import pytest
import test_trl_dpo
import test_trl_sft
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from research.errors import UserError
from research.models.causal_lm import CausalLM
from research.models.router import router_coefficient
from research.runs.changes import has_router_loss
from tests.lm import byte_tokenizer, rows

SMALL = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": None,
    "initializer_range": 0.2,
}
FAMILIES = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2},
    "minimax": {"num_local_experts": 4, "head_dim": 8},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
}


def model_of(kind: str, **more) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **FAMILIES[kind], **more)).eval()


def saved(kind: str, folder, **more):
    model_of(kind, **more).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_loss_is_the_model_s_own_with_any_padding(kind):
    transformer = model_of(kind)
    model = CausalLM(transformer, byte_tokenizer())
    ids = torch.randint(4, 260, (3, 16), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(16) < torch.tensor([5, 16, 9])[:, None]).long()
    with torch.no_grad():
        expected = transformer(input_ids=ids, attention_mask=mask, output_router_logits=True)
        hidden, loss = model.run(ids, mask, router=True)
        torch.testing.assert_close(hidden, model.hidden(ids, mask), rtol=0, atol=1e-6)
    torch.testing.assert_close(loss, expected.aux_loss)
    assert router_coefficient(transformer) == transformer.config.router_aux_loss_coef > 0
    _, loss = model.run(ids, mask, router=True)
    loss.backward()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in transformer.parameters())


@pytest.mark.parametrize("kind", [*FAMILIES, "jetmoe", "deepseek_v3", "llama"])
def test_runs_of_before_the_loss_are_stale_where_it_is_there_now(kind, tmp_path):
    """By config.json alone: research.runs.changes asks what the model says."""
    sizes = {"jetmoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8}, "llama": {}} | FAMILIES
    sizes["deepseek_v3"] = {
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 16,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    }
    for i, more in enumerate(({}, {"output_router_logits": True}, {"router_aux_loss_coef": 0.0, "aux_loss_coef": 0.0})):
        config = AutoConfig.for_model(kind, **SMALL | sizes[kind] | more)
        config.save_pretrained(tmp_path / str(i))
        run = {"model": {"class_path": "x.SFTModule", "init_args": {"model": str(tmp_path / str(i))}}}
        expected = router_coefficient(AutoModelForCausalLM.from_config(config).eval()) > 0
        assert has_router_loss(run) is expected, more


@pytest.mark.parametrize(
    "make",
    [
        lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ],
)
def test_virtual_tokens_pass_the_router_where_they_are_embeddings(make):
    """A prefix is keys and values: it passes no router, and padding does not count beside it."""
    from research.models.adapters import attach

    model = CausalLM(attach(model_of("mixtral"), make()), byte_tokenizer()).eval()
    ids = torch.randint(4, 260, (1, 9), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([ids, ids.new_zeros(1, 7)], 1)
    with torch.no_grad():
        _, alone = model.run(ids, torch.ones_like(ids), router=True)
        _, loss = model.run(padded, (torch.arange(16) < 9).long()[None], router=True)
        torch.testing.assert_close(loss, alone)
        if not model.prefix:
            found = model.transformer(input_ids=ids, attention_mask=torch.ones_like(ids), output_router_logits=True)
            torch.testing.assert_close(loss, found.aux_loss)


def test_coefficient_is_the_config_s_word():
    assert router_coefficient(model_of("mixtral", router_aux_loss_coef=0.25)) == 0.25
    assert router_coefficient(model_of("mixtral", router_aux_loss_coef=0.0)) == 0.0
    assert router_coefficient(AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL))) == 0.0
    jet = {k: v for k, v in SMALL.items() if k != "num_attention_heads"} | {"num_local_experts": 4, "kv_channels": 8}
    for asked in (False, True):  # another name of it, which TRL does not read
        config = AutoConfig.for_model("jetmoe", **jet, aux_loss_coef=0.5, output_router_logits=asked)
        assert router_coefficient(AutoModelForCausalLM.from_config(config)) == (0.5 if asked else 0.0)


@pytest.mark.parametrize(
    ("kind", "adapter", "options"),
    [
        ("mixtral", "lora", {}),
        ("qwen3_moe", "lora", {"label": "all"}),
        ("mixtral", "full", {"router_aux_loss_coef": 0.5}),
        ("mixtral", "prompt", {"router_aux_loss_coef": 0.5}),
    ],
)
def test_five_sft_steps_are_those_of_trl(kind, adapter, options, tmp_path):
    """Windows of two micro-batches of unlike lengths."""
    loss_on = options.pop("label", "completion") if "label" in options else "completion"
    folder, data_file = saved(kind, tmp_path / "moe", **options), tmp_path / "train.jsonl"
    count = test_trl_sft.STEPS * test_trl_sft.BATCH * test_trl_sft.ACCUMULATE
    data_file.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    make = test_trl_sft.ADAPTERS[adapter]
    module, losses, start = test_trl_sft.ours(folder, data_file, make(), loss_on=loss_on)
    more = {} if loss_on == "completion" else {"completion_only_loss": False}
    named, expected = test_trl_sft.theirs(folder, data_file, make(), start, tmp_path, **more)
    assert len(losses) == len(expected)
    assert losses == pytest.approx(expected, abs=4e-6)
    for name, value in module.model.transformer.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value, named[name], rtol=0, atol=2e-4, msg=name)
    assert module.trainer.callback_metrics["train/router_loss"] > 1


def test_five_dpo_steps_are_those_of_trl(tmp_path):
    folder, data_file = saved("mixtral", tmp_path / "moe", router_aux_loss_coef=0.3), tmp_path / "train.jsonl"
    made = rows(test_trl_dpo.STEPS * test_trl_dpo.BATCH + 1)
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(made)
    ]
    data_file.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    options = {"reference": "adapter_off"}  # in float32: the experts' product has no float64
    _, losses, start = test_trl_dpo.ours(folder, data_file, test_trl_dpo.lora(), None, **options)
    _, expected, margins = test_trl_dpo.theirs(folder, data_file, start, tmp_path)
    assert losses.values == pytest.approx(expected, abs=2e-5)
    assert losses.margins == pytest.approx(margins, abs=1e-4)
    assert losses.values[0] > 0.9  # ln 2, and .3 of a router's loss
    with pytest.raises(UserError, match=r"share_prompt=true with a router's loss"):
        test_trl_dpo.ours(folder, data_file, test_trl_dpo.lora(), {"share_prompt": True}, **options)


def test_dropout_on_experts_is_refused_with_what_helps():
    from research.models.adapters import attach

    def lora(**more):
        return peft.LoraConfig(
            **({"r": 2, "target_modules": "all-linear", "lora_dropout": 0.1, "task_type": "CAUSAL_LM"} | more)
        )

    with pytest.raises(UserError, match=r"Set lora_dropout: 0\.0, or name target_modules"):
        attach(model_of("mixtral"), lora())
    for cure in ({"lora_dropout": 0.0}, {"target_modules": ["q_proj", "v_proj"]}):
        assert attach(model_of("mixtral"), lora(**cure)).peft_config


def test_padding_of_packed_rows_does_not_count():
    model = CausalLM(model_of("mixtral"), byte_tokenizer()).eval()
    texts = [torch.randint(4, 260, (n,), generator=torch.Generator().manual_seed(n)) for n in (7, 5, 9)]
    joined = {"input_ids": torch.cat(texts)[None], "position_ids": torch.cat([torch.arange(len(one)) for one in texts])[None]}
    apart = {name: torch.zeros(2, 16, dtype=torch.long) for name in joined}
    for name, value in joined.items():
        apart[name][0, :12], apart[name][1, :9] = value[0, :12], value[0, 12:]
    with torch.no_grad():
        expected = model.run(**joined, router=True)
        found = model.run(**apart, router=True)
    torch.testing.assert_close(found[1], expected[1])
    hidden = torch.cat([found[0][0, :12], found[0][1, :9]])
    torch.testing.assert_close(hidden, expected[0][0], rtol=0, atol=1e-5)
