"""Refuses unsafe or unfit model folders before and while sentence-transformers opens them: own code, pickles, no texts."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from sentence_transformers.base.modules import Transformer

from research.errors import UserError
from research.models.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_tokenizer, everything_in, read_config, weight_files

NAMESPACE = "sentence_transformers."


def check(folder: Path) -> None:
    """Refuse a folder before the library opens anything.

    Raises:
        UserError: a module that is the folder's own code, weights as pickles, no weights, no vocabulary.
    """
    adapter = (folder / ADAPTER_CONFIG).exists()
    weight_files(folder)
    for place in _module_places(folder):
        pickle, safe = (place / "pytorch_model.bin", ("model.safetensors", "model.safetensors.index.json", ADAPTER_WEIGHTS))
        if place != folder and (place / ADAPTER_CONFIG).exists():
            raise UserError(
                f"{place} holds an adapter within a stack of modules; expected one at the top of a folder, whose "
                "base is then in the hash. Merge it into its base and save the stack again."
            )
        if pickle.exists() and not any((place / name).exists() for name in safe):
            raise UserError(
                f"{pickle} holds weights as a pickle, which runs code when loaded; expected model.safetensors "
                "beside it. Save the model again with save_pretrained, or name another."
            )
    at_top = "" in module_paths(folder) or not (folder / "modules.json").exists()
    if at_top and not adapter and (folder / "config.json").exists():
        check_tokenizer(folder)


def module_paths(folder: Path) -> list[str]:
    """List the folders of a stack's modules, in order; [] for a plain Hugging Face folder.

    Raises:
        UserError: modules.json is damaged, or has a module that sentence-transformers does not have.
    """
    path = folder / "modules.json"
    if not path.exists():
        return []
    modules = read_config(path, list)
    if not modules or not all(
        isinstance(m, dict) and isinstance(m.get("path"), str) and isinstance(m.get("type"), str) for m in modules
    ):
        raise UserError(
            f"{path} is damaged; expected the list of modules that sentence-transformers wrote, each with path and "
            "type. Copy or download it again."
        )
    foreign = [module["type"] for module in modules if not module["type"].startswith(NAMESPACE)]
    if foreign:
        raise UserError(
            f"{path} has the module {foreign[0]}, code of the folder's own, which is never run; expected modules of "
            "sentence-transformers. Name another model."
        )
    return [module["path"] for module in modules]


def _module_places(folder: Path) -> Iterator[Path]:
    yield folder
    for path in module_paths(folder):
        if path:
            yield folder / path
            yield from (place for place in everything_in(folder / path) if place.is_dir())


@contextlib.contextmanager
def no_pickles() -> Iterator[None]:
    """Within this context stop any attempt to open a pickle that `check` did not foresee."""

    def refused(file, *_, **__):
        raise UserError(
            f"{file} is a pickle, which runs code when loaded; expected safetensors. Save the model again with "
            "save_pretrained, or name another."
        )

    plain, torch.load = torch.load, refused
    try:
        yield
    finally:
        torch.load = plain


@contextlib.contextmanager
def listening(warned: list[str]) -> Iterator[None]:
    """Collect the warnings of sentence-transformers instead of printing them."""
    logger = logging.getLogger("sentence_transformers")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(" ".join(record.getMessage().split()))
    propagate, level, logger.propagate = logger.propagate, logger.level, False
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        logger.setLevel(level)


def check_text(module: Transformer, folder: Path) -> None:
    """Refuse a model that does not read texts.

    Raises:
        UserError: no text goes in, or the tokenizer is another model's, or has no words.
    """
    if not {"text", "message"} & set(module.modality_config):
        known = ", ".join(map(str, module.modality_config)) or "nothing"
        raise UserError(f"model folder {folder} takes {known}; expected a model of texts. Name another model.")
    if module.tokenizer is None:
        raise UserError(f"model folder {folder} has no tokenizer; expected a model of texts. Copy or download it again.")
    vocabulary = module.tokenizer.get_vocab()
    if len(vocabulary) <= len(module.tokenizer.all_special_ids):
        raise UserError(
            f"model folder {folder} has no vocabulary: to its tokenizer every word is unknown; expected "
            "tokenizer.json or the files that it is made from. Copy or download it again."
        )
    if not isinstance(module.max_seq_length, int | float):
        raise UserError(
            f"model folder {folder}: its Transformer's file ({folder / 'sentence_bert_config.json'}) has "
            f"max_seq_length {module.max_seq_length!r}, expected a whole number. Copy or download it "
            "again."
        )
    try:
        rows = module.model.get_input_embeddings().num_embeddings
    except (AttributeError, NotImplementedError):  # an embedding that is no table
        return
    if max(vocabulary.values()) >= rows:
        raise UserError(
            f"model folder {folder} has a tokenizer with ids up to {max(vocabulary.values())}, expected below "
            f"{rows}, the rows of the embedding table: it is another model's. Copy or download it "
            "again."
        )
