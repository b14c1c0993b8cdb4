"""Writes models as folders by sentence-transformers itself, so that it loads exactly what was trained."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from sentence_transformers import CrossEncoder as RerankerStack
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from research.models.adapters import merged
from research.models.contents import read_config
from research.models.cross_encoder import CrossEncoder, Reranker
from research.models.dual_encoder import DualEncoder, Encoder, TextEncoder
from research.models.library import transformers_of
from research.models.stack import ROLES
from research.models.stack_encoder import input_module
from research.runs.files import write_json

TASKS = {"query": "query", "doc": "document"}  # what the library calls the roles
LENGTHS = {"query": "query_length", "doc": "document_length"}  # what the library's Transformer calls them


def save_dual_encoder(model: DualEncoder, folder: Path) -> None:
    """Write one folder for a shared tower, `query/` and `doc/` for separate ones, with a Router over both.

    Args:
        folder: made if absent; its files are replaced.
    """
    if model.query is model.doc:
        save_text_encoder(model.doc, folder)
    else:
        save_text_encoder(model.query, folder / "query")
        save_text_encoder(model.doc, folder / "doc")
        write_router(folder)


def write_router(folder: Path) -> None:
    """Make a folder with query/ and doc/ one SentenceTransformer: a Router over the modules there, without copying files.

    Args:
        folder: with both towers, each as sentence-transformers saved it.
    """
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    saved = {}
    for role, task in TASKS.items():
        modules = json.loads((folder / role / "modules.json").read_text(encoding="utf-8"))
        names = [f"{role}/{module['path']}".rstrip("/") for module in modules]
        types |= dict(zip(names, (module["type"] for module in modules), strict=True))
        structure[task] = names
        saved[role] = read_config(folder / role / "config_sentence_transformers.json")
    prompts = {task: (saved[role].get("prompts") or {}).get(task) or "" for role, task in TASKS.items()}
    parameters = {"default_route": TASKS["doc"], "allow_empty_key": True, "route_mappings": {}}
    write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    write_json(folder / "config_sentence_transformers.json", saved["doc"] | {"prompts": prompts})
    router = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.router.Router"}
    write_json(folder / "modules.json", [router])


def save_text_encoder(encoder: Encoder, folder: Path) -> None:
    """Write transformer, tokenizer, further modules, prompts, and the lengths of the roles."""
    stack = encoder.library[0] if isinstance(encoder, TextEncoder) else encoder.stack
    _set_lengths(stack, encoder)
    with _whole_weights(stack):
        stack.save(str(folder), create_model_card=False)


def _set_lengths(stack: SentenceTransformer, encoder: Encoder) -> None:
    """Set the longer role's length as the tokenizer's, and each role's own length if they differ."""
    settings = encoder.settings
    lengths = {role: settings.max_length(role) for role in ROLES}
    if isinstance(encoder, TextEncoder):
        stack.max_seq_length = max(lengths.values())
        role_lengths = lengths if len(set(lengths.values())) > 1 else dict.fromkeys(ROLES)
        for role, name in LENGTHS.items():
            setattr(stack[0], name, role_lengths[role])
        return
    for role, call in encoder.calls.items():
        if call.options:
            setattr(input_module(stack, call.task), LENGTHS[role], lengths[role])


@contextlib.contextmanager
def _whole_weights(stack: SentenceTransformer | RerankerStack) -> Iterator[None]:
    """Within this context a stack's transformers are copies with merged adapters; training may go on with the originals."""
    trained: list[tuple[Transformer, object]] = [(module, module.model) for module in transformers_of(stack)]
    try:
        for module, model in trained:
            module.model = merged(model)
        yield
    finally:
        for module, model in trained:
            module.model = model


def save_cross_encoder(model: Reranker, folder: Path) -> None:
    """Write a folder that sentence-transformers' CrossEncoder loads, and transformers where it is a plain classifier."""
    stack = model.library[0] if isinstance(model, CrossEncoder) else model.stack
    stack.max_seq_length = model.max_length
    with _whole_weights(stack):
        stack.save(str(folder), create_model_card=False)
