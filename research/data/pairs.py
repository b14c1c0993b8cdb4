"""Query-document pairs for the dual encoder: one example for each judged pair, in-batch ids for masking, hard negatives."""

import random

import torch
from torch import nn
from torch.utils.data import Dataset

from research.data.chunks import CHUNK_TOKENS, chunked
from research.data.queries import (
    RetrievalData,
    RowOptions,
    TrainingQuery,
    count_by_text,
    holds_rows,
    join_known,
    load_training,
    load_validation,
)
from research.data.rows import evenly_spaced
from research.data.shapes.columns import check_columns
from research.errors import UserError
from research.ranges import NonNegativeInt, PositiveInt, TwoOrMore
from research.types import NO_ID, Collection, Corpus, Pair, PairBatch

NEGATIVES = 7  # that a query takes by default: with its positive a group of 8, as tevatron and FlagEmbedding have it


class PairDataset(Dataset):
    """Pairs of a query and one of its relevant documents.

    Args:
        queries: with positives and negatives.
        corpus: the documents they name.
        hard_negatives: how many negatives an example takes, drawn anew in every epoch; fewer where a query has fewer.
        seed: of that draw.
    """

    def __init__(self, queries: list[TrainingQuery], corpus: Corpus, hard_negatives: int, seed: int):
        queries = join_known(queries, corpus)
        numbers: dict[str, int] = {}  # equal texts are one document: a copy of a positive is no negative
        named = {doc for query in queries for doc in (*query.positives, *query.negatives)}
        self.number = {doc: numbers.setdefault(corpus[doc].content, len(numbers)) for doc in corpus if doc in named}
        self.texts = list(numbers)
        self.queries, self.hard_negatives, self.seed = queries, hard_negatives, seed
        self.examples = [(i, doc) for i, query in enumerate(queries) for doc in query.positives]
        self.known = [self._numbers(query) for query in queries]
        self.widest = max(map(len, self.known))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> Pair:
        """Return the example `index` as it is in `epoch`: a function of (seed, epoch, index) alone."""
        epoch, index = key
        i, doc = self.examples[index]
        query = self.queries[i]
        known = self.known[i]
        negatives = [n for n in map(self.number.__getitem__, query.negatives) if n not in known]
        draw = random.Random(f"negatives {self.seed} {epoch} {index}")
        chosen = draw.sample(negatives, min(self.hard_negatives, len(negatives)))
        return Pair(query.text, self.number[doc], chosen, known)

    def _numbers(self, query: TrainingQuery) -> list[int]:
        """Return the numbers of all documents known to be relevant, the query's positives first."""
        others = sorted(self.number[doc] for doc in query.known or () if doc in self.number)
        return list(dict.fromkeys([*map(self.number.__getitem__, query.positives), *others]))


class PairCollate:
    """Makes a PairBatch of pairs.

    Args:
        texts: of the documents, by number.
        queries, docs: the towers (anything with tokenize and features).
        widest: positives of the query that has most.
        chunk_overhead: see `chunked`.
    """

    def __init__(self, texts: list[str], queries: nn.Module, docs: nn.Module, widest: int, chunk_overhead: int | None):
        self.texts, self.queries, self.docs, self.widest = texts, queries, docs, widest
        self.chunk_overhead = chunk_overhead

    def __call__(self, pairs: list[Pair]) -> PairBatch:
        numbers = [pair.positive for pair in pairs] + [n for pair in pairs for n in pair.negatives]
        positive_ids = torch.full((len(pairs), self.widest), NO_ID)
        for row, pair in zip(positive_ids, pairs, strict=True):
            row[: len(pair.known)] = torch.tensor(pair.known)
        return PairBatch(
            queries=self._tokens(self.queries, [pair.query for pair in pairs], "query"),
            docs=self._tokens(self.docs, [self.texts[n] for n in numbers], "doc"),
            doc_ids=torch.tensor(numbers),
            positive_ids=positive_ids,
        )

    def _tokens(self, tower: nn.Module, texts: list[str], role: str):
        return chunked(tower.tokenize(texts, role), len, tower.features, self.chunk_overhead)


