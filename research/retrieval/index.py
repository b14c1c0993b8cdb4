"""Nearest documents of a query: exact search in blocks, and HNSW with a sidecar that refuses a mismatched index.

Scores are similarities (dot product or cosine, higher is better); hnswlib's distances do not leave this file.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from research.errors import UserError
from research.models.inference import best_device
from research.progress import bar
from research.runs.disk import disk_error, require_space
from research.runs.files import write_json
from research.runs.hashes import hash_file, hash_strings
from research.runs.locks import exclusive
from research.runs.reading import read_json
from research.types import Run

BLOCK = 2**16  # documents scored at once
QUERY_BLOCK = 1024  # × BLOCK float32 scores = 256 MiB
ADD_CHUNK = 1000  # vectors added between two updates of the progress bar
SIDECAR = "index.json"
HNSW_SEED = 100
SCORE_ROUNDING = 1e-6  # by which hnswlib's float32 sums differ from the matrix product's


def exact_search(
    queries: np.ndarray, docs: np.ndarray, top_k: int, cosine: bool = False, ids: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The top_k documents of each query by float32 inner product (or cosine), computed block by block.

    Args:
        queries: (Q, D).
        docs: (N, D), may be memory-mapped; a block at a time is read.
        top_k: 1 to N.
        cosine: divide by the norms.
        ids: (N,) document ids. Of documents tied at the cut those with the larger ids are kept, as trec_eval ranks them;
            without ids, those further down.

    Returns:
        scores (Q, top_k), descending, and positions (Q, top_k) in `docs`.

    Raises:
        UserError: the dimensions differ.
    """
    _check_dims(queries, docs)
    assert 1 <= top_k <= len(docs)
    device = best_device()
    q = _unit(torch.from_numpy(queries), cosine).to(device)
    wanted = min(top_k + 1, len(docs))  # one more, to see whether the cut falls into a tie
    scores = torch.empty((len(q), 0), device=device)
    positions = torch.empty((len(q), 0), dtype=torch.long, device=device)
    # validation calls this inside Lightning's bf16 context, which would round the scores to bf16 and rank by their ties
    with bar(len(docs), "exact search", "doc") as progress, torch.autocast(device.type, enabled=False):
        for start, block in _blocks(docs, cosine, device):
            found = [_top(part @ block.T, wanted) for part in q.split(QUERY_BLOCK)]
            scores = torch.cat([scores, torch.cat([s for s, _ in found])], dim=1)  # (Q, ≤ 2 · wanted)
            positions = torch.cat([positions, torch.cat([p for _, p in found]) + start], dim=1)
            scores, order = _top(scores, wanted)
            positions = positions.gather(1, order)
            progress.update(len(block))
    if wanted > top_k:
        gap = scores[:, top_k - 1] - scores[:, top_k]
        for row in (gap <= _rounding(scores[:, top_k])).nonzero().flatten().tolist():
            settled = _settle_tie(q[row], docs, top_k, cosine, ids, exactly=not gap[row])
            if settled is not None:
                scores[row, :top_k], positions[row, :top_k] = (part.to(device) for part in settled)
    found, places = scores[:, :top_k].cpu().numpy(), positions[:, :top_k].cpu().numpy()
    _level_copies(found, places, docs)
    return found, places


def pair_scores(queries: np.ndarray, docs: np.ndarray, cosine: bool = False) -> np.ndarray:
    """Inner product (or cosine) of each query with the document of the same row.

    Args:
        queries, docs: (N, D).
        cosine: divide by the norms.

    Returns:
        (N,) float32, as `exact_search` scores them up to rounding.
    """
    _check_dims(queries, docs)
    q, d = (_unit(torch.from_numpy(np.array(vectors)), cosine) for vectors in (queries, docs))
    return (q * d).sum(dim=1).numpy()


