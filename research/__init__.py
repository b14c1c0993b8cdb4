"""Tandem: retrieve, rerank, generate, and the ablations around it.

The Python API is what stands in `__all__`; docs/python.md shows it. Each name is imported when it is first used, so that
`import research` takes no time. The verbs of the command line call the same functions.
"""

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from research.errors import UserError
from research.errors import as_arguments as _as_arguments

if TYPE_CHECKING:
    from research.data.rankings import read_run as read_run
    from research.data.sources import load as load_data
    from research.data.unjudged import read_corpus as read_corpus
    from research.data.unjudged import read_queries as read_queries
    from research.metrics.scores import evaluate_runs as evaluate
    from research.models.inference import use_device as use_device
    from research.rag.generate import generate as generate
    from research.rag.generate import load_lm as load_lm
    from research.retrieval.embedder import encode as encode
    from research.retrieval.embedder import load_encoder as load_encoder
    from research.retrieval.negatives import mine_negatives as mine
    from research.retrieval.rerank import load_reranker as load_reranker
    from research.retrieval.search import rerank as rerank
    from research.retrieval.search import search as search
    from research.runs.table import read_frame as read_runs
    from research.training.fit import fit as fit

__version__ = "0.1.0"
__all__ = [
    "UserError",
    "encode",
    "evaluate",
    "fit",
    "generate",
    "load_data",
    "load_encoder",
    "load_lm",
    "load_reranker",
    "mine",
    "read_corpus",
    "read_queries",
    "read_run",
    "read_runs",
    "rerank",
    "search",
    "use_device",
]
_HOMES = {
    "encode": "retrieval.embedder.encode",
    "evaluate": "metrics.scores.evaluate_runs",
    "fit": "training.fit.fit",
    "generate": "rag.generate.generate",
    "load_data": "data.sources.load",
    "load_encoder": "retrieval.embedder.load_encoder",
    "load_lm": "rag.generate.load_lm",
    "load_reranker": "retrieval.rerank.load_reranker",
    "mine": "retrieval.negatives.mine_negatives",
    "read_corpus": "data.unjudged.read_corpus",
    "read_queries": "data.unjudged.read_queries",
    "read_run": "data.rankings.read_run",
    "read_runs": "runs.table.read_frame",
    "rerank": "retrieval.search.rerank",
    "search": "retrieval.search.search",
    "use_device": "models.inference.use_device",
}
"""Name of the API → where it lives; the verbs take it from there."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'research' has no attribute {name!r}")
    module, _, inner = _HOMES[name].rpartition(".")
    target = getattr(importlib.import_module(f"research.{module}"), inner)
    globals()[name] = value = target if isinstance(target, type) else _with_argument_names(name, target)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def _with_argument_names(name: str, function: Callable) -> Callable:
    """The function, whose refusals name arguments where the verbs' name options: top_k=0 for --top-k 0."""

    @functools.wraps(function)
    def called(*args: object, **more: object) -> object:
        try:
            return function(*args, **more)
        except UserError as error:
            raise UserError(_as_arguments(str(error), function)) from error

    called.__name__ = called.__qualname__ = name
    called.__module__ = __name__  # where pickle finds it
    return called
