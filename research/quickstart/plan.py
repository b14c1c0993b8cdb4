"""How much of the quickstart fits into the minutes: the machine's speed → sizes, estimated seconds, and what is left out.

Work is counted in floating-point operations, from the texts' mean lengths, and in seconds of the reference machine for what is
no matrix product (imports, tokenising, reports). Both were measured there: two cores of an AMD EPYC 9004, 2026-11-28 (LOG.md).
"""

from typing import NamedTuple

FULL_DATA, SMALL_DATA = "builtin:stdlib", "builtin:stdlib-small"
DOCUMENTS = {FULL_DATA: 3126, SMALL_DATA: 1601}
QUERIES = {FULL_DATA: {"train": 1814, "dev": 444, "test": 868}, SMALL_DATA: {"train": 900, "dev": 231, "test": 470}}
"""Of Python 3.11; other versions have a few more or fewer."""
QUERY_TOKENS, DOC_TOKENS, LONG_DOC_TOKENS = 18, 92, 127  # on average: documents cut at 128 tokens, and at the model's own 256
MINILM_GFLOP = 0.0221  # a token, forward
TRAINING = 4  # passes forward that a training step takes as long as: three by its operations, at a lower speed
SMOLLM2_GFLOP = 0.36  # a token of a LoRA of the last 4 of 30 layers, forward and backward
EXAMPLE_TOKENS = 95  # three in eight are too long, and dropped
EPOCHS = 3  # of the dual encoder's whole training
EXAMPLES = 208  # of the language model's: a minute
BATCH, GROUP = 64, 8  # queries a step of the dual encoder; documents that the cross-encoder reads of a query
VALIDATED = {FULL_DATA: 800, SMALL_DATA: 400}  # documents of a validation
LM_VALIDATED = 40
DEPTHS = (20, 10, 5, 0)
LEAST, ONE_EPOCH, RUNGS = 0.04, 1 / 3, 96  # shares of the whole training, and how many are tried


class Speed(NamedTuple):
    """What was measured of a machine in the first seconds.

    Attributes:
        device: "cpu" | "cuda".
        precision: "fp32" | "bf16": the one with more products a second.
        gflops: of a timed product in that precision.
        slowness: time of plain Python against the reference machine's.
    """

    device: str
    precision: str
    gflops: float
    slowness: float


