"""The hash of a model folder: weights, configurations, tokenizers, and other JSON settings that change what it computes.

Prompts, lengths and the like are part of every key by their resolved values (EncoderSettings), so the files that only hold
those leave the hash alone, as they always did: stores and caches of such folders stay valid. What such a file says beyond
that (a truncation, a template's arguments, a reranker's prompt, a module of another kind) is hashed by itself.
"""

import json
import re
from pathlib import Path

from research.models.contents import (
    ADAPTER_CONFIG,
    FIRST_VOCABULARIES,
    LATER_VOCABULARIES,
    TOKENIZER_FILES,
    everything_in,
    weight_files,
)
from research.runs.hashes import hash_file, hash_json
from research.runs.layout import MODEL_FACTS
from research.types import Json

HASHED = ("config.json", ADAPTER_CONFIG, "chat_template.jinja", *TOKENIZER_FILES)
FIRST_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Names of the Transformer module's file; sentence-transformers reads the first that is there and not empty."""
KNOWN = r"Transformer Pooling( Dense)*( Normalize)?"
OLD_MODULE = r"sentence_transformers(\.[a-z_]+)*\.(Transformer|Pooling|Dense|Normalize)"
SMALL = {".json", ".txt", ".jinja", ".model"}
UNREAD = {"LICENSE.txt", MODEL_FACTS, "trainer_state.json", "all_results.json"}
TASKS = {"feature-extraction": "last_hidden_state", "sequence-classification": "logits"}


def hash_model(folder: Path) -> str:
    """Hash (sha256) the weights, config and tokenizer files, and all else in the folder that changes what it computes.

    The folder's name has no part in it; nor has an adapter's base: see `hash_with_base`.
    """
    return hash_json(hash_folder_files(folder))


def hash_folder_files(folder: Path) -> dict[str, Json]:
    """Map every file that counts to its hash, or to its contents."""
    weight_files(folder)
    files = [p for p in everything_in(folder) if p.suffix == ".safetensors" or p.name in HASHED or _is_only_vocabulary(p)]
    return {str(path.relative_to(folder)): hash_file(path) for path in files} | further_settings(folder)


def _is_only_vocabulary(path: Path) -> bool:
    return path.name in LATER_VOCABULARIES and not any((path.parent / name).exists() for name in FIRST_VOCABULARIES)


def further_settings(folder: Path) -> dict[str, Json]:
    """Map files to the contents that no setting holds; {} for folders as transformers or our own `fit` write them."""
    facts: dict[str, Json] = {}
    for role in ("", "query", "doc"):  # towers of their own lie in folders of their own
        if not role and all((folder / name).is_dir() for name in ("query", "doc")):
            continue  # a Router over both, which says nothing that they do not say
        place = folder / role
        reranker = (_read(place / "config_sentence_transformers.json") or {}).get("model_type") == "CrossEncoder"
        modules = _read(place / "modules.json")
        if modules is not None and not _usual(modules, reranker):
            # another stack: every small file may be a module's (vocabularies, routes, templates)
            files = [p for p in everything_in(place) if p.is_file() and p.suffix in SMALL and p.name not in UNREAD]
            facts |= {str(p.relative_to(folder)): _text(p) for p in files}
        facts |= {f"{role}/{name}": value for name, value in _settings(place, reranker).items() if value}
    templates = sorted(folder.glob("additional_chat_templates/*.jinja"))
    return facts | {str(p.relative_to(folder)): _text(p) for p in templates}


def _usual(modules: Json, reranker: bool) -> bool:
    """Return whether all parts of the stack are in the settings."""
    try:
        types = [module["type"] for module in modules]
        extra = any(module.get("kwargs") for module in modules) or modules[0]["path"]
        kinds = " ".join(kind.rsplit(".", 1)[-1] for kind in types)
    except (TypeError, KeyError, IndexError, AttributeError):
        return False  # damaged, and refused when it is read
    if extra or not all(re.fullmatch(OLD_MODULE, kind) for kind in types):
        return False
    return bool(re.fullmatch(KNOWN, kinds)) or (reranker and kinds == "Transformer")


def _settings(place: Path, reranker: bool) -> dict[str, dict]:
    settings = {}
    config = _read(place / "config_sentence_transformers.json") or {}
    if isinstance(config, dict):
        dropped = {"__version__", "model_type", "activation_fn", "default_prompt_name", "prompts", "requirements"}
        rest = {name: v for name, v in config.items() if name not in dropped and v not in (None, [], {})}
        if rest.get("similarity_fn_name") in ("cosine", "dot"):
            del rest["similarity_fn_name"]
        if reranker and config.get("default_prompt_name"):
            rest["prompt"] = (config.get("prompts") or {}).get(config["default_prompt_name"])
        settings["config_sentence_transformers.json"] = rest
    for name in FIRST_CONFIGS:
        config = _read(place / name)
        if config and isinstance(config, dict):
            settings[name] = _first(config, reranker) if name == FIRST_CONFIGS[0] else config
            break
    return settings


def _first(config: dict, reranker: bool) -> dict:
    """Return what a Transformer's file says beyond length and case, and beyond how every text encoder is called."""
    task = "sequence-classification" if reranker else "feature-extraction"
    called = {
        "transformer_task": task,
        "module_output_name": "scores" if reranker else "token_embeddings",
        "modality_config": {"text": {"method": "forward", "method_output_name": TASKS[task]}},
    }
    read = set() if reranker else {"max_seq_length", "do_lower_case"}  # of rerankers they were not read
    return {n: v for n, v in config.items() if n not in read and v not in (None, {}, False) and called.get(n) != v}


def _read(path: Path) -> Json:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or damaged, and then refused when it is read
        return None


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")