class HnswIndex:
    """A hnswlib graph and the facts it was built from.

    Args:
        graph: the hnswlib index.
        sidecar: what `build` recorded.
    """

    def __init__(self, graph: Any, sidecar: dict):
        self.graph = graph
        self.sidecar = sidecar

    @classmethod
    def build(
        cls,
        folder: Path,
        docs: np.ndarray,
        ids: Sequence[str],
        *,
        cosine: bool = False,
        M: int = 16,
        ef_construction: int = 200,
        seed: int = HNSW_SEED,
        threads: int = 1,
        facts: dict | None = None,
    ) -> "HnswIndex":
        """Build and save, or open what an earlier build of the same facts left in `folder`.

        Args:
            folder: receives index.bin and index.json.
            docs: (N, D) embeddings.
            ids: (N,) document ids, in the order of the rows.
            cosine: cosine instead of inner product.
            M: links a node; memory and recall grow with it (Malkov & Yashunin 2020).
            ef_construction: width of the search while building.
            seed: of the levels.
            threads: more than 1 is faster, and no two builds are then alike: not for reported numbers.
            facts: what else a search must agree with: model hash, prompt, normalisation, store key.
        """
        expected = {
            "space": "cosine" if cosine else "ip",
            "dim": docs.shape[1],
            "count": len(docs),
            "M": M,
            "ef_construction": ef_construction,
            "seed": seed,
            "threads": threads,
            "ids": hash_strings(ids),
            **(facts or {}),
        }
        if (folder / SIDECAR).exists():  # finished work needs no lock: it may lie on a disk that cannot be written
            return cls.load(folder, expected)
        with exclusive(folder):
            if (folder / SIDECAR).exists():
                return cls.load(folder, expected)
            require_space(folder, len(docs) * (docs.shape[1] * 4 + M * 8 + 16), f"an HNSW index of {len(docs):,} documents")
            start = time.perf_counter()
            graph = _graph(expected["space"], docs.shape[1])
            graph.init_index(max_elements=len(docs), M=M, ef_construction=ef_construction, random_seed=seed)
            with bar(len(docs), "build HNSW", "doc") as progress:
                for at in range(0, len(docs), ADD_CHUNK):
                    chunk = np.array(docs[at : at + ADD_CHUNK])
                    graph.add_items(chunk, np.arange(at, at + len(chunk)), num_threads=threads)
                    progress.update(len(chunk))
            temporary = folder / "index.bin.tmp"
            try:
                graph.save_index(str(temporary))
                size = temporary.stat().st_size if temporary.exists() else 0
                if size != graph.index_file_size():  # hnswlib does not look whether its writes succeed
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                sidecar = {
                    **expected,
                    "bytes": size,
                    "sha256": hash_file(temporary),
                    "build_seconds": round(time.perf_counter() - start, 3),
                }
                temporary.replace(folder / "index.bin")
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise disk_error(error, folder / "index.bin") from error
            write_json(folder / SIDECAR, sidecar)
        return cls(graph, sidecar)

    @classmethod
    def load(cls, folder: Path, expected: dict[str, Any]) -> "HnswIndex":
        """Open an index if its sidecar agrees with `expected` in every value.

        hnswlib itself keeps no record of space, normalisation or ids and loads a cosine index as `ip` without a word.

        Raises:
            UserError: missing, damaged, or built from something else (the differing values are listed).
        """
        sidecar = read_json(folder / SIDECAR)
        if not isinstance(sidecar, dict) or not {"bytes", "sha256", "build_seconds"} <= sidecar.keys():
            raise UserError(
                f"{folder / SIDECAR} is not one this tool wrote; expected an object with bytes, sha256 and "
                f"build_seconds. Delete {folder} to build it again."
            )
        wrong = [
            f"{name} is {sidecar.get(name)!r}, expected {value!r}"
            for name, value in expected.items()
            if sidecar.get(name) != value
        ]
        if wrong:
            raise UserError(
                f"index {folder} does not match: {'; '.join(wrong)}. Name the index of these embeddings, or "
                "delete the folder to build it again."
            )
        binary = folder / "index.bin"
        if not binary.exists() or binary.stat().st_size != sidecar["bytes"]:
            raise UserError(
                f"{binary} is missing or has another size than its sidecar says ({sidecar['bytes']} bytes); "
                f"delete {folder} to build it again."
            )
        if hash_file(binary) != sidecar["sha256"]:  # hnswlib would crash on some bytes and search others
            raise UserError(
                f"{binary} has other bytes than its sidecar says, expected sha256 {sidecar['sha256'][:12]}…; "
                f"delete {folder} to build it again."
            )
        graph = _graph(sidecar["space"], sidecar["dim"])
        graph.load_index(str(binary), max_elements=sidecar["count"])
        return cls(graph, sidecar)

    def search(self, queries: np.ndarray, top_k: int, ef: int) -> tuple[np.ndarray, np.ndarray]:
        """Approximate top_k of each query: scores (Q, top_k), descending, and positions (Q, top_k).

        Raises:
            UserError: ef is below top_k (hnswlib would raise it silently), or the graph cannot give top_k results.
        """
        if ef < top_k:
            raise UserError(f"top_k={top_k} exceeds ef={ef}; pass --ef {top_k} or more.")
        _check_dims(queries, np.empty((0, self.sidecar["dim"])))
        self.graph.set_ef(ef)  # not saved with the index: set at every search
        try:
            positions, distances = self.graph.knn_query(queries, k=top_k, num_threads=1)
        except RuntimeError as error:
            raise UserError(
                f"HNSW found fewer than top_k={top_k} documents ({error}); pass a larger --ef, or --index exact."
            ) from None
        return 1 - distances, positions.astype(np.int64)


