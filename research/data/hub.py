"""`hf:NAME[:CONFIG][@REVISION]`: a dataset of the Hugging Face hub, or a local folder in its layout, as BEIR publishes them.

Configurations `corpus` and `queries`; judgements in `default` or `qrels`, or in the dataset NAME-qrels, whose revision
is the second one of `@REVISION,REVISION`.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from research.data.beir import collect_corpus, collect_queries
from research.data.qrels import HEADER, collect_qrels
from research.data.rows import BadRows, datasets_library
from research.data.splits import split_names
from research.data.table_files import without_nulls
from research.errors import UserError, suggest
from research.types import Corpus, Qrels, Queries

QRELS_COLUMNS = ("query-id", "corpus-id", "score")


def load_hub(name: str, bad: BadRows) -> tuple[Corpus, Queries, dict[str, Qrels]]:
    """Load corpus, queries, and the judgements of every split.

    Args:
        name: what stands after `hf:`.
        bad: what to do with bad rows.

    Raises:
        UserError: not found, no network, another layout, a bad row.
    """
    repo, revision, qrels_revision = _collection(name)
    with _errors(name, "beir:PATH"), _cache_for(repo) as cache:
        tables = _Tables(repo, revision, cache)
        judged = next((config for config in ("default", "qrels") if config in tables.configs), None)
        judgements = tables.load(judged) if judged else _Tables(f"{repo}-qrels", qrels_revision, cache).load(None)
        corpus, queries = _texts(name, tables, bad)
        return corpus, queries, {split: _qrels(name, split, part, bad) for split, part in judgements.items()}


def load_hub_texts(name: str, bad: BadRows, queries: bool = True) -> tuple[Corpus, Queries]:
    """Load corpus and queries, judged or not.

    Args:
        name: what stands after `hf:`.
        bad: what to do with bad rows.
        queries: read them too; else there are none.

    Raises:
        UserError: as `load_hub`.
    """
    repo, revision, _ = _collection(name)
    with _errors(name, "beir:PATH"), _cache_for(repo) as cache:
        return _texts(name, _Tables(repo, revision, cache), bad, queries)


def _collection(name: str) -> tuple[str, str | None, str | None]:
    """Parse NAME[@REVISION,REVISION] as repository, its revision, and that of its judgements."""
    repo, config, revisions = parse_name(name)
    if config:
        raise UserError(
            f"hf:{name} names the configuration {config!r}; expected a collection, whose corpus, queries and "
            f"judgements are configurations of their own. Write hf:{repo}{f'@{revisions}' if revisions else ''}, "
            "or train on its rows."
        )
    revision, _, qrels_revision = (revisions or "").partition(",")
    return repo, revision or None, qrels_revision or None


def _texts(name: str, tables: "_Tables", bad: BadRows, queries: bool = True) -> tuple[Corpus, Queries]:
    corpus = collect_corpus(_rows(name, "corpus", _only(name, "corpus", tables.load("corpus"))), bad)
    if not queries:
        return corpus, {}
    return corpus, collect_queries(_rows(name, "queries", _only(name, "queries", tables.load("queries"))), bad)


def read_rows(name: str, split: str | None) -> Iterator[tuple[str, dict]]:
    """Yield (`hf:NAME SPLIT row N`, row) of one split of any dataset, or of slices of splits.

    Args:
        name: what stands after `hf:`, NAME[:CONFIG][@REVISION].
        split: `train`, `train[:10%]`, `train+test[:100]`; None takes the only one.

    Raises:
        UserError: not found, no network, no such split, or one of several configurations is meant and none is named.
    """
    datasets = datasets_library(f"hf:{name}")
    repo, config, revision = parse_name(name)
    with _errors(name, "a JSONL file"), _cache_for(repo) as cache:
        tables = _Tables(repo, revision, cache)
        if config is None:
            config = datasets.get_dataset_default_config_name(repo, revision=revision)
        if config not in tables.configs:
            named = f"no configuration {config!r}" if config else f"{len(tables.configs)} configurations and none is named"
            raise UserError(
                f"hf:{name} has {named}; {suggest(config or '', tables.configs)}. Name one: "
                f"hf:{repo}:{tables.configs[0]}{f'@{revision}' if revision else ''}."
            )
        splits = tables.load(config)
        if split is None and len(splits) == 1:
            split = next(iter(splits))
        for wanted in split_names(str(split)):
            if wanted not in splits:
                raise UserError(f"hf:{name} has no split {wanted!r}; {suggest(wanted, list(splits))}. Name one of them.")
        rows = splits[split] if split in splits else tables.load(config, split)
        yield from ((f"hf:{name} {split} row {number}", without_nulls(row)) for number, row in enumerate(rows, 1))


def parse_name(name: str) -> tuple[str, str | None, str | None]:
    """Parse NAME[:CONFIG][@REVISION] as its three parts; a folder may have these signs in its own name."""
    if Path(name).exists():
        return name, None, None
    repo, _, revision = name.partition("@")
    if Path(repo).exists():
        return repo, None, revision or None
    repo, _, config = repo.partition(":")
    return repo, config or None, revision or None


def is_collection(name: str) -> bool:
    """Return whether a dataset is in BEIR's layout, with corpus and queries; otherwise its rows are training data.

    Raises:
        UserError: not found, or no network.
    """
    repo, config, revision = parse_name(name)
    with _errors(name, "beir:PATH or a JSONL file"), _cache_for(repo) as cache:
        revision = revision and revision.partition(",")[0]
        return config is None and {"corpus", "queries"} <= {*_Tables(repo, revision, cache).configs}


@contextlib.contextmanager
def _errors(name: str, instead: str) -> Iterator[None]:
    """Turn errors of the hub's libraries into a UserError that names what works without a network."""
    datasets_error = datasets_library(f"hf:{name}").exceptions.DatasetsError
    try:
        yield
    except (datasets_error, OSError, ValueError, ImportError) as error:  # ConnectionError and the hub's errors are OSErrors
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"hf:{name} could not be loaded ({type(error).__name__}: {reason}); expected a dataset of the hub "
            "or a local folder in its layout. Check the name, the revision after @, and the network; without "
            f"one use {instead}."
        ) from None


