"""The guard refuses what would be wrong, with the damage shown; freezing and counting by hand."""

import copy

import peft
import pytest
import torch

from research.data.instruction_tokens import InstructionCollate, tokenise
from research.errors import UserError
from research.models import adapters
from research.models.causal_lm import CausalLM
from research.models.partial_tuning import freeze
from research.types import Examples
from tests.lm import byte_tokenizer, rows, tiny_llama

CAUSAL = {"task_type": "CAUSAL_LM"}
LORA = {"target_modules": "all-linear", **CAUSAL}


def lora(**more):
    return peft.LoraConfig(**(LORA | more))


def prompt(**more):
    return peft.PromptTuningConfig(**({"num_virtual_tokens": 4} | CAUSAL | more))


def prefix(**more):
    return peft.PrefixTuningConfig(**({"num_virtual_tokens": 4} | CAUSAL | more))


@pytest.mark.parametrize(
    ("config", "facts", "says"),
    [
        (prefix(), {"gradient_checkpointing": True}, "gradient checkpointing with PREFIX_TUNING"),
        (prompt(), {"packing": True}, "packing with PROMPT_TUNING"),
        (prefix(), {"packing": True}, "packing with PREFIX_TUNING"),
        (
            lora(init_lora_weights="pissa"),
            {"reference": "adapter_off"},
            "init_lora_weights='pissa' with reference='adapter_off'",
        ),
        (lora(init_lora_weights="olora"), {"reference": "adapter_off"}, "init_lora_weights='olora'"),
        (prompt(), {"padding_side": "left"}, "padding_side='left' with PROMPT_TUNING"),
        (
            adapters.plain(lora()) | {"layers_to_transform": [0]},
            {},
            "layers_to_transform=\\[0\\] with target_modules='all-linear'",
        ),
        (lora(target_modules=["q_proj"], layers_to_transform=[9]), {"layers": 2}, "expected layers 0 to 1"),
        (lora(), {"train_layers": 1}, "an adapter \\(LORA\\) with train_layers"),
        (None, {"train_layers": 3, "layers": 2}, "train_layers=3; expected 1 to 2"),
        (None, {"train_layers": 1, "train_pattern": "x"}, "expected one of them"),
        (None, {"reference": "adapter_off"}, "its own reference"),
        (prompt(num_virtual_tokens=600), {"context": 512}, "num_virtual_tokens=600 does not fit"),
        (prompt(num_virtual_tokens=100), {"context": 512, "max_length": 500}, "make 600 tokens"),
        (prompt(num_virtual_tokens=0), {}, "num_virtual_tokens=0; expected 1"),
        (peft.IA3Config(**CAUSAL), {}, "adapter of type IA3"),
        (lora(), {"init_scale": 0.1}, "init_scale=0.1 with LORA; .*LoRA has init_lora_weights"),
        (prefix(), {"init_scale": 0.0}, "init_scale=0.0 with PREFIX_TUNING; expected a number above 0"),
    ],
    ids=str,
)
def test_combination_is_refused_with_reason_and_cure(config, facts, says):
    with pytest.raises(UserError, match=says):
        adapters.check(config if isinstance(config, dict) else adapters.plain(config), **facts)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"r": 0}, "adapter.r=0; expected 1"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
    ],
)
def test_wrong_lora_values_are_refused(values, says):
    plain = adapters.plain(lora()) | values
    with pytest.raises(UserError, match=says):
        adapters.check(plain)


@pytest.mark.parametrize("targets", [["q_porj"], "model.*q_porj"])
def test_unknown_target_names_the_nearest(targets):
    with pytest.raises(UserError, match=r"q_porj.*which this model does not have.*nearest: .*q_proj"):
        adapters.attach(tiny_llama(), lora(target_modules=targets))


# ---- the damage -----------------------------------------------------------------------------------------------------


def ids_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 260, (1, count), generator=torch.Generator().manual_seed(seed))


def adapted(config, seed: int = 0):
    torch.manual_seed(seed)
    return adapters.attach(tiny_llama(), config).eval()


@pytest.mark.parametrize("make", [prompt, prefix])
def test_left_padding_changes_logits_with_virtual_tokens(make):
    model, ids = adapted(make()), ids_of(6)
    pad = torch.zeros(1, 3, dtype=torch.long)
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1]
    left = model(input_ids=torch.cat([pad, ids], 1), attention_mask=torch.cat([pad, torch.ones_like(ids)], 1)).logits[:, -1]
    right = model(input_ids=torch.cat([ids, pad], 1), attention_mask=torch.cat([torch.ones_like(ids), pad], 1)).logits[:, -4]
    torch.testing.assert_close(right, alone, rtol=0, atol=1e-5)
    assert (left - alone).abs().max() > 1e-3


