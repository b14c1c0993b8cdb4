"""The router's loss weighs the same on several processes, and over a stop."""

from pathlib import Path

import pytest
import torch

from tests.integration.ranks import run_ranks
from tests.integration.small import KeepGradients
from tests.lm import byte_tokenizer


@pytest.fixture(scope="module")
def tiny_moe(tmp_path_factory) -> Path:
    from transformers import MixtralConfig, MixtralForCausalLM

    folder = tmp_path_factory.mktemp("moe") / "model"
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        pad_token_id=0,
        eos_token_id=0,
        max_position_embeddings=512,
        initializer_range=0.2,
        router_aux_loss_coef=0.5,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_ranks_give_the_gradient_of_a_window_of_their_batches(kind, tiny_moe, training):
    """Two ranks of one example each, and one process that accumulates two of one: rows of unlike counts of tokens."""
    module = {"model": str(tiny_moe)} | ({"reference": "adapter_off"} if kind == "dpo" else {})
    more = {"adapter": "still", "clip": None, "trainer": {"max_steps": 1, "limit_val_batches": 0}, "data": {"batch_size": 1}}
    alone = training(kind, "alone", module=module, accumulate=2, **more)
    alone.run(callbacks=(KeepGradients(alone.out / "gradients.pt"),))
    ranks = training(kind, "ranks", module=module, **more)
    run_ranks(ranks, 2)
    assert ranks.curve()[0]["train/router_loss"] == pytest.approx(alone.curve()[0]["train/router_loss"], abs=1e-5)
    expected, found = (torch.load(t.out / "gradients.pt") for t in (alone, ranks))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * max(1e-3, float(gradient.norm())), name


def test_a_stop_within_a_window_waits_for_its_end(tiny_moe, training):
    """The micro-batches that wait are in no checkpoint: it is taken between windows."""
    options = {"module": {"model": str(tiny_moe)}, "accumulate": 3, "data": {"batch_size": 2}, "adapter": "still"}
    straight = training("sft", "straight", **options)
    straight.run()
    stopped = training("sft", "stopped", **options)
    stopped.run(stop=3)
    stopped.run()
    assert stopped.curve() == straight.curve()
