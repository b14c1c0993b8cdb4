"""Parts that join kernels on a GPU: the same numbers as the plain modules, here on a CPU."""

import copy

import peft
import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from research.models.lora import faster_lora
from research.models.norms import fuse_rms_norms
from tests.lm import tiny_llama

EXACT = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", EXACT)
def test_an_rms_norm_and_its_gradients_are_those_of_transformers(dtype):
    torch.manual_seed(0)
    plain = LlamaRMSNorm(32, eps=1e-6)
    nn.init.normal_(plain.weight)
    fused = copy.deepcopy(plain)
    assert fuse_rms_norms(fused) == 1
    x = torch.randn(4, 7, 32, dtype=dtype)
    found = []
    for norm in (plain, fused):
        inputs = x.clone().requires_grad_()
        out = norm(inputs)
        (out.float() * torch.arange(32)).sum().backward()
        found.append((out.float(), inputs.grad.float(), norm.weight.grad))
    for expected, value in zip(*found, strict=True):
        assert (expected - value).abs().max() <= EXACT[dtype] * expected.abs().max()


@pytest.mark.parametrize("change", ["one plus its weight", "mean taken off", "two inputs"])
def test_a_norm_of_another_kind_is_left_alone(change):
    class OtherRMSNorm(LlamaRMSNorm):
        def forward(self, x, gate=None):
            if change == "two inputs" and gate is None:
                raise TypeError("gate")
            return super().forward(x - x.mean(-1, keepdim=True))

    norm = GemmaRMSNorm(32) if change.startswith("one") else OtherRMSNorm(32)
    nn.init.normal_(norm.weight)
    assert fuse_rms_norms(norm) == 0


def trained(joined: bool, autocast: bool, monkeypatch) -> dict[str, torch.Tensor]:
    """What three steps of LoRA make of its factors."""
    monkeypatch.setattr("research.models.lora.is_joined", lambda x: joined)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(tiny_llama(), config)
    faster_lora(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-1)
    ids = torch.arange(1, 25).view(2, 12)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def distance(expected: dict, found: dict) -> float:
    return max(float((expected[name] - found[name]).abs().max() / expected[name].abs().max()) for name in expected)


@pytest.mark.parametrize(("autocast", "least"), [(False, 1e-5), (True, 2e-2)])
def test_lora_s_joined_casts_and_scale_are_those_of_the_plain_path(autocast, least, monkeypatch):
    plain = trained(False, autocast, monkeypatch)
    assert distance(plain, trained(True, autocast, monkeypatch)) < least


def test_casts_that_are_not_made_anew_after_a_step_would_be_seen(monkeypatch):
    plain = trained(False, True, monkeypatch)
    monkeypatch.setattr("research.models.lora._state", lambda parameter: (0, 0))
    assert distance(plain, trained(True, True, monkeypatch)) > 2e-2