@pytest.mark.parametrize("make", [prompt, prefix])
def test_packed_second_text_does_not_see_the_virtual_tokens(make):
    model, first, second = adapted(make()), ids_of(5), ids_of(6, 1)
    packed = torch.cat([first, second], 1)
    positions = torch.cat([torch.arange(5), torch.arange(6)])[None]
    alone = model(input_ids=second, attention_mask=torch.ones_like(second)).logits[:, -1]
    try:
        together = model(input_ids=packed, position_ids=positions).logits[:, -1]
    except (RuntimeError, ValueError):
        return  # PEFT refuses it by itself: no damage to prevent
    assert (together - alone).abs().max() > 1e-3


def test_prefix_is_lost_under_gradient_checkpointing():
    model = adapted(prefix()).train()
    ids = ids_of(6)
    plain = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    try:
        checkpointed = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        checkpointed.sum().backward()
    except (RuntimeError, ValueError, AttributeError, torch.utils.checkpoint.CheckpointError):
        return  # it crashes
    assert (checkpointed - plain).abs().max() > 1e-3


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapter_off_is_not_the_base_where_the_init_moves_weights(init):
    base, ids = tiny_llama(), ids_of(6)
    expected = base(ids).logits
    model = adapted(lora(init_lora_weights=init, r=4))
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=0, atol=1e-4)  # identity at init, as it claims
    with model.disable_adapter():
        assert (model(input_ids=ids).logits - expected).abs().max() > 1e-2


def test_peft_refuses_or_ignores_layers_with_all_linear():
    with pytest.raises(ValueError, match="layers_to_transform"):
        lora(layers_to_transform=[0])


# ---- what holds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"init_lora_weights": "gaussian"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ],
)
def test_lora_is_the_base_at_init_and_when_off_and_merged_as_unmerged(more):
    base, ids = tiny_llama(), ids_of(9)
    expected = base(ids).logits
    model = adapted(lora(r=4, **more))
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=0, atol=2e-6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    trained = model(input_ids=ids).logits
    assert (trained - expected).abs().max() > 1e-2
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=0, atol=2e-6)
    merged = copy.deepcopy(model).merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, trained, rtol=0, atol=2e-5)


MAKES = {
    "none": lambda: None,
    "lora": lambda: lora(r=4),
    "prompt": prompt,
    "prefix": prefix,
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16, **CAUSAL),
}


@pytest.mark.parametrize("name", MAKES)
def test_hidden_states_give_the_model_s_own_logits_with_any_padding(name):
    """Texts alone and in a padded batch, through our body and head and through PEFT's forward."""
    config = MAKES[name]()
    torch.manual_seed(0)
    transformer = tiny_llama() if config is None else adapters.attach(tiny_llama(), config)
    model = CausalLM(transformer, byte_tokenizer()).eval()
    lengths = [5, 12, 9]
    ids = torch.zeros(3, 16, dtype=torch.long)
    mask = (torch.arange(16) < torch.tensor(lengths)[:, None]).long()
    for i, length in enumerate(lengths):
        ids[i, :length] = ids_of(length, i)
    with torch.no_grad():
        batch = model.hidden(ids, mask) @ model.head["weight"].T
        for i, length in enumerate(lengths):
            alone = transformer(input_ids=ids[i : i + 1, :length], attention_mask=mask[i : i + 1, :length]).logits
            torch.testing.assert_close(batch[i, :length], alone[0, -length:], rtol=0, atol=1e-5)


def test_packed_rows_have_the_losses_of_their_texts():
    """Whole texts in one row, positions beginning anew: the same tokens, the same log-probabilities."""
    from research.losses.language import token_losses

    model = CausalLM(tiny_llama(), byte_tokenizer())
    examples = Examples("x", None, rows(12), "")
    found = []
    for packing in (False, True):
        made = tokenise(examples, model.tokenizer, 128, "completion", packing)
        batch = InstructionCollate(0, None, packing)(made.rows)
        with torch.no_grad():
            at = model.labelled(**batch.chunks[0])
            nll = token_losses(at.hidden, labels=at.labels, **model.head).nll
        found.append(sorted(zip(at.labels.tolist(), nll.tolist(), strict=True)))
    assert [label for label, _ in found[0]] == [label for label, _ in found[1]]
    assert [value for _, value in found[0]] == pytest.approx([value for _, value in found[1]], abs=2e-5)


def test_last_layers_and_patterns_train_what_they_name():
    model = tiny_llama(layers=3)
    freeze(model, 1, None)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("model.layers.2.") or name == "model.norm.weight" for name in trained)
    assert "model.norm.weight" in trained
    model = tiny_llama()
    freeze(model, None, r"layers\.0\.mlp")
    assert {name.split(".")[2:4][0] for name, p in model.named_parameters() if p.requires_grad} == {"0"}
    with pytest.raises(UserError, match="finds none"):
        freeze(tiny_llama(), None, "nowhere")


