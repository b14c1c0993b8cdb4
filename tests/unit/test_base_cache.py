"""A base that a process keeps is the one that a fresh process would load, whatever was trained in between."""

import pytest
import torch

from research.models import base_cache
from research.models.base_cache import cache_bases
from research.models.folder import without_weights
from research.models.policy import load_policy
from tests.lm import save_tiny


@pytest.fixture
def folder(tmp_path):
    yield save_tiny(tmp_path / "lm")
    base_cache._state.clear()


def loads(monkeypatch) -> list:
    """Notes each time that weights are read from the disk."""
    from research.models import policy

    seen, plain = [], policy.load_causal_lm
    monkeypatch.setattr(policy, "load_causal_lm", lambda *a: seen.append(a) or plain(*a))
    return seen


def weights(model) -> dict:
    return {name: p.detach().clone() for name, p in model.transformer.named_parameters()}


def test_a_second_training_gets_the_same_weights_and_modules_of_its_own(folder, monkeypatch):
    seen = loads(monkeypatch)
    cache_bases()
    first, second = load_policy(str(folder)), load_policy(str(folder))
    assert len(seen) == 1
    assert first.base_hash == second.base_hash
    for (name, a), (_, b) in zip(
        first.model.transformer.named_parameters(), second.model.transformer.named_parameters(), strict=True
    ):
        assert a.data_ptr() == b.data_ptr(), name  # one memory
        assert a is not b
    for p in first.model.parameters():
        p.requires_grad = False
    first.model.train()
    first.model.transformer.lm_head.register_forward_hook(lambda *_: None)
    assert all(p.requires_grad for p in second.model.parameters())
    assert not second.model.training
    assert not second.model.transformer.lm_head._forward_hooks
    ids = torch.arange(3, 9)[None]
    base_cache._state.clear()
    fresh = load_policy(str(folder))
    assert torch.equal(fresh.model.transformer(ids).logits, second.model.transformer(ids).logits)


def test_a_process_keeps_nothing_unless_it_is_told_to(folder, monkeypatch):
    seen = loads(monkeypatch)
    first, second = load_policy(str(folder)), load_policy(str(folder))
    assert len(seen) == 2
    assert next(first.model.parameters()).data_ptr() != next(second.model.parameters()).data_ptr()


def lora(**more):
    import peft

    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **more)


def language(folder, adapter):
    from research.training.language import Language

    return Language(str(folder), adapter, None, None, "auto")


def test_weights_that_are_trained_are_not_kept(folder, monkeypatch):
    seen = loads(monkeypatch)
    cache_bases()
    before = weights(language(folder, lora()).model)
    language(folder, lora())
    assert len(seen) == 1  # LoRA leaves them alone
    full = language(folder, None)
    with torch.no_grad():
        for p in full.model.parameters():
            p.add_(1.0)
    after = weights(language(folder, lora()).model)
    assert len(seen) == 2
    for name, value in before.items():
        if "lora" not in name:
            assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_initialisation_that_moves_the_base_leaves_the_kept_one(init, folder):
    cache_bases()
    plain = weights(load_policy(str(folder)).model)
    moved = language(folder, lora(init_lora_weights=init))
    inner = moved.model.base.model.layers[0].self_attn.q_proj.base_layer.weight
    assert not torch.equal(inner, plain["model.layers.0.self_attn.q_proj.weight"])
    for name, value in weights(load_policy(str(folder)).model).items():
        assert torch.equal(value, plain[name]), name


def test_an_adapter_that_is_merged_takes_its_base_along(folder, tmp_path, monkeypatch):
    from research.models.policy import save_policy

    made = language(folder, lora())
    with torch.no_grad():
        for name, p in made.model.named_parameters():
            if "lora_B" in name:
                p.fill_(0.5)
    save_policy(made.model, tmp_path / "adapter", made.policy)
    cache_bases()
    before = weights(load_policy(str(folder)).model)
    merged = weights(load_policy(str(tmp_path / "adapter"), merge=True).model)
    after = weights(load_policy(str(folder)).model)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged[name], before[name])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_change_that_nobody_announced_is_noticed(folder, monkeypatch):
    seen = loads(monkeypatch)
    cache_bases()
    first = load_policy(str(folder))
    value = weights(first.model)
    first.model.transformer.lm_head.weight.data[0, 0] += 1e-6
    again = load_policy(str(folder))
    assert len(seen) == 2
    assert all(torch.equal(p, value[name]) for name, p in weights(again.model).items())


def test_other_weights_in_the_folder_are_loaded(folder, monkeypatch):
    cache_bases()
    first = load_policy(str(folder))
    save_tiny(folder, seed=1)
    second = load_policy(str(folder))
    assert first.base_hash != second.base_hash
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weights(first.model)[name], weights(second.model)[name])


def test_a_plan_in_the_same_process_has_no_numbers(folder):
    cache_bases()
    load_policy(str(folder))
    with without_weights():
        assert next(load_policy(str(folder)).model.parameters()).is_meta
    assert not next(load_policy(str(folder)).model.parameters()).is_meta


def test_a_base_that_would_fill_the_memory_is_not_kept(folder, monkeypatch):
    seen = loads(monkeypatch)
    monkeypatch.setattr(base_cache, "_memory", lambda: 1000)
    cache_bases()
    load_policy(str(folder))
    load_policy(str(folder))
    assert len(seen) == 2
