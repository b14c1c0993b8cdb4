"""`random:CONFIG.json` → a folder of a causal language model of that architecture with random weights.

For an architecture whose weights are not to be had offline: everything runs as it will with them; the numbers mean nothing.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from research.errors import UserError
from research.models.contents import read_config
from research.models.hashed import hash_model
from research.progress import say
from research.runs.files import replace_folder
from research.runs.hashes import hash_json
from research.runs.layout import cache_folder
from research.runs.locks import exclusive

SEED = 0


def with_random_weights(file: Path, resolve: Callable[[str], Path]) -> Path:
    """Return the folder of the model that a JSON file describes.

    Args:
        file: arguments of transformers' configuration class, with model_type, and `tokenizer`, the model whose tokenizer is
            taken; the vocabulary is as large as that.
        resolve: the folder of that model, by its name.

    Raises:
        UserError: not such a file.
    """
    values = read_config(file)
    missing = [name for name in ("model_type", "tokenizer") if not isinstance(values.get(name), str)]
    if missing:
        raise UserError(
            f"{file} has no {missing[0]}; expected model_type (gpt2, llama, …), tokenizer (a model) and arguments "
            "of that model's configuration. Add it."
        )
    source = resolve(values["tokenizer"])
    folder = cache_folder() / "random" / hash_json([values, hash_model(source), SEED])[:32]
    if (folder / "config.json").exists():
        return folder
    with exclusive(folder.parent / f"{folder.name}.making"):
        if not (folder / "config.json").exists():
            say(f"{file}: random weights, seed {SEED}, into {folder}")
            with replace_folder(folder) as new:
                _make({name: v for name, v in values.items() if name != "tokenizer"}, source, file, new)
    return folder


def _make(values: dict, source: Path, file: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            config = AutoConfig.for_model(**(values | {"vocab_size": len(tokenizer), **ids}))
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise UserError(
                f"{file} describes no causal language model ({' '.join(str(error).split())[:200]}); expected "
                "arguments of transformers' configuration of that model_type. Correct it."
            ) from error
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
