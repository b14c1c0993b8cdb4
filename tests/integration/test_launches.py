"""Kernels and waits of one optimizer step on the path that a GPU takes, counted on a CPU: they may only fall.

The models are as deep as the small ones in use (six layers of MiniLM, thirty of SmolLM2) and narrow: the depth decides.
"""

import pytest

from research.models.training import cheaper_parts
from tests.integration.launches import CountStep
from tests.integration.small import Training
from tests.lm import save_tiny

DEEP = {"dual_encoder": 6, "cross_encoder": 6, "sft": 30, "dpo": 30}
CEILINGS = {"dual_encoder": (1244, 3), "cross_encoder": (591, 2), "sft": (3716, 3), "dpo": (3752, 1)}
"""Trainer → (launches, waits) of a step. One wait is ours; transformers looks for padding in every mask with the others."""


@pytest.fixture(scope="module")
def deep_models(tmp_path_factory, wordpiece) -> dict:
    """A folder for each trainer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("deep")
    sizes = {
        "vocab_size": len(wordpiece),
        "hidden_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    for kind, model in (("dual_encoder", BertModel), ("cross_encoder", BertForSequenceClassification)):
        labels = {"num_labels": 1} if kind == "cross_encoder" else {}
        model(BertConfig(**sizes, **labels)).save_pretrained(place / kind)
        wordpiece.save_pretrained(place / kind)
    save_tiny(place / "lm", layers=30)
    return {kind: place / (kind if kind.endswith("encoder") else "lm") for kind in DEEP}


def counted(kind: str, models: dict, data, out, monkeypatch, **module) -> tuple[dict, dict]:
    """Launches and waits of the second step, in one chunk a side, as a GPU computes it."""
    for room in ("base", "language"):
        monkeypatch.setattr(f"research.training.{room}.cheaper_parts", lambda model, device: cheaper_parts(model, "cuda"))
    monkeypatch.setattr("research.models.lora.is_joined", lambda x: True)
    if kind in ("sft", "dpo"):
        import peft

        module |= {"adapter": peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")}
    options = {"batch_size": 8, "chunk_overhead": 8192}
    trainer = {"precision": "bf16-mixed", "max_steps": 2, "max_epochs": -1, "val_check_interval": 1000, "limit_val_batches": 0}
    count = CountStep(1)
    Training(kind, models[kind], data, out, module=module, data=options, trainer=trainer).run(callbacks=(count,))
    return count.counts.launches, count.counts.waits


@pytest.mark.parametrize("kind", CEILINGS)
def test_launches_and_waits_of_a_step_only_fall(kind, deep_models, training_data, language_data, tmp_path, monkeypatch):
    data = training_data if kind.endswith("encoder") else language_data
    module = {"learn_temperature": False} if kind == "dual_encoder" else {}
    launches, waits = counted(kind, deep_models, data, tmp_path / "out", monkeypatch, **module)
    found = sum(launches.values()), sum(waits.values())
    assert found[0] <= CEILINGS[kind][0], launches.most_common(40)
    assert found[1] <= CEILINGS[kind][1], waits
    assert found[0] > 0.9 * CEILINGS[kind][0], f"{found}: lower the ceiling"
    assert sum(count for place, count in waits.items() if "transformers/" not in place) == 1, waits


def test_casts_that_are_not_shared_and_a_value_that_is_read_are_counted(deep_models, training_data, tmp_path, monkeypatch):
    """The planted faults: the test above sees both."""
    monkeypatch.setattr("research.models.casts.SharedCast.__call__", lambda self, module, inputs: None)
    launches, waits = counted("dual_encoder", deep_models, training_data, tmp_path, monkeypatch, learn_temperature=True)
    assert sum(launches.values()) > 1.02 * CEILINGS["dual_encoder"][0]
    assert sum(waits.values()) == CEILINGS["dual_encoder"][1] + 1  # the temperature, which is read once where it is fixed
