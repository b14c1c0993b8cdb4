"""One resolver for data: `builtin:NAME` (stdlib, stdlib-small, packages), `beir:PATH`, `rows:FILE`, `hf:NAME[@REVISION]`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from research.data import row_source, stdlib
from research.data.beir import beir_splits, read_beir
from research.data.hub import load_hub
from research.data.qrels import check_qrels
from research.data.rows import SKIPPING, BadRows, refuse_missing
from research.data.tables import is_table, parts_of
from research.errors import UserError, near_file, suggest
from research.progress import say
from research.runs.hashes import hash_strings
from research.types import Collection, Corpus, Qrels, Queries

BUILTIN = {"stdlib": stdlib.stdlib_pairs, "stdlib-small": stdlib.small_stdlib_pairs, "packages": stdlib.package_pairs}


class Source(NamedTuple):
    """Everything a source holds: corpus, all queries, and the judgements of every split."""

    corpus: Corpus
    queries: Queries
    qrels: dict[str, Qrels]


def parse_source(name: str) -> tuple[str, str]:
    """`beir:PATH` → ("beir", PATH), checked as far as possible without reading the data.

    Raises:
        UserError: unknown kind, nothing after the colon, unknown builtin, or a BEIR folder that is not there.
    """
    kind, _, rest = name.partition(":")
    if kind == "rows" and rest:
        row_source.parse_rows(name)
        return kind, rest
    if is_table(name) and not Path(name).is_dir():
        raise UserError(
            f"data source {name!r} is a file without its kind; expected rows:{name} for rows of a query and what is relevant "
            "to it. Write that."
        )
    if name and Path(name).is_dir():
        raise UserError(
            f"data source {name!r} is a folder without its kind; expected beir:{name} for a BEIR folder, "
            f"rows:{name} for one of training rows. Write that."
        )
    if kind not in ("builtin", "beir", "hf") or not rest:
        near = "" if kind in ("builtin", "beir", "hf") else _near(name)
        raise UserError(
            f"data source {name!r} is not known; expected {', '.join(f'builtin:{known}' for known in BUILTIN)}, beir:PATH, "
            f"rows:FILE or hf:NAME[@REVISION].{near}"
        )
    if kind == "builtin" and rest not in BUILTIN:
        raise UserError(f"builtin data {rest!r} is not known; {suggest(rest, BUILTIN)}.")
    if kind == "beir":
        rest = str(Path(rest).expanduser())
    if kind == "beir" and not Path(rest).is_dir():
        wrong = "is a file" if Path(rest).exists() else "does not exist"
        raise UserError(
            f"BEIR folder {rest!r} {wrong}; expected a folder with corpus.jsonl, queries.jsonl and "
            "qrels/SPLIT.tsv. Check the path after beir: (it is taken from the folder you stand in)."
            f"{_near(rest)}"
        )
    return kind, rest


def _near(path: str) -> str:
    """Propose a source with its kind for a path that is none: the folder or the table that was meant."""
    near = Path(path) if Path(path).exists() else near_file(path)
    if near is None or not (near.is_dir() or is_table(str(near))):
        return ""
    return f" Did you mean {'beir' if near.is_dir() else 'rows'}:{near}?"


def check_source(name: str) -> None:
    """Refuse data of a training that are not on this machine, without reading them or loading torch.

    Raises:
        UserError: no such BEIR folder, or no such file of rows.
    """
    if name.startswith(("beir:", "rows:")):
        parse_source(name)
    elif is_table(name):
        for part in parts_of(name) or [name]:
            if not part.startswith(("hf:", "builtin:")) and not Path(part).exists():
                refuse_missing(Path(part))


def check_split(name: str, split: str) -> None:
    """Refuse a missing split before anything heavy is imported; `hf:` sources are only known once loaded.

    Raises:
        UserError: the source has no such split; those it has are listed.
    """
    kind, rest = parse_source(name)
    if kind == "rows":
        splits = row_source.parse_rows(name).splits
    else:
        splits = ["train", "dev", "test"] if kind == "builtin" else beir_splits(Path(rest)) if kind == "beir" else [split]
    if split not in splits:
        raise _no_split(name, split, splits)


def load(name: str, split: str, skip_bad_rows: bool = False, option: str = SKIPPING) -> Collection:
    """Read a source and take one split of it.

    Args:
        name: builtin:NAME | beir:PATH | rows:FILE | hf:NAME[@REVISION].
        split: a qrels file of the source.
        skip_bad_rows: leave rows that break their format out (counted in `notes`) instead of refusing them.
        option: how the user asks for that.

    Returns:
        A Collection: corpus {id: Document(title, text)}, queries {id: text} that the split judges, qrels
        {query id: {document id: relevance}}, and what a reader of the numbers must know.

    Raises:
        UserError: unknown source or split, missing file, bad row, no network for `hf:`.

    Example:
        >>> from research import load_data
        >>> data = load_data("beir:my-collection", "test")
        >>> len(data.corpus), len(data.queries), len(data.qrels)
        (30, 4, 4)
    """
    bad = BadRows(skip_bad_rows, option)
    return take(load_source(name, bad), name, split, bad)


def take(source: Source, name: str, split: str, bad: BadRows) -> Collection:
    """Return one split of a source that has been read.

    Args:
        source: as `load_source` read it.
        name: of the source, for messages and facts.
        split: a qrels file of the source.
        bad: what was skipped while reading.

    Raises:
        UserError: no such split, or nothing in it.
    """
    if split not in source.qrels:
        raise _no_split(name, split, source.qrels)
    qrels = source.qrels[split]
    queries = {query: text for query, text in source.queries.items() if query in qrels}
    if not source.corpus or not queries:
        raise UserError(
            f"{name} split {split!r} has {len(source.corpus)} documents and {len(queries)} judged queries; "
            "expected one of each or more. Add them, or name another split."
        )
    check_not_blank(name, source.corpus)
    notes: dict = {"leaks": leaks(source, split)}
    if bad.counts:
        notes["skipped_rows"] = dict(bad.counts)
    if bad.kept:
        notes["kept_rows"] = ", ".join(f"{count:,} {what}" for what, count in bad.kept.items())
    bad.say_counts(name)
    for other, counts in notes["leaks"].items():
        if counts["query_ids"] or counts["query_texts"]:
            say(
                f"warning: splits {split} and {other} share {counts['query_ids']} query ids and {counts['query_texts']} "
                f"query texts: nothing trained on one may be tested on the other"
            )
    fingerprint = _fingerprint(source.corpus, queries, qrels)
    unjudged = frozenset(source.queries.keys() - queries.keys())
    return Collection(name, split, source.corpus, queries, qrels, fingerprint, notes, unjudged)


def check_relevant(data: Collection) -> Collection:
    """Return `data`, or refuse it if no query has a relevant document: then no metric is defined.

    Raises:
        UserError: every grade is 0 or less.
    """
    if not any(grade > 0 for docs in data.qrels.values() for grade in docs.values()):
        raise UserError(
            f"{data.source} split {data.split!r} judges no document relevant for any of its {len(data.qrels)} "
            "queries; expected a grade above 0. Judge one, or name another split."
        )
    return data


def load_source(name: str, bad: BadRows) -> Source:
    """Read and check every split of a source."""
    kind, rest = parse_source(name)
    if kind == "builtin":
        return Source(*stdlib.collection(BUILTIN[rest]()))
    if kind == "rows":
        return Source(*row_source.collection(name, bad))
    source = Source(*(read_beir(Path(rest), bad) if kind == "beir" else load_hub(rest, bad)))
    checked = {
        split: check_qrels(f"{name} split {split}", qrels, source.corpus, source.queries, bad)
        for split, qrels in source.qrels.items()
    }
    return source._replace(qrels=checked)


def leaks(source: Source, split: str) -> dict[str, dict[str, int]]:
    """Count what `split` shares with each other split: query ids, normalised query texts, relevant documents.

    Shared documents are usual in retrieval (one corpus for all); shared queries make a test meaningless.
    """

    def texts(qrels: Qrels) -> set[str]:
        return {stdlib.normalise(source.queries[query]) for query in qrels}

    def relevant(qrels: Qrels) -> set[str]:
        return {doc for docs in qrels.values() for doc, grade in docs.items() if grade > 0}

    mine = source.qrels[split]
    return {
        other: {
            "query_ids": len(mine.keys() & qrels.keys()),
            "query_texts": len(texts(mine) & texts(qrels)),
            "documents": len(relevant(mine) & relevant(qrels)),
        }
        for other, qrels in source.qrels.items()
        if other != split
    }


def check_not_blank(name: str, corpus: Corpus) -> None:
    """Refuse a corpus without any text.

    Raises:
        UserError: as said.
    """
    if not any(doc.content.strip() for doc in corpus.values()):
        raise UserError(f"{name} has {len(corpus)} documents, and each is blank; expected a title or a text. Add them.")


def _no_split(name: str, split: str, known: object) -> UserError:
    if not list(known):
        return UserError(
            f"{name} has no split {split!r}, nor any other; expected one .tsv file a split in its folder "
            f"qrels. Add qrels/{split}.tsv."
        )
    return UserError(f"{name} has no split {split!r}; {suggest(split, list(known))}. Pass one of them as --split.")


def _fingerprint(corpus: Corpus, queries: Queries, qrels: Qrels) -> str:
    def parts() -> Iterator[str]:
        for doc_id, doc in corpus.items():
            yield from (doc_id, *doc)
        for query_id, text in queries.items():
            yield from (query_id, text, repr(sorted(qrels[query_id].items())))

    return hash_strings(parts())