class _Tables:
    """The configurations of one dataset repository."""

    def __init__(self, repo: str, revision: str | None, cache: str | None):
        self.repo, self.revision, self.cache = repo, revision, cache
        self.datasets = datasets_library(f"hf:{repo}")
        self.configs = self.datasets.get_dataset_config_names(repo, revision=revision)

    def load(self, config: str | None, split: str | None = None):
        """Load {split: table} of one configuration; the table of a slice if one is named."""
        if config is not None and config not in self.configs:
            raise UserError(
                f"hf:{self.repo} has no configuration {config} (it has {', '.join(self.configs)}); expected "
                "BEIR's layout: corpus, queries, and judgements in default or qrels."
            )
        return self.datasets.load_dataset(self.repo, config, revision=self.revision, cache_dir=self.cache, split=split)


def _cache_for(repo: str) -> contextlib.AbstractContextManager[str | None]:
    """Return the hub's own cache; for a local folder a temporary one.

    The library's cache knows a local folder by its last name alone, and would hand out what another folder of that name,
    or the same one before a change, held.
    """
    return tempfile.TemporaryDirectory() if Path(repo).exists() else contextlib.nullcontext()


def _only(name: str, config: str, tables):
    """Return the table of the only split: BEIR keeps corpus and queries in one split each, named after themselves."""
    if len(tables) != 1:
        raise UserError(
            f"hf:{name} has its {config} in the splits {', '.join(tables)}; expected one, as BEIR publishes it. "
            "Download it and use beir:PATH."
        )
    return next(iter(tables.values()))


def _rows(name: str, config: str, table) -> Iterator[tuple[str, dict]]:
    return ((f"hf:{name} {config} row {number}", row) for number, row in enumerate(table, 1))


def _qrels(name: str, split: str, table, bad: BadRows) -> Qrels:
    named = [*HEADER[:1], *HEADER[2:]]  # by other names too, as in files
    columns = [next((column for column in table.column_names if name.fullmatch(column.lower())), None) for name in named]
    if {*QRELS_COLUMNS} <= {*table.column_names}:
        columns = QRELS_COLUMNS
    if None in columns:
        missing = set(QRELS_COLUMNS) - set(table.column_names)
        raise UserError(
            f"hf:{name} judgements of {split} lack the columns {', '.join(sorted(missing))} (they have "
            f"{', '.join(table.column_names)}); expected {', '.join(QRELS_COLUMNS)}. Rename "
            "those that mean the same."
        )
    return collect_qrels(((where, [row[c] for c in columns]) for where, row in _rows(name, split, table)), bad)
