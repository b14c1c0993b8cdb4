"""The steps of a quickstart: each is a command that users can type themselves, with its purpose and its result."""

import shlex
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.models.sources import SMOLLM2
from research.quickstart.plan import LM_VALIDATED, VALIDATED, Sizes
from research.runs.layout import METRICS

CONFIGS = Path(__file__).parents[2] / "configs"


class Step(NamedTuple):
    """A command of the quickstart.

    Attributes:
        title: in a few words, for the plan.
        why: what it is for, printed before it runs.
        whole: the command of --full; names in braces are filled in.
        sized: options that are added for smaller sizes; a later option replaces an earlier one.
        result: a file in the quickstart's folder that exists once the step is finished.
    """

    title: str
    why: str
    whole: str
    sized: str
    result: str


class Names(NamedTuple):
    """What stands in the commands.

    Attributes:
        out: the quickstart's folder.
        precision: "fp32" | "bf16".
        encoder, language_model: the models before training.
        data: in place of the embedded collections; None for those.
    """

    out: Path
    precision: str
    encoder: str
    language_model: str = SMOLLM2
    data: str | None = None


STEPS = {
    "bm25": Step(
        "BM25",
        "Retrieve with words, the baseline that vectors must beat. The task: find the function of Python's standard library "
        "that a docstring describes.",
        "retrieve --data {data} --split test --retriever bm25 --out {out}/bm25",
        "--wandb disabled",
        f"bm25/{METRICS}",
    ),
    "exact": Step(
        "the untrained encoder",
        "Retrieve with vectors (exact search), so that meaning can match where words differ{fusing}. The task: find the "
        "function of Python's standard library that a docstring describes.",
        "retrieve --data {data} --split test {words} --retriever {encoder} --out {out}/exact",
        "--max-length 128 --precision {precision} --wandb disabled",
        f"exact/{METRICS}",
    ),
    "hnsw": Step(
        "the same vectors through HNSW",
        "The same vectors through HNSW, the graph that makes millions of documents searchable. Its recall against exact "
        "search is measured beside every number.",
        "retrieve --data {data} --split test --retriever {encoder} --index hnsw --out {out}/hnsw",
        "",
        f"hnsw/{METRICS}",
    ),
    "dual_encoder": Step(
        "train the dual encoder",
        "Train the dual encoder on pairs of other modules: every other document of a batch is a negative. Its validation is "
        "the search itself, on a split of its own; the best weights become the run's model.",
        "fit -c {configs}/dual_encoder.yaml --out {out}/dual_encoder --trainer.precision {mixed}",
        "--data.limit {pairs} --data.val {data} --data.val_documents {validated} --trainer.max_epochs {epochs} "
        "--wandb disabled",
        f"dual_encoder/{METRICS}",
    ),
    "dev": Step(
        "its ranking of the dev queries",
        "The trained retriever's ranking of the dev queries: on it the cross-encoder will be validated.",
        "retrieve --data {data} --split dev --retriever {out}/dual_encoder --precision {precision} --out {out}/dev",
        "",
        f"dev/{METRICS}",
    ),
    "mine": Step(
        "mine candidates for the cross-encoder",
        "Mine what ranks high and is not relevant, for a reranker to learn on: by the untrained model, since a retriever's "
        "lists for queries that it was trained on are unlike those of a test.",
        "mine --data {data} --split train --retriever {encoder} --precision {precision} --ranks 1-30 "
        "--out {out}/candidates.jsonl",
        "--max-length 128",
        "candidates.jsonl.json",
    ),
    "cross_encoder": Step(
        "train the cross-encoder",
        "Train the cross-encoder, which reads query and document together, to tell the relevant one from those.",
        "fit -c {configs}/cross_encoder.yaml --data.train {out}/candidates.jsonl --data.val_run {out}/dev/dense.trec "
        "--out {out}/cross_encoder --trainer.precision {mixed}",
        "--wandb disabled",
        f"cross_encoder/{METRICS}",
    ),
    "trained": Step(
        "the trained encoder",
        "The same search by the trained encoder.",
        "retrieve --data {data} --split test --retriever {out}/dual_encoder --precision {precision} --out {out}/trained",
        "--wandb disabled",
        f"trained/{METRICS}",
    ),
    "tandem": Step(
        "trained retriever and reranker in tandem",
        "The two in tandem: the trained dual encoder retrieves, the cross-encoder re-orders the first {depth}; what share of "
        "its say the retriever keeps is chosen on dev.",
        "retrieve --data {data} --split test --retriever {out}/dual_encoder --reranker {out}/cross_encoder --depth {depth} "
        "--mix-split dev --precision {precision} --out {out}/tandem",
        "--wandb disabled",
        f"tandem/{METRICS}",
    ),
    "sft": Step(
        "LoRA on a language model",
        "Teach a language model of 135M parameters to write a function's docstring: LoRA on its last four layers.",
        "fit -c {configs}/sft.yaml -c {configs}/adapter/lora_last_layers.yaml --data.limit {examples} "
        "--data.val_limit {lm_validated} --data.max_length 192 --data.batch_size 4 --data.other null "
        "--model.optimisation.lr 2e-3 "
        "--model.metrics [loss,token_accuracy] --out {out}/sft --trainer.precision {mixed} --wandb disabled",
        "",
        f"sft/{METRICS}",
    ),
    "answers": Step(
        "its answers before and after",
        "Ask the language model before and after about functions that it has not seen.",
        "generate --model {language_model} --model {out}/sft --data builtin:stdlib --split test --limit 8 --max-new-tokens 32 "
        "--precision {precision} --out {out}/answers",
        "",
        f"answers/{METRICS}",
    ),
    "report": Step(
        "one page of all",
        "One page to browse: who is better, by how much, is it chance, what does it cost, how did training go.",
        "report {bm25} {out}/exact {hnsw} {searched} {out}/dual_encoder {reranker} {out}/sft --out {out}/report",
        "",
        "report/index.html",
    ),
}


