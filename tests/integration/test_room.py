"""The disk that a training asks for at its start is what it comes to write, and not a multiple of a frozen base."""

from pathlib import Path

import pytest

from research.training.dual_encoder import DualEncoderModule
from research.training.room import bytes_needed
from research.training.sft import SFTModule

HEAD = Path(__file__).parents[1] / "fixtures/head"


def written(run: Path) -> int:
    """Two checkpoints, and the weights in model/ twice: the next ones are written beside them."""
    weights = sum(path.stat().st_size for path in run.glob("model/*.safetensors"))
    return sum(path.stat().st_size for path in run.glob("*.ckpt")) + 2 * weights


@pytest.mark.parametrize("name", ["sft", "dual"])
def test_the_disk_that_is_asked_for_is_what_is_written(name):
    import peft

    if name == "sft":
        adapter = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
        module = SFTModule(str(HEAD / "models/lm"), adapter=adapter, metrics=["loss"])
    else:
        module = DualEncoderModule(str(HEAD / "models/encoder"))
    overhead = 6 * 2**13  # names and records of small files
    assert abs(bytes_needed(module) - written(HEAD / "stopped" / name)) < overhead
    if name == "sft":
        assert bytes_needed(module) < sum(p.numel() * 4 for p in module.parameters())
