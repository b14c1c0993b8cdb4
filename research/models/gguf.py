"""A GGUF file → a Hugging Face folder of float32 safetensors, made once and kept by the file's content.

Dequantising takes some 20 seconds for 135M parameters, the folder loads in a tenth of one. The weights are what the file
says, bit for bit; they are third parties' quantised copies, so numbers are not those of the original checkpoint.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import modeling_gguf_pytorch_utils as loading

from research.errors import UserError
from research.models.folder import quiet
from research.progress import each, say
from research.runs.disk import require_space
from research.runs.files import replace_folder
from research.runs.hashes import hash_file
from research.runs.layout import cache_folder
from research.runs.locks import exclusive

QUANTISED = ("quantization_config", "hf_quantizer", "quantization_method", "is_quantized")
"""What loading a GGUF leaves on a model, though its weights are plain: with it saving and full fine-tuning are refused."""


def dequantised(file: Path) -> Path:
    """Return the folder of a GGUF file's weights, config and tokenizer; it is made on the first call.

    Args:
        file: one complete GGUF (not a shard of several).

    Raises:
        UserError: not GGUF, an architecture that transformers does not read, or no room.
    """
    with open(file, "rb") as stream:
        if stream.read(4) != b"GGUF":
            raise UserError(
                f"{file} is not GGUF (it does not begin with that word); expected a GGUF file or a folder of "
                "safetensors. Download it again."
            )
    folder = cache_folder() / "gguf" / hash_file(file)[:32]
    if (folder / "config.json").exists():
        return folder
    with exclusive(folder.parent / f"{folder.name}.making"):
        if not (folder / "config.json").exists():
            require_space(folder, 8 * file.stat().st_size, f"the dequantised copy of {file.name}")
            say(f"dequantising {file.name} once, into {folder}")
            with replace_folder(folder) as new:
                _convert(file, new)
    return folder


@contextlib.contextmanager
def _own_bar() -> Iterator[None]:
    """Show transformers' bar as our own: its redraws a terminal's line in log files too, hundreds of times."""
    plain, loading.tqdm = loading.tqdm, lambda tensors, desc: each(tensors, "dequantise", "tensor")
    try:
        yield
    finally:
        loading.tqdm = plain


def _convert(file: Path, folder: Path) -> None:
    try:
        with quiet(), _own_bar():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except Exception as error:  # gguf and transformers raise ValueError, KeyError, struct.error, … for what they cannot read
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be read as a GGUF language model ({type(error).__name__}: {reason}); expected an "
            "architecture that transformers dequantises. Name a folder of safetensors."
        ) from error
    for name in QUANTISED:
        for owner in (model, model.config):
            if name in vars(owner):
                delattr(owner, name)
    model.config._name_or_path = file.name
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
