"""What lies in a model folder: its JSON files, its weights (safetensors only), its vocabulary."""

import json
import os
from pathlib import Path
from typing import TypeVar

from research.errors import UserError

Kind = TypeVar("Kind", dict, list)
ADAPTER_CONFIG = "adapter_config.json"  # marks an adapter's folder, as PEFT writes it
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # PEFT's other name, adapter_model.bin, is a pickle and never read
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "added_tokens.json",
)
FIRST_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
LATER_VOCABULARIES = ("spm.model", "sentencepiece.model")
"""DeBERTa-v2's and RemBERT's; hashed where no other is there, so that hashes of folders with tokenizer.json stay."""
VOCABULARY_FILES = (*FIRST_VOCABULARIES, *LATER_VOCABULARIES)


def read_config(path: Path, kind: type[Kind] = dict) -> Kind:
    """Read a JSON file of a model folder; it must hold a `kind`: a dict, or the list of modules.json.

    Raises:
        UserError: missing, malformed, or of another type.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; expected a model folder with it. Name the folder that holds the weights."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); the model folder is damaged. Copy or download it again."
        ) from None
    if not isinstance(value, kind):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__}, expected a JSON {kind.__name__}; the model folder is "
            "damaged. Copy or download it again."
        )
    return value


def everything_in(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """List everything below a folder, sorted; also in linked folders, where libraries look but `Path.rglob` does not.

    Args:
        folder: of a model.
        above: real folders that are being walked: a link to one of them, or to what holds it, is not followed.
    """
    paths = sorted(folder.rglob("*"))
    for link in [path for path in paths if path.is_symlink() and os.path.isdir(path)]:  # False where it may not be read
        target, places = link.resolve(), (*above, folder.resolve(), link.parent.resolve())
        if not any(place.is_relative_to(target) for place in places):
            paths += everything_in(link, places)
    return sorted(paths)


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors of a model folder (a sentence-transformers folder may hold more in its module folders).

    Raises:
        UserError: there are none.
    """
    files = [path for path in everything_in(folder) if path.match("*.safetensors")]
    if not files:
        pickles = [p.name for p in folder.glob("*.bin")]
        problem = f"it has {', '.join(pickles)}, and pickled weights run code when loaded" if pickles else "it has none"
        raise UserError(
            f"model folder {folder} needs weights as *.safetensors; {problem}. Save the model again with "
            "save_pretrained, or name another."
        )
    return files


def has_own_weights(folder: Path) -> bool:
    """Return whether an adapter's folder also holds the weights of its base."""
    return any(path.name != ADAPTER_WEIGHTS for path in folder.glob("*.safetensors"))


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a vocabulary: transformers would make a tokenizer that knows no word.

    Raises:
        UserError: none of the vocabulary files is there.
    """
    if not any((folder / name).exists() for name in VOCABULARY_FILES) and not _reads_bytes(folder):
        raise UserError(
            f"model folder {folder} has no vocabulary; expected a tokenizer ({', '.join(VOCABULARY_FILES)}), "
            "without which every word is unknown. Copy or download it again."
        )


def _reads_bytes(folder: Path) -> bool:
    """Return whether the folder names a tokenizer of bytes or characters, which needs no vocabulary (ByT5, CANINE)."""
    path = folder / "tokenizer_config.json"
    name = read_config(path).get("tokenizer_class") if path.exists() else None
    if not isinstance(name, str) or not name.isidentifier():
        return False
    import transformers  # here: seconds, and names are checked before anything heavy is loaded

    return getattr(getattr(transformers, name, None), "vocab_files_names", None) == {}