class PairData(RetrievalData):
    """Training pairs and the collections that the model is validated and tested on.

    Args:
        train: data source (builtin:stdlib, beir:PATH, rows:FILE, hf:NAME), or training rows, which are all trained on: a file
            (*.jsonl, *.json, *.csv, *.tsv, *.parquet, each but the last also .gz), several with commas between, a folder, or
            hf:NAME[:CONFIG][@REVISION]; of `research mine`, or in a shape of docs/retrieval-data.md.
        train_split: of the source, hub set or folder.
        val: data source of the validation; None takes `train`.
        val_split: None trains without validation.
        test_split: for `research test`.
        test: data source of the test; None takes that of the validation.
        batch_size: queries a process and step; every other document of the (global) batch is a negative.
        hard_negatives: negatives a query from the training rows, 0 or more; None takes as many as they hold, up to 7.
        chunk_overhead: a batch is encoded in chunks of similar length; what one more costs, in tokens (512 suits a CPU, some
            8,000 a GPU). Exact, only faster or slower. None: the whole batch at once.
        without_fold: "0/2" leaves out fold 0 of 2 (`research mine --folds`).
        limit: train on that many queries, spread evenly.
        val_documents: validate on that many documents; None on all.
        drop_last: leave out the last, smaller batch of an epoch.
        workers: processes that tokenise ahead; 0 tokenises between steps.
        skip_bad_rows: leave malformed rows out, counted.
        seed: of order and negatives.
        columns: of training rows, where their shape is not known by names: role (query, positive, negative, label, query_id) →
            column, or a list of columns.
        positive_from: of rows with a label or score: from which on a pair is positive; None takes 0 and 1 alone.
        corpus_file, queries_file: texts of the documents and queries that rows name by ids (MS MARCO's collection.tsv).
    """

    gives = PairBatch
    decides = ("hard_negatives",)

    def __init__(
        self,
        train: str = "builtin:stdlib",
        train_split: str = "train",
        val: str | None = None,
        val_split: str | None = "dev",
        test_split: str | None = "test",
        batch_size: TwoOrMore = 64,
        hard_negatives: NonNegativeInt | None = None,
        chunk_overhead: NonNegativeInt | None = CHUNK_TOKENS,
        without_fold: str | None = None,
        limit: PositiveInt | None = None,
        val_documents: int | None = None,
        drop_last: bool = True,
        workers: NonNegativeInt = 0,
        skip_bad_rows: bool = False,
        seed: int = 0,
        columns: dict[str, str | list[str]] | None = None,
        positive_from: float | None = None,
        corpus_file: str | None = None,
        queries_file: str | None = None,
        test: str | None = None,
    ):
        super().__init__(batch_size, chunk_overhead, drop_last, workers, skip_bad_rows, seed)
        check_columns(columns)
        rows = holds_rows(train)
        if rows and val is None and (val_split or (test_split and test is None)):
            raise UserError(
                f"train={train} is a file of training rows, which has no splits to validate on; expected train=rows:{train}, "
                "which holds rows out for dev and test, val=SOURCE, or val_split=null and test_split=null. Write one of them."
            )
        options = RowOptions(columns, positive_from, corpus_file, queries_file)
        self.queries, self.corpus, self.fingerprint = load_training(
            train, train_split, without_fold, limit, skip_bad_rows, options
        )
        if hard_negatives and not any(query.negatives for query in self.queries):
            data, split = ("SOURCE", "NAME") if rows else (train, train_split)
            raise UserError(
                f"hard_negatives={hard_negatives}, but {train} holds none; expected a triplets file. Make "
                f"one: research mine --data {data} --split {split} --retriever MODEL --out negatives.jsonl; then "
                "train on it."
            )
        if hard_negatives is None:
            hard_negatives = min(NEGATIVES, max(len(query.negatives) for query in self.queries))
        self.hard_negatives = int(hard_negatives)
        self.sources = {"val": val or train, "test": test or val or train}
        self.val_split, self.test_split, self.val_documents = val_split, test_split, val_documents
        self.dataset = PairDataset(self.queries, self.corpus, hard_negatives, seed)
        if val_split is not None:
            self.collections["val"] = self.load("val", val_split)
        self.shared = self.count_shared(self.collections)

    def describe(self) -> dict:
        """Describe what the training reads, for provenance."""
        facts = {"train": self.fingerprint, "queries": len(self.queries), "examples": len(self.dataset)}
        facts |= count_by_text(self.queries)
        return facts | {name: data.fingerprint for name, data in self.collections.items()} | self.shared

    def notes(self) -> list[str]:
        """Return lines that say how many of the rows' hard negatives a query takes."""
        counts, taken = [len(query.negatives) for query in self.queries], self.hard_negatives
        if not (most := max(counts)):
            return []
        if not taken:
            return [f"no hard negatives: data.hard_negatives is 0, and the rows hold up to {most} a query that are not used"]
        fewer = sum(count < taken for count in counts)
        return [
            f"{taken} hard negative{'s' if taken > 1 else ''} a query"
            + (f" (fewer for {fewer:,} that have fewer)" if fewer else "")
            + (f", drawn in each epoch of the up to {most} that the rows hold (data.hard_negatives)" if most > taken else "")
        ]

    def training_texts(self, most: int) -> dict[str, tuple[list[str], int]]:
        """Return up to `most` of the documents and queries that are trained on, evenly spread, and how many there are."""
        number, texts = self.dataset.number, self.dataset.texts
        named = {number[doc] for q in self.queries for doc in (*q.positives, *(q.negatives if self.hard_negatives else ()))}
        queries = [*dict.fromkeys(query.text for query in self.queries)]
        return {
            "documents": ([texts[n] for n in evenly_spaced(sorted(named), most)], len(named)),
            "queries": (evenly_spaced(queries, most), len(queries)),
        }

    def collate(self, model: nn.Module) -> PairCollate:
        """Return what makes batches for this model."""
        return PairCollate(self.dataset.texts, model.query, model.doc, self.dataset.widest, self.chunk_overhead)

    def load(self, name: str, split: str) -> Collection:
        """Load the collection of a split; for validation with val_documents only a sample of its documents."""
        return load_validation(self.sources[name], split, self.val_documents if name == "val" else None, self.skip_bad_rows)
