"""How a folder's encoder is to be used: pooling, normalisation, prompts, lengths.

Read from a sentence-transformers folder (modules.json and its neighbours), or the usual defaults for a plain Hugging
Face folder. What cannot be honoured is refused: an ignored module would give other embeddings without a word.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.models.pooling import POOLINGS
from research.models.sources import read_config

ROLES = ("query", "doc")
LENGTHS_FILE = "tandem.json"  # lengths of the two roles; sentence-transformers knows one for both
DOC_PROMPT_NAMES = ("document", "passage", "corpus")  # the order in which sentence-transformers looks them up
LEGACY_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last",
                  "pooling_mode_max_tokens": "max", "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
                  "pooling_mode_weightedmean_tokens": "weightedmean"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Dense:
    """A linear layer after pooling, as sentence-transformers saves it in its own folder."""

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str  # "identity" | "tanh" | "gelu" | "relu"


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """Args:
    pooling: "mean" | "cls" | "last".
    normalize: divide embeddings by their L2 norm.
    similarity: "cosine" | "dot": how a query's and a document's embedding are compared.
    query_prompt: put before every query.
    doc_prompt: put before every document.
    query_max_length: tokens of a query, prompt and special tokens included; longer texts are cut.
    doc_max_length: likewise of a document.
    include_prompt: False leaves the prompt's tokens out of the pooling.
    lower_case: lower-case texts first (beside what the tokenizer does).
    dense: linear layers between pooling and normalisation.
    """

    pooling: str = "mean"
    normalize: bool = False
    similarity: str = "cosine"
    query_prompt: str = ""
    doc_prompt: str = ""
    query_max_length: int | None = None
    doc_max_length: int | None = None
    include_prompt: bool = True
    lower_case: bool = False
    dense: tuple[Dense, ...] = ()

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {self.pooling!r} is not supported; expected one of {', '.join(POOLINGS)}. "
                            "Name another model.")  # fmt: skip
        if self.similarity not in ("cosine", "dot"):
            raise UserError(f"similarity {self.similarity!r} is not supported; expected cosine or dot. Name "
                            "another model.")  # fmt: skip

    @property
    def normalize_outside(self) -> bool:
        """Whether who compares the embeddings must divide them by their norms: compared by cosine, and not divided here."""
        return self.similarity == "cosine" and not self.normalize

    def prompt(self, role: str) -> str:
        return self.query_prompt if role == "query" else self.doc_prompt

    def max_length(self, role: str) -> int | None:
        return self.query_max_length if role == "query" else self.doc_max_length

    def override(self, **changes: Any) -> "EncoderSettings":
        """A copy with the values that are not None changed."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})


def read_settings(folder: Path) -> EncoderSettings:
    """Settings of a model folder.

    Raises:
        UserError: a module or pooling that is not supported, or a damaged file.
    """
    try:
        return _read_settings(folder)
    except (KeyError, TypeError, AttributeError) as error:  # valid JSON, yet not what sentence-transformers writes
        raise UserError(f"the JSON files of model folder {folder} are damaged ({type(error).__name__}: {error}); expected "
                        "those that sentence-transformers or transformers wrote. Copy or download it "
                        "again.") from None  # fmt: skip


def _read_settings(folder: Path) -> EncoderSettings:
    if not (folder / "modules.json").exists():
        config = read_config(folder / "config.json")
        causal = any(name.endswith("ForCausalLM") for name in config.get("architectures") or [])
        return EncoderSettings(pooling="last" if causal else "mean")

    modules = read_config(folder / "modules.json", list)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Transformer" and module["path"]:
            raise UserError(f"{folder}: the Transformer lies in {module['path']!r}; save the model again with a current "
                            "sentence-transformers, which puts it at the top.")  # fmt: skip
    _check_modules(folder / "modules.json", kinds)
    places = {kind: folder / module["path"] for kind, module in zip(kinds, modules, strict=True)}
    values = _transformer_settings(folder) | _pooling_settings(places["Pooling"]) | {"normalize": "Normalize" in kinds}
    dense = [_dense(folder / m["path"], m["path"]) for kind, m in zip(kinds, modules, strict=True) if kind == "Dense"]
    return EncoderSettings(dense=tuple(dense), **values, **_prompt_settings(folder))


def _check_modules(path: Path, kinds: list[str]) -> None:
    """Refuse modules that are not known here, and any order in which they would give other embeddings."""
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Dense", "Normalize"})
    if unknown:
        raise UserError(f"{path} has the module {unknown[0]}; supported are Transformer, Pooling, Dense and Normalize. Its "
                        "embeddings cannot be reproduced here; name another model.")  # fmt: skip
    if not re.fullmatch("Transformer Pooling( Dense)*( Normalize)?", " ".join(kinds)):
        raise UserError(f"{path} has the modules {', '.join(kinds) or 'none'}; expected Transformer, Pooling, any Dense, and "
                        "Normalize last. The model folder is damaged, or of a kind that cannot be reproduced here; name "
                        "another model.")  # fmt: skip


def _transformer_settings(place: Path) -> dict:
    path = place / "sentence_bert_config.json"
    config = read_config(path) if path.exists() else {}
    own = place / LENGTHS_FILE
    lengths = read_config(own) if own.exists() else {}
    limit = config.get("max_seq_length")  # newer folders keep it as the tokenizer's model_max_length instead
    if limit is not None and not isinstance(limit, int):
        raise UserError(f"{path} has max_seq_length {limit!r}, expected a whole number; the model folder is damaged. Copy "
                        "or download it again.")  # fmt: skip
    lengths = {f"{role}_max_length": lengths.get(f"{role}_max_length", limit) for role in ROLES}
    return lengths | {"lower_case": bool(config.get("do_lower_case", False))}


def _pooling_settings(place: Path) -> dict:
    config = read_config(place / "config.json")
    mode = config.get("pooling_mode") or [name for key, name in LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) > 1:
        raise UserError(f"{place / 'config.json'} concatenates the poolings {', '.join(modes)}; one is supported. Name "
                        "another model.")  # fmt: skip
    pooling = "last" if modes[0] == "lasttoken" else modes[0]
    return {"pooling": pooling, "include_prompt": config.get("include_prompt", True)}


def _dense(place: Path, path: str) -> Dense:
    config = read_config(place / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rsplit(".", 1)[-1].lower()
    if activation not in ("identity", "tanh", "gelu", "relu") or config.get("use_residual"):
        raise UserError(f"{place / 'config.json'}: a Dense module with {activation} and residual="
                        f"{config.get('use_residual', False)} is not supported; expected identity, tanh, gelu or relu "
                        "without residual. Name another model.")  # fmt: skip
    return Dense(path, config["in_features"], config["out_features"], config.get("bias", True), activation)


def _prompt_settings(folder: Path) -> dict:
    path = folder / "config_sentence_transformers.json"
    config = read_config(path) if path.exists() else {}
    prompts = {name: text for name, text in (config.get("prompts") or {}).items() if text is not None}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    doc = next((prompts[name] for name in DOC_PROMPT_NAMES if name in prompts), default)
    return {
        "query_prompt": prompts.get("query", default),
        "doc_prompt": doc,
        "similarity": config.get("similarity_fn_name") or "cosine",
    }