def check_configs() -> None:
    """Refuse to begin without the configurations, which a checkout has and an installed package has not.

    Raises:
        UserError: they are not there.
    """
    if not CONFIGS.is_dir():
        raise UserError(
            f"there is no {CONFIGS}: this package was installed without its repository; expected a checkout, which has the "
            "configurations. Clone it, and run scripts/quickstart.sh there."
        )


def argv(name: str, sizes: Sizes, names: Names) -> list[str]:
    """Fill in the command of a step, as the command line takes it."""
    step = STEPS[name]
    values = {
        **names._asdict(),
        "data": names.data or sizes.data,
        "configs": CONFIGS,
        "mixed": "bf16-mixed" if names.precision == "bf16" else "32-true",
        "bm25": "" if sizes.fused else f"{names.out}/bm25",
        "hnsw": f"{names.out}/hnsw" if sizes.hnsw else "",
        "searched": f"{names.out}/{'tandem' if sizes.depth else 'trained'}",
        "reranker": f"{names.out}/cross_encoder" if sizes.depth else "",
        "validated": VALIDATED.get(sizes.data),
        "lm_validated": LM_VALIDATED,
        **{size: getattr(sizes, size) for size in ("pairs", "epochs", "examples", "depth")},
    }
    command = step.whole if sizes.whole else f"{step.whole} {step.sized}"
    command = command.replace("{words}", "--retriever bm25" if sizes.fused else "")
    parts = [part.format(**values) for part in command.split()]  # split first: a path may hold blanks
    return [part for part in parts if part]


def reason(name: str, sizes: Sizes) -> str:
    """Return the sentence that says what a step is for."""
    fusing = ", and with words (BM25), and fuse the two" if sizes.fused else ""
    return STEPS[name].why.format(depth=sizes.depth, fusing=fusing)


def text(name: str, sizes: Sizes, names: Names) -> str:
    """Write the command of a step as it is typed into a shell."""
    return f"research {shlex.join(argv(name, sizes, names))}"