class Sizes(NamedTuple):
    """How much a quickstart does.

    Attributes:
        hnsw: search a graph too.
        fused: join the rankings of BM25 and the encoder too.
        depth: documents a query that are reranked; 0 leaves the cross-encoder out. Half trained it is worse than nothing:
            after 100 steps of 16 pairs, reranking 5 changed nDCG@10 by −.073 alone, and by −.004 mixed with the retriever.
        data: the collection that is searched.
        share: of the whole training, up to 1.
    """

    hnsw: bool
    fused: bool
    depth: int
    data: str
    share: float

    @property
    def whole(self) -> bool:
        """Return whether nothing is left out."""
        return self == FULL

    @property
    def epochs(self) -> int:
        """Return the number of epochs of the dual encoder."""
        return max(1, int(EPOCHS * self.share + 1e-9))

    @property
    def pairs(self) -> int:
        """Return the number of queries that the dual encoder is trained on."""
        every = QUERIES[FULL_DATA]["train"]
        return every if self.share >= ONE_EPOCH else max(2, int(EPOCHS * self.share * every) // BATCH) * BATCH

    @property
    def examples(self) -> int:
        """Return the number of examples that the language model is trained on."""
        return min(EXAMPLES, max(8, int(EPOCHS * self.share * EXAMPLES) // 8) * 8)


FULL = Sizes(hnsw=True, fused=True, depth=20, data=FULL_DATA, share=1.0)


class Work(NamedTuple):
    """What a step takes: seconds on the reference machine, and operations in units of 1e9."""

    seconds: float
    gflop: float = 0.0

    def on(self, speed: Speed) -> float:
        """Estimate the seconds on a machine."""
        return self.seconds * speed.slowness + self.gflop / (speed.gflops * EFFICIENCY[speed.device, speed.precision])


EFFICIENCY = {("cpu", "fp32"): 0.85, ("cpu", "bf16"): 0.75, ("cuda", "fp32"): 0.25, ("cuda", "bf16"): 0.08}
"""Share of the timed product's speed that a model reaches. The CPU's are measured; of a GPU it only matters that all fits."""


def all_sizes() -> list[Sizes]:
    """List all sizes, the largest first: HNSW is left out first, then fusion, depth, half of the collection, and training."""
    full = [FULL, FULL._replace(hnsw=False), *(FULL._replace(hnsw=False, fused=False, depth=depth) for depth in DEPTHS)]
    shares = [LEAST + (1 - LEAST) * i / RUNGS for i in range(RUNGS, -1, -1)]
    return [*full, *(full[-1]._replace(data=SMALL_DATA, share=share) for share in shares)]


def encoding(sizes: Sizes, documents: int, queries: int) -> float:
    """Estimate the operations of encoding the documents and queries once, in 1e9."""
    tokens = documents * (LONG_DOC_TOKENS if sizes.whole else DOC_TOKENS) + queries * QUERY_TOKENS
    return tokens * MINILM_GFLOP


def reading(pairs: int) -> float:
    """Estimate the operations of a cross-encoder that reads `pairs` pairs, in 1e9."""
    return pairs * (QUERY_TOKENS + DOC_TOKENS) * MINILM_GFLOP


def work(sizes: Sizes) -> dict[str, Work]:
    """Estimate what each step of the road takes; steps that are left out are not among them."""
    documents, queries = DOCUMENTS[sizes.data], QUERIES[sizes.data]
    validated = documents if sizes.whole else min(documents, VALIDATED[sizes.data])
    validations = (1 + sizes.epochs) * encoding(sizes, validated, queries["dev"])
    again = documents if sizes.whole else 0  # encoded again, in another precision
    steps = {
        "bm25": Work(7),
        "exact": Work(7, encoding(sizes, documents, queries["test"])),
        "hnsw": Work(6, encoding(sizes, 0, queries["test"])),
        "dual_encoder": Work(9, validations + TRAINING * sizes.epochs * encoding(sizes, sizes.pairs, sizes.pairs)),
        "dev": Work(4, encoding(sizes, documents, queries["dev"])),
        "mine": Work(4, encoding(sizes, again, queries["train"])),
        "cross_encoder": Work(4, TRAINING * reading(GROUP * QUERIES[FULL_DATA]["train"]) + 2 * reading(150 * 20)),
        "trained": Work(6, encoding(sizes, documents, queries["test"])),
        "tandem": Work(6, encoding(sizes, 0, queries["test"]) + reading(sizes.depth * (queries["dev"] + queries["test"]))),
        "sft": Work(14, (sizes.examples + 2 * LM_VALIDATED) * EXAMPLE_TOKENS * SMOLLM2_GFLOP),
        "answers": Work(12),
        "report": Work(6),
    }
    present = dict.fromkeys(("dev", "mine", "cross_encoder", "tandem"), sizes.depth > 0)
    present |= {"hnsw": sizes.hnsw, "bm25": not sizes.fused, "trained": not sizes.depth}  # fusion has BM25 in its command
    return {name: step for name, step in steps.items() if present.get(name, True)}


def estimate(sizes: Sizes, speed: Speed) -> dict[str, float]:
    """Estimate the seconds of each step on a machine, in the order of the road."""
    return {name: step.on(speed) for name, step in work(sizes).items()}


def choose(seconds: float, speed: Speed) -> Sizes:
    """Choose the largest sizes whose estimate fits into the seconds; the smallest of all if none fits."""
    rungs = all_sizes()
    return next((rung for rung in rungs if sum(estimate(rung, speed).values()) <= seconds), rungs[-1])


def shrink(sizes: Sizes, begun: set[str], seconds: float, speed: Speed, slower: float) -> Sizes:
    """Reduce training until the steps that have not begun fit into the seconds left; a full-size training is never reduced.

    Args:
        sizes: of the plan so far.
        begun: steps that have begun or are finished.
        seconds: that are left.
        speed: of the machine, as measured.
        slower: how many times as long as estimated the steps so far have taken, 1 or more.
    """
    if sizes.share == 1 and sizes.data == FULL_DATA:
        return sizes
    smaller = [sizes._replace(share=max(LEAST, sizes.share * (1 - i / 20))) for i in range(20)]

    def left(rung: Sizes) -> float:
        return slower * sum(taken for name, taken in estimate(rung, speed).items() if name not in begun)

    return next((rung for rung in smaller if left(rung) <= seconds), smaller[-1])


def left_out(sizes: Sizes) -> list[str]:
    """List what --full does and these sizes leave out, one line each."""
    lines = [] if sizes.hnsw else ["HNSW, the graph that searches millions of documents"]
    if not sizes.fused:
        lines.append("fusion of BM25's ranking with the encoder's")
    if not sizes.depth:
        lines.append("the cross-encoder that reranks: trained for less than some ten minutes it makes rankings worse")
    elif sizes.depth < FULL.depth:
        lines.append(f"reranking of more than {sizes.depth} documents a query ({FULL.depth})")
    if sizes.data != FULL.data:
        lines.append(
            f"half of the functions: {sizes.data} has {DOCUMENTS[sizes.data]:,} of {DOCUMENTS[FULL.data]:,}, an easier "
            f"search whose numbers compare only with each other"
        )
    if sizes.share < 1:
        lines.append(
            f"training: {sizes.pairs:,} pairs {'once' if sizes.epochs == 1 else f'{sizes.epochs} times'} "
            f"({QUERIES[FULL_DATA]['train']:,} {EPOCHS} times)"
            + (f", {sizes.examples} examples for the language model ({EXAMPLES})" if sizes.examples < EXAMPLES else "")
        )
    if not sizes.whole:
        lines.append("documents beyond 128 tokens, and float32 where bf16 is faster")
    return lines