def test_parameters_are_counted_by_kind():
    """LoRA r=4 on q_proj (32 → 32) of 2 layers: 2 · 4 · (32 + 32); and the whole output layer beside it."""
    model = adapters.attach(
        tiny_llama(tie_word_embeddings=False), lora(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    counted = adapters.parts(model)
    assert (counted.adapter, counted.saved_modules, counted.base) == (512, 260 * 32, 0)
    assert adapters.effective_scale(lora(r=4, lora_alpha=8)) == 2.0
    assert adapters.effective_scale(lora(r=4, lora_alpha=8, use_rslora=True)) == 4.0
    assert adapters.effective_scale(prompt()) is None
    assert adapters.parts(tiny_llama()).base == sum(p.numel() for p in tiny_llama().parameters())


def test_merged_encoder_is_the_unmerged_one(tiny_bert):
    from research.models.dual_encoder import DualEncoder

    encoder = DualEncoder.load(tiny_bert).doc
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["query", "dense"], init_lora_weights=False)
    before = encoder(**batch_of(encoder))
    adapters.inject(encoder.transformer, config)
    after = encoder(**batch_of(encoder))
    assert (after - before).abs().max() > 1e-2
    encoder.transformer = adapters.merged(encoder.transformer)
    assert not [name for name, _ in encoder.named_parameters() if "lora" in name]
    torch.testing.assert_close(encoder(**batch_of(encoder)), after, rtol=0, atol=1e-5)


def batch_of(encoder) -> dict:
    ids, mask = encoder.collate(encoder.tokenize(["the time", "of people who say"], "doc"))
    return {"input_ids": ids, "attention_mask": mask}


def test_virtual_tokens_on_an_encoder_are_refused(tiny_bert):
    from research.models.dual_encoder import DualEncoder

    with pytest.raises(UserError, match="on an encoder; expected LORA"):
        adapters.inject(DualEncoder.load(tiny_bert).doc.transformer, prompt())


def test_initial_prefix_is_scaled_down_unless_told_otherwise():
    """PEFT draws N(0, 1): keys and values that no text has, whose damage to the output is shown here."""
    base, ids = tiny_llama(), ids_of(6)

    def given(**more) -> tuple[torch.Tensor, float]:
        torch.manual_seed(0)
        model = adapters.attach(tiny_llama(), prefix(**more.pop("config", {})), **more).eval()
        distance = (model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits - base(ids).logits).abs().mean()
        return model.prompt_encoder["default"].embedding.weight.detach(), float(distance)

    theirs, damage = given(init_scale=1.0)
    ours, less = given()
    torch.testing.assert_close(ours, theirs * adapters.PREFIX_SCALE)
    assert less < damage / 2
    torch.testing.assert_close(given(init_scale=0.5)[0], theirs * 0.5)
    torch.testing.assert_close(  # with a projection PEFT's own is mild, and stays
        given(config={"prefix_projection": True, "encoder_hidden_size": 8})[0],
        given(config={"prefix_projection": True, "encoder_hidden_size": 8}, init_scale=1.0)[0],
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_modules": ["q_proj"]}, {"0.self_attn.q_proj", "1.self_attn.q_proj"}),
        ({"target_modules": r".*\.1\.self_attn\.(q|v)_proj"}, {"1.self_attn.q_proj", "1.self_attn.v_proj"}),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, {"1.self_attn.q_proj"}),
        (
            {"target_modules": "all-linear", "layers_to_transform": None},
            {
                f"{i}.{name}"
                for i in (0, 1)
                for name in (
                    "self_attn.q_proj",
                    "self_attn.k_proj",
                    "self_attn.v_proj",
                    "self_attn.o_proj",
                    "mlp.gate_proj",
                    "mlp.up_proj",
                    "mlp.down_proj",
                )
            },
        ),
    ],
)
def test_lora_is_where_names_expressions_and_layers_say(options, expected):
    model = adapters.attach(tiny_llama(), lora(**options))
    found = {
        name.partition(".layers.")[2].removesuffix(".lora_A.default")
        for name, _ in model.named_modules()
        if name.endswith("lora_A.default")
    }
    assert found == expected
    assert {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name} == set()


def test_prompts_from_sampled_words_are_embeddings_of_words():
    model = adapters.attach(tiny_llama(), prompt(prompt_tuning_init="SAMPLE_VOCAB"))
    words = tiny_llama().get_input_embeddings().weight
    drawn = model.prompt_encoder["default"].embedding.weight
    assert all(bool((words == row).all(1).any()) for row in drawn)
    assert len({tuple(row.tolist()) for row in drawn}) > 1
