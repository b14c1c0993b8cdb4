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
from pathlib import Path

import numpy as np
import torch
from bench_training import TASKS, bench_training

from research.models.dual_encoder import TextEncoder, load_encoder
from research.models.inference import for_inference
from research.models.sources import MINILM, resolve
from research.retrieval.encode import encode_texts

ROOT = Path(__file__).parents[1]


def texts_of_squad(count: int) -> list[str]:
    path = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data")) / "squad" / "corpus.jsonl"
    if not path.exists():
        sys.exit(f"error: {path} does not exist; set TANDEM_DATA, or pass --random-weights for made-up texts")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return spread([f"{row['title']} {row['text']}" for row in rows], count)


def spread(texts: list[str], count: int) -> list[str]:
    """`count` of the texts, evenly, so that every article and length has its share."""
    return [texts[i * len(texts) // count] for i in range(min(count, len(texts)))]


def random_model(folder: Path) -> Path:
    """all-MiniLM-L6-v2's shape with random weights, and a tokenizer of made-up words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {
        token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(30518))])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                        intermediate_size=1536)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=256, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def random_texts(count: int) -> list[str]:
    """Lengths like squad's passages: log-normal around 140 words."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(140), 0.4, size=count)).astype(int).clip(20, 400)
    return [" ".join(f"w{i}" for i in rng.integers(0, 30518, size=n)) for n in lengths]


def peak_flops(dtype: torch.dtype, device: str, seconds: float = 1.5) -> float:
    """FLOP/s of the fastest square matrix product, the best of several sizes."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        (a @ b).sum().item()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            c = a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
            del c
    return best


def useful_flops(encoder: TextEncoder, texts: list[str]) -> float:
    """2 × non-embedding parameters a real token, and 4 × T × hidden a token and layer for attention."""
    config = encoder.transformer.config
    weights = sum(
        p.numel() for n, p in encoder.transformer.named_parameters() if "embeddings" not in n and "pooler" not in n
    )
    lengths = [len(row) for row in encoder.tokenize(texts, "doc")]
    attention = 4 * config.hidden_size * config.num_hidden_layers
    return sum(2 * weights * n + attention * n * n for n in lengths)


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bench_encode(folder: Path, texts: list[str], precision: str, device: str, rounds: int, sizes: list[int]) -> dict:
    from sentence_transformers import SentenceTransformer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    peer = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})
    ours = load_encoder(folder, precision)
    flops = useful_flops(ours, texts)
    for_inference(ours, torch.device(device))

    def theirs(batch_size: int):
        return peer.encode(texts, batch_size=batch_size, show_progress_bar=False)

    warm = spread(texts, 64)
    peer.encode(warm, show_progress_bar=False)
    encode_texts(ours, warm, "doc")
    candidates = {size: timed(lambda size=size: theirs(size)) for size in sizes}
    best = min(candidates, key=candidates.get)
    pairs = [(timed(lambda: theirs(best)), timed(lambda: encode_texts(ours, texts, "doc"))) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    seconds = statistics.median(b for _, b in pairs)
    reference = SentenceTransformer(str(folder), device=device).encode(warm, normalize_embeddings=True)
    cosine = {}
    for name, found in (
        ("peer", peer.encode(warm, normalize_embeddings=True)),
        ("ours", encode_texts(ours, warm, "doc")),
    ):
        found = found.astype(np.float32)
        cosine[name] = float((found / np.linalg.norm(found, axis=1, keepdims=True) * reference).sum(1).min())
    return {
        f"ratio_encode_{precision}": round(statistics.median(ratios), 3),
        f"range_encode_{precision}": [round(min(ratios), 3), round(max(ratios), 3)],
        f"texts_per_second_{precision}": round(len(texts) / seconds, 1),
        f"peer_texts_per_second_{precision}": round(len(texts) / statistics.median(a for a, _ in pairs), 1),
        f"peer_batch_size_{precision}": best,
        f"peak_share_encode_{precision}": round(flops / seconds / peak_flops(dtype, device), 3),
        f"min_cosine_to_fp32_{precision}": round(cosine["ours"], 6),
        f"peer_min_cosine_to_fp32_{precision}": round(cosine["peer"], 6),
    }


def reranker_of(folder: Path, target: Path) -> Path:
    """A cross-encoder with the encoder's body and a random head: its speed is a trained one's."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


def bench_rerank(folder: Path, texts: list[str], precision: str, device: str, rounds: int, sizes: list[int]) -> dict:
    """Pairs of a ten-word query and a passage, at most 256 tokens, against CrossEncoder.predict."""
    from sentence_transformers import CrossEncoder

    from research.models.cross_encoder import load_cross_encoder
    from research.retrieval.rerank import score_pairs

    queries = [" ".join(texts[-i].split()[:10]) for i in range(len(texts))]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
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
    best = min(sizes, key={size: timed(lambda size=size: theirs(size)) for size in sizes}.get)
    times = [(timed(lambda: theirs(best)), timed(lambda: score_pairs(ours, queries, texts))) for _ in range(rounds)]
    ratios = [a / b for a, b in times]
    reference = score_pairs(exact, queries[:64], texts[:64])
    return {
        f"ratio_rerank_{precision}": round(statistics.median(ratios), 3),
        f"range_rerank_{precision}": [round(min(ratios), 3), round(max(ratios), 3)],
        f"pairs_per_second_{precision}": round(len(pairs) / statistics.median(b for _, b in times), 1),
        f"peer_pairs_per_second_{precision}": round(len(pairs) / statistics.median(a for a, _ in times), 1),
        f"peer_rerank_batch_size_{precision}": best,
        f"rerank_error_{precision}": round(float(np.abs(mine - reference).max()), 6),
        f"peer_rerank_error_{precision}": round(
            float(np.abs(theirs(32, warm).astype(np.float32) - reference).max()), 6
        ),
    }


def bench_index(count: int, dim: int = 384, queries: int = 200) -> dict:
    """HNSW against exact search on clustered vectors: time a query, recall, build."""
    from research.retrieval.index import HnswIndex, ann_recall, exact_search

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
    parser.add_argument(
        "--tasks", nargs="+", default=["encode", "rerank", "train"], choices=["encode", "rerank", "train"]
    )
    parser.add_argument("--full", action="store_true", help="the large sizes")
    parser.add_argument("--random-weights", action="store_true", help="no model file and no data needed")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--peer-batch-sizes", nargs="+", type=int, default=[16, 32, 64], metavar="N")
    parser.add_argument("--texts", type=int, help="how many (600; 2,067 with --full; 20,000 on a GPU)")
    parser.add_argument("--rounds", type=int, help="interleaved pairs (4; 7 with --full)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()

    count = args.texts or (20_000 if args.device == "cuda" else 2067 if args.full else 600)
    rounds = args.rounds or (7 if args.full else 4)
    device = torch.cuda.get_device_name() if args.device == "cuda" else torch.backends.cpu.get_cpu_capability()
    result: dict = {"torch": torch.__version__, "device": device, "threads": torch.get_num_threads(), "texts": count}
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_model(Path(scratch)) if args.random_weights else resolve(MINILM)
        texts = random_texts(count) if args.random_weights else texts_of_squad(count)
        for precision in args.precision:
            if "encode" in args.tasks:
                result |= bench_encode(folder, texts, precision, args.device, rounds, args.peer_batch_sizes)
            if "rerank" in args.tasks:
                result |= bench_rerank(folder, texts, precision, args.device, rounds, args.peer_batch_sizes)
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
