"""Model cards: what a model is, how it is loaded, what it was trained on, and what it measured."""

from collections.abc import Sequence
from typing import Any, TypedDict

import yaml
from huggingface_hub import ModelCardData

ENCODING = (
    "from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({name!r})\n"
    'queries = model.encode_query(["a question"])\ndocs = model.encode_document(["a text"])'
)
LOADING = {
    "adapter": "from peft import AutoPeftModelForCausalLM\n\nmodel = AutoPeftModelForCausalLM.from_pretrained({name!r})",
    "causal-lm": "from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained({name!r})",
    "sentence-transformers": ENCODING,
    "two-towers": ENCODING,
    "cross-encoder": "from sentence_transformers import CrossEncoder\n\nmodel = CrossEncoder({name!r})",
    "transformers": "from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained({name!r})",
}
LIBRARIES = {"adapter": "peft", "causal-lm": "transformers", "transformers": "transformers"}
TAGS = {
    "adapter": "text-generation",
    "causal-lm": "text-generation",
    "cross-encoder": "text-ranking",
    "sentence-transformers": "sentence-similarity",
    "two-towers": "sentence-similarity",
}


class RunFacts(TypedDict, total=False):
    """What the run folder around a model says, file by file."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]


def model_card(kind: str, name: str, base: str | None, run: RunFacts, sentences: Sequence[str] = ()) -> str:
    """Write the card of a model folder: Markdown with the hub's header.

    Args:
        kind: adapter | causal-lm | sentence-transformers | two-towers | cross-encoder | transformers.
        name: of the folder.
        base: what an adapter was trained on.
        run: config, metrics and provenance of the training; {} where they are not known.
        sentences: how its library gives its numbers.
    """
    config = run.get("config") or {}
    module = (config.get("model") or {}).get("init_args", {})
    base = base or module.get("model")
    on_hub = base is not None and not str(base).startswith(("pkg:", "random:", "/", "./", "../"))
    header = ModelCardData(
        base_model=str(base).partition("@")[0] if on_hub else None,
        library_name=LIBRARIES.get(kind, "sentence-transformers"),
        pipeline_tag=TAGS.get(kind),
        tags=["tandem"],
    )
    parts = [f"---\n{header}\n---", f"# {name}"]
    if base is not None:
        parts.append(f"Trained from `{base}`.")
    parts.append(f"```python\n{LOADING[kind].format(name=name)}\n```")
    parts += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]
    if kind == "adapter" and not on_hub:
        parts.append(
            "`adapter_config.json` names the base by a folder of the machine that exported it: elsewhere, load the "
            "base yourself and put the adapter on it with `PeftModel.from_pretrained(base, ...)`."
        )
    if run:
        parts += [_data(config), _metrics(run.get("metrics") or {}), _training(config), _provenance(run["provenance"])]
    else:
        parts.append("No run folder lay beside this model: its training is not known.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(config: dict) -> str:
    values = (config.get("data") or {}).get("init_args", {})
    named = []
    for name in ("train", "val"):
        source, split = values.get(name), values.get(f"{name}_split")
        if source:
            file = str(source).endswith((".jsonl", ".json"))  # which has no splits
            named.append(f"- {name}: `{source}`" + (f", split `{split}`" if split and not file else ""))
    return "\n".join(["## Data", "", *named]) if named else ""


def _metrics(metrics: dict) -> str:
    after, before = metrics.get("metrics") or {}, metrics.get("untrained") or {}
    if not after:
        return ""
    rows = [f"| {name} | {_number(before.get(name))} | {_number(value)} |" for name, value in after.items()]
    return "\n".join(
        [
            "## On the validation data",
            "",
            "| metric | before | after |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Measured at step {metrics.get('step')}, the best of this run by `{metrics.get('monitor')}`: "
            "chosen on these data, so a test on others will be a little worse.",
        ]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _training(config: dict) -> str:
    shown = {name: config.get(name) for name in ("seed_everything", "model", "data", "trainer")}
    return f"## Configuration\n\n```yaml\n{yaml.safe_dump(_set(shown), sort_keys=False, allow_unicode=True)}```"


def _set(value: Any) -> Any:
    """Without what is null."""
    if not isinstance(value, dict):
        return value
    return {name: _set(inner) for name, inner in value.items() if inner is not None}


def _provenance(facts: dict) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in (facts.get("packages") or {}).items() if version)
    commit = facts.get("git_commit")
    code = f"Code: commit {commit}{' with local changes' if facts.get('git_dirty') else ''}." if commit else ""
    return f"## Provenance\n\n{code} Base weights: sha256 of {str(facts.get('model_hash'))[:16]}…. {packages}.".replace(
        "  ", " "
    )
