"""`hf:NAME[@REVISION]`: a dataset of the Hugging Face hub, or a local folder in its layout, as BEIR publishes them.

Configurations `corpus` and `queries`; judgements in `default` or `qrels`, or in the dataset NAME-qrels, whose revision
is the second one of `@REVISION,REVISION`.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from research.data.formats import collect_corpus, collect_qrels, collect_queries
from research.data.rows import BadRows
from research.errors import UserError, suggest
from research.types import Corpus, Qrels, Queries

QRELS_COLUMNS = ("query-id", "corpus-id", "score")


def load_hub(name: str, bad: BadRows) -> tuple[Corpus, Queries, dict[str, Qrels]]:
    """Corpus, queries, and the judgements of every split.

    Args:
        name: what stands after `hf:`.
        bad: what to do with bad rows.

    Raises:
        UserError: not found, no network, another layout, a bad row.
    """
    repo, _, revisions = name.partition("@")
    revision, _, qrels_revision = revisions.partition(",")
    with _errors(name, "beir:PATH"), _cache_for(repo) as cache:
        tables = _Tables(repo, revision or None, cache)
        judged = next((config for config in ("default", "qrels") if config in tables.configs), None)
        judgements = (
            tables.load(judged) if judged else _Tables(f"{repo}-qrels", qrels_revision or None, cache).load(None)
        )
        corpus = collect_corpus(_rows(name, "corpus", _only(name, "corpus", tables.load("corpus"))), bad)
        queries = collect_queries(_rows(name, "queries", _only(name, "queries", tables.load("queries"))), bad)
        return corpus, queries, {split: _qrels(name, split, part, bad) for split, part in judgements.items()}


def read_rows(name: str, split: str | None) -> Iterator[tuple[str, dict]]:
    """(`hf:NAME row N`, row) of one split of any dataset.

    Args:
        name: what stands after `hf:`, NAME[@REVISION].
        split: None takes the only one.

    Raises:
        UserError: not found, no network, or no such split.
    """
    repo, _, revision = name.partition("@")
    with _errors(name, "a JSONL file"), _cache_for(repo) as cache:
        tables = _Tables(repo, revision or None, cache)
        splits = tables.load(None if "default" in tables.configs else tables.configs[0])
        if split is None and len(splits) == 1:
            split = next(iter(splits))
        if split not in splits:
            raise UserError(f"hf:{name} has no split {split!r}; {suggest(str(split), list(splits))}. Name one of them.")
        yield from ((f"hf:{name} {split} row {number}", dict(row)) for number, row in enumerate(splits[split], 1))


@contextlib.contextmanager
def _errors(name: str, instead: str) -> Iterator[None]:
    """What the hub's libraries raise, as a UserError that names what works without a network."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (DatasetsError, OSError, ValueError) as error:  # ConnectionError and the hub's errors are OSErrors
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(f"hf:{name} could not be loaded ({type(error).__name__}: {reason}); expected a dataset of the hub "
                        "or a local folder in its layout. Check the name, the revision after @, and the network; without "
                        f"one use {instead}.") from None  # fmt: skip


class _Tables:
    """The configurations of one dataset repository."""

    def __init__(self, repo: str, revision: str | None, cache: str | None):
        import datasets

        self.repo, self.revision, self.cache = repo, revision, cache
        self.configs = datasets.get_dataset_config_names(repo, revision=revision)

    def load(self, config: str | None):
        """{split: table} of one configuration."""
        import datasets

        if config is not None and config not in self.configs:
            raise UserError(f"hf:{self.repo} has no configuration {config} (it has {', '.join(self.configs)}); expected "
                            "BEIR's layout: corpus, queries, and judgements in default or qrels.")  # fmt: skip
        return datasets.load_dataset(self.repo, config, revision=self.revision, cache_dir=self.cache)


def _cache_for(repo: str) -> contextlib.AbstractContextManager[str | None]:
    """The hub's own cache; for a local folder one that is thrown away.

    The library's cache knows a local folder by its last name alone, and would hand out what another folder of that name,
    or the same one before a change, held.
    """
    return tempfile.TemporaryDirectory() if Path(repo).exists() else contextlib.nullcontext()


def _only(name: str, config: str, tables):
    """BEIR keeps corpus and queries in one split each, named after themselves."""
    if len(tables) != 1:
        raise UserError(f"hf:{name} has its {config} in the splits {', '.join(tables)}; expected one, as BEIR publishes it. "
                        "Download it and use beir:PATH.")  # fmt: skip
    return next(iter(tables.values()))


def _rows(name: str, config: str, table) -> Iterator[tuple[str, dict]]:
    return ((f"hf:{name} {config} row {number}", row) for number, row in enumerate(table, 1))


def _qrels(name: str, split: str, table, bad: BadRows) -> Qrels:
    if missing := set(QRELS_COLUMNS) - set(table.column_names):
        raise UserError(f"hf:{name} judgements of {split} lack the columns {', '.join(sorted(missing))} (they have "
                        f"{', '.join(table.column_names)}); expected {', '.join(QRELS_COLUMNS)}.")  # fmt: skip
    return collect_qrels(((where, [row[c] for c in QRELS_COLUMNS]) for where, row in _rows(name, split, table)), bad)
