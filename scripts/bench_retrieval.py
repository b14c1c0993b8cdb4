#!/usr/bin/env python3
"""Encoding, reranking and training speed against sentence-transformers: same weights, texts, lengths and precision,
interleaved; training in processes that take turns (bench_training.py).

  python scripts/bench_retrieval.py            passages of squad (TANDEM_DATA), all-MiniLM-L6-v2; about 13 minutes on 2 cores
  python scripts/bench_retrieval.py --full     all passages, more rounds, and HNSW against exact search at 100,000 vectors
  python scripts/bench_retrieval.py --random-weights --device cuda     needs neither model file nor data

Each ratio is our throughput over the peer's, the median of A B A B pairs. sentence-transformers runs at every batch size
of --peer-batch-sizes first, and its best one is the peer. peak_share is the useful arithmetic (real tokens only) over the
fastest plain matrix product of the same precision in the same process.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bench_training import TASKS, bench_training
from benching import ROOT
from benching.device import peak_flops, synchronize
from benching.shapes import encoder_folder, forward_flops, reranker_of, texts_of
from benching.turns import counts, profiler

from research.data.rows import evenly_spaced
from research.models.dual_encoder import load_encoder
from research.models.folder import DTYPES
from research.models.inference import for_inference
from research.models.sources import MINILM, resolve
from research.retrieval.encode import encode_texts


def texts_of_squad(count: int) -> list[str]:
    path = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data")) / "squad" / "corpus.jsonl"
    if not path.exists():
        sys.exit(f"error: {path} does not exist; set TANDEM_DATA, or pass --random-weights for made-up texts")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return evenly_spaced([f"{row['title']} {row['text']}" for row in rows], count)  # each article and length has its share


class Call(NamedTuple):
    """What a call took: seconds until the device was done, and GiB of the card beside what was there before (0 on a CPU)."""

    seconds: float
    gib: float


def timed(function: Callable[[], object], device: str) -> Call:
    before = 0
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    function()
    synchronize(device)
    seconds = time.perf_counter() - start
    return Call(seconds, (torch.cuda.max_memory_allocated() - before) / 2**30 if device == "cuda" else 0.0)


def launches(function: Callable[[], object], device: str) -> dict:
    """Count launches and waits of one call; see benching.turns.counts."""
    with profiler(device) as profile:
        function()
        synchronize(device)
    return counts(profile, device)


def against(theirs: Callable[[int], object], ours: Callable[[], object], sizes: list[int], rounds: int, device: str) -> dict:
    """Time ours and the peer at its best batch size, in turns."""
    tried = {size: timed(lambda size=size: theirs(size), device).seconds for size in sizes}
    best = min(tried, key=tried.get)
    pairs = [(timed(lambda: theirs(best), device), timed(ours, device)) for _ in range(rounds)]
    ratios = [a.seconds / b.seconds for a, b in pairs]
    found = {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds": statistics.median(b.seconds for _, b in pairs),
        "peer_batch_size": best,
        "peer_seconds": statistics.median(a.seconds for a, _ in pairs),
    }
    if device == "cuda":
        gib, peer_gib = (max(call.gib for call in calls) for calls in zip(*[(b, a) for a, b in pairs], strict=True))
        found |= {"gib": round(gib, 3), "peer_gib": round(peer_gib, 3), "memory_ratio": round(gib / peer_gib, 3)}
    return found


def ratios_of(found: dict, what: str) -> dict:
    """Return the ratios of `against`, with `what` at the end of their names."""
    names = ("ratio", "range", "gib", "peer_gib", "memory_ratio")
    return {f"{name}_{what}": found[name] for name in names if name in found}


def bench_encode(
    folder: Path, texts: list[str], precision: str, device: str, rounds: int, sizes: list[int], peak: float | None = None
) -> dict:
    from sentence_transformers import SentenceTransformer

    dtype = DTYPES[precision]
    peer = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})
    ours = load_encoder(folder, precision)
    tokenizing = timed(lambda: ours.tokenize(texts, "doc"), "cpu").seconds
    flops = forward_flops(folder, map(len, ours.tokenize(texts, "doc")))
    for_inference(ours, torch.device(device))

    def theirs(batch_size: int, some=texts):
        return peer.encode(some, batch_size=batch_size, show_progress_bar=False)

    warm = evenly_spaced(texts, 64)
    theirs(32, warm)
    encode_texts(ours, warm, "doc")
    found = against(theirs, lambda: encode_texts(ours, texts, "doc"), sizes, rounds, device)
    seconds = found["seconds"]
    peak = peak or peak_flops(dtype, device)["flops"]
    reference = SentenceTransformer(str(folder), device=device).encode(warm, normalize_embeddings=True)
    cosine = {}
    for name, rows in (("peer", peer.encode(warm, normalize_embeddings=True)), ("ours", encode_texts(ours, warm, "doc"))):
        rows = rows.astype(np.float32)
        cosine[name] = float((rows / np.linalg.norm(rows, axis=1, keepdims=True) * reference).sum(1).min())
    return {
        **ratios_of(found, f"encode_{precision}"),
        f"texts_per_second_{precision}": round(len(texts) / seconds, 1),
        f"peer_texts_per_second_{precision}": round(len(texts) / found["peer_seconds"], 1),
        f"peer_batch_size_{precision}": found["peer_batch_size"],
        f"peak_share_encode_{precision}": round(flops / seconds / peak, 3),
        f"tokenizing_share_encode_{precision}": round(tokenizing / seconds, 3),
        f"counts_encode_{len(warm)}_texts_{precision}": launches(lambda: encode_texts(ours, warm, "doc"), device),
        f"peer_counts_encode_{len(warm)}_texts_{precision}": launches(lambda: theirs(found["peer_batch_size"], warm), device),
        f"min_cosine_to_fp32_{precision}": round(cosine["ours"], 6),
        f"peer_min_cosine_to_fp32_{precision}": round(cosine["peer"], 6),
    }


def bench_rerank(
    folder: Path, texts: list[str], precision: str, device: str, rounds: int, sizes: list[int], peak: float | None = None
) -> dict:
    """Bench pairs of a ten-word query and a passage, at most 256 tokens, against CrossEncoder.predict."""
    from sentence_transformers import CrossEncoder

    from research.models.cross_encoder import load_cross_encoder
    from research.retrieval.rerank import score_pairs

    queries = [" ".join(texts[-i].split()[:10]) for i in range(len(texts))]
    dtype = DTYPES[precision]
    with tempfile.TemporaryDirectory() as scratch:
        head = reranker_of(folder, Path(scratch) / "reranker")
        peer = CrossEncoder(str(head), device=device, max_length=256, model_kwargs={"dtype": dtype})
        ours = for_inference(load_cross_encoder(head, precision, max_length=256), torch.device(device))
        exact = load_cross_encoder(head, max_length=256).to(device)
    pairs = list(zip(queries, texts, strict=True))

    def theirs(batch_size: int, some=pairs):
        return peer.predict(some, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False)

    warm = pairs[:64]
    theirs(32, warm)
    mine = score_pairs(ours, queries[:64], texts[:64])
    found = against(theirs, lambda: score_pairs(ours, queries, texts), sizes, rounds, device)
    flops = forward_flops(folder, map(len, ours.tokenize(queries, texts)["input_ids"]))
    peak = peak or peak_flops(dtype, device)["flops"]
    reference = score_pairs(exact, queries[:64], texts[:64])
    return {
        **ratios_of(found, f"rerank_{precision}"),
        f"pairs_per_second_{precision}": round(len(pairs) / found["seconds"], 1),
        f"peer_pairs_per_second_{precision}": round(len(pairs) / found["peer_seconds"], 1),
        f"peer_rerank_batch_size_{precision}": found["peer_batch_size"],
        f"peak_share_rerank_{precision}": round(flops / found["seconds"] / peak, 3),
        f"counts_rerank_64_pairs_{precision}": launches(lambda: score_pairs(ours, queries[:64], texts[:64]), device),
        f"peer_counts_rerank_64_pairs_{precision}": launches(lambda: theirs(found["peer_batch_size"], warm), device),
        f"rerank_error_{precision}": round(float(np.abs(mine - reference).max()), 6),
        f"peer_rerank_error_{precision}": round(float(np.abs(theirs(32, warm).astype(np.float32) - reference).max()), 6),
    }


def bench_index(count: int, dim: int = 384, queries: int = 200) -> dict:
    """Bench HNSW against exact search on clustered vectors: time a query, recall, build."""
    from research.retrieval.exact import ann_recall, exact_search
    from research.retrieval.index import HnswIndex

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, dim)).astype(np.float32)
    docs = centres[rng.integers(0, 1000, size=count)] + 0.7 * rng.normal(size=(count, dim)).astype(np.float32)
    docs /= np.linalg.norm(docs, axis=1, keepdims=True)
    asked = docs[rng.integers(0, count, size=queries)] + 0.02 * rng.normal(size=(queries, dim)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        index = HnswIndex.build(Path(folder), docs, [str(i) for i in range(count)])
    start = time.perf_counter()
    _, exact = exact_search(asked, docs, 100)
    exact_seconds = time.perf_counter() - start
    start = time.perf_counter()
    _, found = index.search(asked, 100, ef=200)
    hnsw_seconds = time.perf_counter() - start
    return {
        "index_documents": count,
        "hnsw_build_seconds": index.sidecar["build_seconds"],
        "hnsw_ms_per_query": round(1000 * hnsw_seconds / queries, 3),
        "exact_ms_per_query": round(1000 * exact_seconds / queries, 3),
        "hnsw_recall@100": round(ann_recall(found, exact), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["encode", "rerank", "train"], choices=["encode", "rerank", "train"])
    parser.add_argument("--full", action="store_true", help="the large sizes")
    parser.add_argument("--random-weights", action="store_true", help="no model file and no data needed")
    parser.add_argument("--shape", default="minilm", choices=["tiny", "minilm", "110m"], help="of random weights")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    sizes = "to try sentence-transformers with (16 32 64; GPU: 32 128 512)"
    parser.add_argument("--peer-batch-sizes", nargs="+", type=int, metavar="N", help=sizes)
    parser.add_argument("--texts", type=int, help="how many (600; 2,067 with --full; 4,000 on a GPU)")
    parser.add_argument("--rounds", type=int, help="interleaved pairs (4; 7 with --full)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()

    count = args.texts or (4000 if args.device == "cuda" else 2067 if args.full else 600)
    rounds = args.rounds or (7 if args.full else 4)
    device = torch.cuda.get_device_name() if args.device == "cuda" else torch.backends.cpu.get_cpu_capability()
    sizes = args.peer_batch_sizes or ([32, 128, 512] if args.device == "cuda" else [16, 32, 64])
    result: dict = {"torch": torch.__version__, "device": device, "threads": torch.get_num_threads(), "texts": count}
    with tempfile.TemporaryDirectory() as scratch:
        folder = encoder_folder(args.shape, Path(scratch)) if args.random_weights else resolve(MINILM)
        texts = texts_of(count) if args.random_weights else texts_of_squad(count)
        for precision in args.precision:
            if "encode" in args.tasks:
                result |= bench_encode(folder, texts, precision, args.device, rounds, sizes)
            if "rerank" in args.tasks:
                result |= bench_rerank(folder, texts, precision, args.device, rounds, sizes)
    if "train" in args.tasks:
        precisions = args.precision if args.full else args.precision[:1]
        result |= bench_training(list(TASKS), precisions, args.device, args.random_weights, args.full)
    if args.full:
        result |= bench_index(100_000)
    if args.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:36} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
