"""Model cards: what a model is, how it is loaded, what it was trained on, and what it measured.

huggingface_hub makes the header that the hub reads; the text below it is TEMPLATE. The network is never asked.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from research.runs.base_model import option
from research.runs.options import is_file
from research.types import Json

CARD = "README.md"
HUB = "hf:"  # before a data source of the hub
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
TASKS = {
    "adapter": "text-generation",
    "causal-lm": "text-generation",
    "cross-encoder": "text-ranking",
    "sentence-transformers": "sentence-similarity",
    "two-towers": "sentence-similarity",
    "transformers": "feature-extraction",
}
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}
{% if base %}
Trained from `{{ base }}`.
{% endif %}
```python
{{ loading }}
```
{% for sentence in sentences %}
{{ sentence[0] | upper }}{{ sentence[1:] }}.
{% endfor %}
{%- if is_local_adapter %}
`adapter_config.json` names the base by a folder of the machine that exported it: elsewhere, load the base yourself and put \
the adapter on it with `PeftModel.from_pretrained(base, ...)`.
{% endif %}
{%- if not is_run %}
No run folder lay beside this model: its training is not known.
{% endif %}
{%- if data %}
## Data
{% for part, source, split in data %}
- {{ part }}: `{{ source }}`{% if split %}, split `{{ split }}`{% endif %}
{%- endfor %}
{% endif %}
{%- if measured %}
## On the validation data

| metric | before | after |
| --- | --- | --- |
{%- for metric, value in measured.items() %}
| {{ metric }} | {{ number(untrained.get(metric)) }} | {{ number(value) }} |
{%- endfor %}

Measured at step {{ step }}, the best of this run by `{{ monitor }}`: chosen on these data, so a test on others will be a \
little worse.
{% endif %}
{%- if is_run %}
## Configuration

```yaml
{{ config }}```

## Provenance

{% if provenance.git_commit -%}
Code: commit {{ provenance.git_commit }}{{ " with local changes" if provenance.git_dirty }}. {% endif -%}
Base weights: sha256 of {{ (provenance.model_hash | string)[:16] }}….{% if packages %} {{ packages }}.{% endif %}
{% endif %}
"""


class RunFacts(TypedDict, total=False):
    """The contents of the run folder around a model, file by file."""

    config: dict[str, Json]
    metrics: dict[str, Json]
    provenance: dict[str, Json]


class License(TypedDict, total=False):
    """A licence in a card's header: the hub's id, and of `other` its name and address."""

    license: str
    license_name: str
    license_link: str


def model_card(
    kind: str, name: str, base: str | None, run: RunFacts, sentences: Sequence[str] = (), license: License | None = None
) -> ModelCard:
    """Write the text of a model folder's card: Markdown with the hub's header.

    Args:
        kind: adapter | causal-lm | sentence-transformers | two-towers | cross-encoder | transformers.
        name: of the folder.
        base: what an adapter was trained on.
        run: config, metrics and provenance of the training; {} where they are not known.
        sentences: how its library gives its numbers.
        license: of the model; None where it is not known.
    """
    config, metrics, provenance = run.get("config") or {}, run.get("metrics") or {}, run.get("provenance") or {}
    module, data = config.get("model") or {}, (config.get("data") or {}).get("init_args", {})
    base = base or option(config, "model.model")
    base_id = hub_id(base)
    results = _results(TASKS[kind], data, metrics)
    header = ModelCardData(
        base_model=base_id,
        base_model_relation=base_id and ("adapter" if kind == "adapter" else "finetune"),
        datasets=_hub_datasets(data.get("train")) or None,
        library_name=LIBRARIES.get(kind, "sentence-transformers"),
        pipeline_tag=TASKS[kind],
        tags=["tandem", *_trainer(module.get("class_path"))],
        metrics=[result.metric_type for result in results] or None,
        model_name=name if results else None,
        eval_results=results or None,
        **(license or {}),
    )
    shown = {section: config.get(section) for section in ("seed_everything", "model", "data", "trainer")}
    return ModelCard.from_template(
        header,
        template_str=TEMPLATE,
        name=name,
        base=base,
        loading=LOADING[kind].format(name=name),
        sentences=sentences,
        is_local_adapter=kind == "adapter" and base_id is None,
        is_run=bool(run),
        data=[(part, data[part], _split(data[part], data.get(f"{part}_split"))) for part in ("train", "val") if data.get(part)],
        measured=metrics.get("metrics") or {},
        untrained=metrics.get("untrained") or {},
        step=metrics.get("step"),
        monitor=metrics.get("monitor"),
        number=lambda value: "" if value is None else f"{value:.4f}",
        config=yaml.safe_dump(_without_nulls(shown), sort_keys=False, allow_unicode=True),
        provenance=provenance,
        packages=", ".join(f"{name} {version}" for name, version in (provenance.get("packages") or {}).items() if version),
    )


def hub_id(name: str | None) -> str | None:
    """Return the hub id of a model or dataset, without revision; None for a folder, a package, random weights, or no name."""
    if name is None or name.startswith(("pkg:", "random:")) or Path(name).expanduser().exists():
        return None
    repository = name.partition("@")[0]
    try:
        validate_repo_id(repository)
    except HFValidationError:
        return None
    return repository


def read_license(folder: Path) -> License | None:
    """Read the licence from the card in a model's folder; None if there is no card, or it states none."""
    try:
        header = metadata_load(folder / CARD) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return None
    stated = {name: header[name] for name in License.__annotations__ if header.get(name)}
    return License(**stated) if "license" in stated else None


# ---- parts ----------------------------------------------------------------------------------------------------------


def _results(task: str, data: dict[str, Json], metrics: dict[str, Json]) -> list[EvalResult]:
    """List the best model's metrics on the validation data; values that are null or not finite are left out."""
    source = data.get("val") or data.get("train")
    values = metrics.get("metrics") or {}
    if not isinstance(source, str):  # several sources are no dataset that the hub could name
        return []
    dataset = _dataset(source, data.get("val_split"))
    return [
        EvalResult(task_type=task, **dataset, metric_type=name, metric_value=value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def _dataset(source: str, split: str | None) -> dict[str, str | None]:
    """Return the fields of EvalResult that name a data source: hf:NAME[:CONFIG][@REVISION], another source, or a file."""
    if not source.startswith(HUB):
        name = Path(source).name if is_file(source) else source
        return {"dataset_type": name, "dataset_name": name, "dataset_split": _split(source, split)}
    name, _, revision = source.removeprefix(HUB).partition("@")
    name, _, config = name.partition(":")
    place = {"dataset_config": config or None, "dataset_split": split, "dataset_revision": revision or None}
    return {"dataset_type": name, "dataset_name": name, **place}


def _hub_datasets(source: object) -> list[str]:
    """Return the id of a source that is a dataset of the hub."""
    if not isinstance(source, str) or not source.startswith(HUB):
        return []
    name = hub_id(str(_dataset(source, None)["dataset_type"]))
    return [] if name is None else [name]


def _split(source: object, split: str | None) -> str | None:
    """Return the split of a source; None of files, which have none."""
    return split if isinstance(source, str) and not is_file(source) else None


def _trainer(class_path: str | None) -> list[str]:
    """Return the trainer as a tag, `dual-encoder`, `cross-encoder`, `sft` or `dpo`; none of a class of the user's."""
    room, _, name = str(class_path).rpartition(".")[0].rpartition(".")
    return [name.replace("_", "-")] if room == "research.training" else []


def _without_nulls(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
