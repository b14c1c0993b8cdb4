"""The cheaper parts of models/training.py compute what transformers' own do: values and gradients; and masks that are fair."""

import copy

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
)

from research.models.cpu import attention
from research.models.cpu.dropout import DropoutBits, FastDropout
from research.models.cpu.training import for_training

SHAPE = {"vocab_size": 5000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
NONE = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SHAPE, **NONE)),
    "electra": lambda: ElectraModel(ElectraConfig(**SHAPE, **NONE, embedding_size=32)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SHAPE, **NONE, max_position_embeddings=130)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SHAPE, **NONE)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=5000, dim=64, n_layers=2, n_heads=4, hidden_dim=128, dropout=0.0, attention_dropout=0.0)
    ),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SHAPE, pad_token_id=0)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)),
}
LENGTHS = torch.tensor([48, 3, 20, 31, 17, 48])


@pytest.fixture
def batch() -> dict:
    """Six texts of 3 to 48 tokens, padded."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(48) < LENGTHS[:, None]).long()
    ids = torch.randint(5, 5000, (6, 48), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_transformers(name, dtype, batch):
    torch.manual_seed(0)
    plain = MODELS[name]().to(dtype).train()
    fast = copy.deepcopy(plain)
    for_training(fast)
    weights = torch.randn(6, 48, 64, dtype=dtype) * batch["attention_mask"][:, :, None]
    hidden = []
    for model in (plain, fast):
        hidden.append(model(**batch).last_hidden_state)
        (hidden[-1] * weights).sum().backward()
    limit = 1e-11 if dtype == torch.float64 else 1e-5
    real = batch["attention_mask"].bool()
    assert (hidden[0] - hidden[1])[real].norm() <= limit * hidden[0][real].norm()
    for (parameter, value), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        if value.grad is None:
            assert other.grad is None
            continue
        # a key's bias has no gradient but rounding: softmax does not see it
        assert (value.grad - other.grad).norm() <= limit * max(1.0, float(value.grad.norm())), parameter


def test_our_attention_is_the_one_that_ran(batch, monkeypatch):
    """The parity above would hold as well if everything fell back to transformers'."""
    ran = []
    monkeypatch.setattr(attention._Attention, "apply", lambda *args: ran.append(1) or args[0])
    model = MODELS["bert"]()
    for_training(model)
    model(**batch)
    assert len(ran) == 2  # layers


@pytest.mark.parametrize("masked", [False, True])
def test_attention_s_hand_written_backward_is_its_derivative(masked):
    """Against finite differences, with and without dropout; the masks are replayed."""
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = torch.zeros(2, 1, 1, 5, dtype=torch.float64)
    if masked:
        mask[0, ..., 3:] = torch.finfo(torch.float64).min
    bits = DropoutBits()

    def dropped(query, key, value):
        bits.seed(7)
        return attention._DroppedAttention.apply(query, key, value, mask, 0.5, 0.3, bits)

    assert torch.autograd.gradcheck(lambda q, k, v: attention._Attention.apply(q, k, v, mask, 0.5), inputs)
    assert torch.autograd.gradcheck(dropped, inputs)
    # fewer queries than keys: a prefix, or the first token alone
    inputs[0] = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, k, v: attention._Attention.apply(q, k, v, mask, 0.5), inputs)
    assert torch.autograd.gradcheck(dropped, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dropout_drops_its_share_and_its_gradient_the_same_elements(dtype):
    layer = FastDropout(0.1, DropoutBits(3)).train()
    x = torch.ones(1000, 1000, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    share = (y == 0).double().mean().item()
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / 1e6) ** 0.5  # five standard errors
    assert y.double().mean().item() == pytest.approx(1.0, abs=5e-3)
    assert torch.equal(y == 0, x.grad == 0)
    assert len(x.grad.unique()) == 2
    kept = (y == 0).double() - share
    assert abs((kept[:, 1:] * kept[:, :-1]).mean().item()) < 5e-4  # neighbours are independent


def test_masks_are_a_function_of_the_seed_and_eval_has_none():
    bits = DropoutBits()
    layer = FastDropout(0.5, bits).train()
    x = torch.randn(64, 64)

    def drawn(seed):
        bits.seed(seed)
        return layer(x)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(layer.eval()(x), x)


def test_model_trained_fast_is_saved_as_an_ordinary_one(tiny_bert, tmp_path):
    from research.models.dual_encoder import DualEncoder
    from research.models.saving import save_dual_encoder

    model = DualEncoder.load(tiny_bert)
    for_training(model)
    save_dual_encoder(model, tmp_path / "saved")
    assert attention.NAME not in (tmp_path / "saved" / "config.json").read_text()
    assert DualEncoder.load(tmp_path / "saved").doc.transformer.config._attn_implementation != attention.NAME


LORA = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 12, "init_lora_weights": False}


@pytest.mark.parametrize(
    "more", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}], ids=str
)
@pytest.mark.parametrize("precision", ["float64", "bf16 autocast"])
def test_faster_lora_is_peft_s(batch, more, precision):
    """Values and every gradient; variants that the short path does not cover go PEFT's own way."""
    import peft

    from research.models.lora import faster_lora

    torch.manual_seed(0)
    plain = peft.get_peft_model(MODELS["qwen3"](), peft.LoraConfig(**(LORA | more))).train()
    plain = plain.double() if precision == "float64" else plain
    fast = copy.deepcopy(plain)
    assert faster_lora(fast) == 6  # three modules of two layers
    results = []
    for model in (plain, fast):
        torch.manual_seed(1)  # of lora_dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float64"):
            hidden = model(**batch).last_hidden_state
        (hidden * batch["attention_mask"][:, :, None]).pow(2).sum().backward()
        results.append([hidden, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 6
    for theirs, ours in zip(*results, strict=True):
        limit = 1e-10 if precision == "float64" else 0.06  # bf16: sums in another order
        assert (ours - theirs).norm() <= limit * theirs.norm()


def test_faster_lora_is_the_base_when_the_adapter_is_off_or_merged(batch):
    import peft

    from research.models.lora import faster_lora

    model = peft.get_peft_model(MODELS["qwen3"](), peft.LoraConfig(**LORA)).eval()
    faster_lora(model)
    with torch.no_grad():
        trained = model(**batch).last_hidden_state
        with model.disable_adapter():
            off = model(**batch).last_hidden_state
        model.merge_adapter()
        merged = model(**batch).last_hidden_state
        model.unmerge_adapter()
        base = model.unload()(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(off[real], base[real])
    torch.testing.assert_close(merged[real], trained[real], rtol=0, atol=1e-4)
    assert (off - trained)[real].abs().max() > 1e-2


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_our_attention_runs_for_encoders_and_grouped_causal_decoders(name, batch, monkeypatch):
    ran = []
    monkeypatch.setattr(attention._Attention, "apply", lambda *args: ran.append(1) or args[0])
    for mask in (batch["attention_mask"], torch.ones_like(batch["attention_mask"])):  # padded, and without any padding
        model = MODELS[name]()
        for_training(model)
        model(input_ids=batch["input_ids"], attention_mask=mask)
    assert len(ran) == 4  # two layers each
