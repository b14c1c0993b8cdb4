"""An encoder's settings (pooling, normalisation, prompts, lengths), read from the stack that sentence-transformers loaded."""

import dataclasses
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense as DenseModule
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

from research.errors import UserError
from research.models.contents import read_config
from research.models.pooling import POOLINGS
from research.models.stack import MODES, ROLES, calls, names
from research.runs.layout import MODEL_FACTS
from research.types import Json

SIMILARITIES = ("cosine", "dot")
LATER = {"truncate_dim": None, "modules": ""}  # settings that came later: at these values they are no part of any key


@dataclasses.dataclass(frozen=True)
class Dense:
    """A linear layer after pooling."""

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str  # "identity" | "tanh" | "gelu" | … : the class in torch.nn, in small letters


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """How an encoder turns texts into embeddings, and how these are compared.

    Args:
        pooling: "mean" | "cls" | "last"; of another stack whatever its modules do.
        normalize: divide embeddings by their L2 norm.
        similarity: "cosine" | "dot": how a query's and a document's embedding are compared.
        query_prompt: put before every query.
        doc_prompt: put before every document.
        query_max_length: tokens of a query, prompt and special tokens included; longer texts are cut.
        doc_max_length: likewise of a document.
        include_prompt: False leaves the prompt's tokens out of the pooling.
        lower_case: lower-case texts first (beside what the tokenizer does).
        dense: linear layers between pooling and normalisation.
        truncate_dim: only that many numbers of each embedding are kept, after all modules.
        modules: the names of a stack that runs through sentence-transformers' own modules; "" of one that is known exactly.
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
    truncate_dim: int | None = None
    modules: str = ""

    def __post_init__(self):
        if self.pooling not in POOLINGS and not self.modules:
            raise UserError(
                f"pooling {self.pooling!r} is not supported; expected one of {', '.join(POOLINGS)}. Name another model."
            )
        if self.similarity not in SIMILARITIES:
            raise UserError(
                f"the model compares embeddings by {self.similarity}; search here is by cosine or dot. Pass "
                "--similarity cosine (or dot), or write one as similarity_fn_name into its "
                "config_sentence_transformers.json."
            )

    @property
    def normalize_outside(self) -> bool:
        """Return whether the search must divide embeddings by their norms: compared by cosine, and not divided here."""
        return self.similarity == "cosine" and (not self.normalize or self.truncate_dim is not None)

    def prompt(self, role: str) -> str:
        """Return the text that is put before every text of a role."""
        return self.query_prompt if role == "query" else self.doc_prompt

    def max_length(self, role: str) -> int | None:
        """Return the maximum length of a role's texts, in tokens."""
        return self.query_max_length if role == "query" else self.doc_max_length

    def override(self, **changes: object) -> "EncoderSettings":
        """Return a copy in which the values that are not None are changed."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})

    def identity(self, role: str) -> dict[str, Json]:
        """Return the settings that go into a cache key: those of one role, without later settings that are not in use."""
        other = next(f"{name}_" for name in ROLES if name != role)
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if not name.startswith(other) and LATER.get(name, ...) != value
        }


def change(
    stack: SentenceTransformer,
    folder: Path,
    pooling: str | None = None,
    normalize: bool | None = None,
    similarity: str | None = None,
    query_prompt: str | None = None,
    doc_prompt: str | None = None,
) -> None:
    """Set the user's settings on a loaded stack; None keeps the folder's own setting.

    Raises:
        UserError: the stack has no place for it.
    """
    if pooling is not None:
        if pooling not in MODES:
            raise UserError(f"pooling {pooling!r} is not supported; expected one of {', '.join(POOLINGS)}. Name another.")
        layers = [module for module in stack if type(module) is Pooling]
        if len(layers) != 1:
            raise UserError(
                f"pooling={pooling}, but {folder} has {len(layers)} Pooling modules ({names(stack)}); expected one "
                "to change. Leave pooling out."
            )
        layers[0].pooling_mode, layers[0].pooling_output_dimension = MODES[pooling], layers[0].embedding_dimension
    last = stack[-1]
    if normalize is True and type(last) is not Normalize:
        stack.append(Normalize())
    if normalize is False and type(last) is Normalize:
        del stack[len(stack) - 1]
    if similarity is not None:
        if similarity not in SIMILARITIES:
            raise UserError(f"similarity {similarity!r} is not supported; expected cosine or dot. Correct it.")
        stack.similarity_fn_name = similarity
    for name, prompt in (("query", query_prompt), ("document", doc_prompt)):
        if prompt is not None:
            stack.prompts[name] = prompt


def role_lengths(stack: SentenceTransformer, folder: Path) -> dict[str, int | None]:
    """Read each role's length in tokens from the stack, or from the file of an older folder of ours, if there is one."""
    facts = read_config(folder / MODEL_FACTS) if (folder / MODEL_FACTS).exists() else {}
    first = stack[0]
    modules = {"query": getattr(first, "query_length", None), "doc": getattr(first, "document_length", None)}
    lengths = {f"{role}_max_length": facts.get(f"{role}_max_length") or modules[role] for role in ROLES}
    for name, value in lengths.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(
                f"{folder} has {name} {value!r}, expected a whole number above 0; the model folder is damaged. "
                "Copy or download it again."
            )
    return lengths


def settings_of(stack: SentenceTransformer, folder: Path, known: bool, paths: list[str]) -> EncoderSettings:
    """Read the settings of a loaded stack; lengths only if it has one for each role.

    Args:
        stack: with the user's changes.
        folder: it was read from.
        known: as `is_known` says.
        paths: of its modules in the folder.
    """
    asked_calls = calls(stack)
    modules = list(stack)
    poolings = [module for module in modules if type(module) is Pooling]
    ours = {mode: name for name, mode in MODES.items()}
    common = {
        "similarity": stack.similarity_fn_name,
        "query_prompt": asked_calls["query"]["prompt"],
        "doc_prompt": asked_calls["doc"]["prompt"],
        "normalize": type(modules[-1]) is Normalize and modules[-1].module_output_name == "sentence_embedding",
        "truncate_dim": stack.truncate_dim,
        "lower_case": bool(getattr(modules[0], "do_lower_case", False)),
        **role_lengths(stack, folder),
    }
    if not known:
        mode = poolings[0].pooling_mode if poolings else "none"
        return EncoderSettings(
            pooling=ours.get(mode, "+".join(mode) if isinstance(mode, tuple) else mode), modules=names(stack), **common
        )
    dense = tuple(
        Dense(
            paths[i] if i < len(paths) else f"{i}_Dense",
            m.in_features,
            m.out_features,
            m.linear.bias is not None,
            type(m.activation_function).__name__.lower(),
        )
        for i, m in enumerate(modules)
        if type(m) is DenseModule
    )
    return EncoderSettings(
        pooling=ours[poolings[0].pooling_mode], include_prompt=poolings[0].include_prompt, dense=dense, **common
    )