def ann_recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the approximate top k that is as good as the exact top k, over all queries.

    Scores are compared, not positions: of equal documents either is right.

    Args:
        found: (Q, K) scores of the approximate search.
        exact: (Q, K) scores of the exact search, descending.

    Source: ann-benchmarks' recall by threshold, Aumüller et al. 2020, §2.2.
    """
    threshold = exact[:, -1:] - SCORE_ROUNDING * np.maximum(1, np.abs(exact[:, -1:]))
    return float((found >= threshold).mean())


def to_run(query_ids: Sequence[str], doc_ids: Sequence[str], scores: np.ndarray, positions: np.ndarray) -> Run:
    """(Q, K) arrays → {query id: {doc id: score}}, best first, ties by descending id as trec_eval ranks them."""
    run: Run = {}
    for query, row_positions, row_scores in zip(query_ids, positions.tolist(), scores.tolist(), strict=True):
        ranked = sorted(((s, doc_ids[p]) for s, p in zip(row_scores, row_positions, strict=True)), reverse=True)
        run[query] = {doc: score for score, doc in ranked}
    return run


def _blocks(docs: np.ndarray, cosine: bool, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(docs), BLOCK):
        yield start, _unit(torch.from_numpy(np.array(docs[start : start + BLOCK])), cosine).to(device)


def _settle_tie(
    query: torch.Tensor, docs: np.ndarray, top_k: int, cosine: bool, ids: Sequence[str] | None, exactly: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Scores and positions of one query's top_k where documents tie at the cut: the larger ids are kept.

    Args:
        exactly: the scores at the cut are equal; else they are so but for rounding, which counts where the documents are equal.

    Returns:
        None where nothing ties.
    """
    scores = torch.cat([(block @ query).cpu() for _, block in _blocks(docs, cosine, query.device)])  # (N,)
    floor = scores.topk(top_k).values[-1]
    near = ((scores - floor).abs() <= _rounding(floor)).nonzero().flatten()
    near = near[scores[near].argsort(descending=True, stable=True)]
    levelled, copies = _level(scores[near].numpy(), near.numpy(), docs)
    if not copies and not exactly:
        return None
    scores[near] = torch.from_numpy(levelled)
    candidates = (scores >= scores.topk(top_k).values[-1]).nonzero().flatten().tolist()
    best = sorted(candidates, key=lambda p: (scores[p].item(), ids[p] if ids is not None else p), reverse=True)[:top_k]
    chosen = torch.tensor(best)
    return scores[chosen], chosen


def _level_copies(scores: np.ndarray, positions: np.ndarray, docs: np.ndarray) -> None:
    """Give equal documents one score, in place: in a matrix product their columns can differ in the last digit, by where they
    lie and by which other queries are searched, and the order of a tie would depend on it.

    Args:
        scores, positions: (Q, K), scores descending.
        docs: (N, D).
    """
    close = scores[:, :-1] - scores[:, 1:] <= _rounding(scores[:, 1:])  # (Q, K − 1)
    for row in np.flatnonzero((close & (scores[:, :-1] != scores[:, 1:])).any(axis=1)):
        for start, end in _stretches(close[row]):
            scores[row, start:end], _ = _level(scores[row, start:end], positions[row, start:end], docs)
        order = np.argsort(-scores[row], kind="stable")
        scores[row], positions[row] = scores[row, order], positions[row, order]


def _level(scores: np.ndarray, positions: np.ndarray, docs: np.ndarray) -> tuple[np.ndarray, bool]:
    """The scores (K,), of equal documents the first one's, and whether there are equal ones."""
    first: dict[bytes, float] = {}
    rows = [np.ascontiguousarray(docs[position]).tobytes() for position in positions]
    levelled = [first.setdefault(row, score) for row, score in zip(rows, scores, strict=True)]
    return np.array(levelled, scores.dtype), len(first) < len(rows)


def _stretches(close: np.ndarray) -> Iterator[tuple[int, int]]:
    """[start, end) of each longest stretch of places, two or more, each of which is close to the next."""
    start = 0
    for at in range(1, len(close) + 2):
        if at == len(close) + 1 or not close[at - 1]:
            if at - start > 1:
                yield start, at
            start = at


def _rounding(scores: Any) -> Any:
    """By how much scores may differ that are equal but for rounding."""
    return SCORE_ROUNDING * abs(scores).clip(1)


def _graph(space: str, dim: int) -> Any:
    """An empty hnswlib.Index. Imported here: exact search and training need no hnswlib, which has to be compiled."""
    import hnswlib

    return hnswlib.Index(space=space, dim=dim)


def _top(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    return scores.topk(min(k, scores.shape[1]), dim=1)


def _unit(vectors: torch.Tensor, cosine: bool) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=1) if cosine else vectors.float()


def _check_dims(queries: np.ndarray, docs: np.ndarray) -> None:
    if queries.shape[1] != docs.shape[1]:
        raise UserError(
            f"queries have dimension {queries.shape[1]}, the index {docs.shape[1]}; encode both with towers of one model."
        )
