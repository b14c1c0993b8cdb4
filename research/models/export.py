"""Exports a trained model as a folder that plain libraries load, checked, with a model card (`research export`)."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from research.errors import UserError
from research.models.adapter_rules import LORA
from research.models.card import License, RunFacts, hub_id, model_card, read_license
from research.models.contents import ADAPTER_CONFIG, everything_in, read_config
from research.models.cross_encoder import load_cross_encoder
from research.models.dual_encoder import DualEncoder
from research.models.plain import compare, compare_reranker
from research.models.policy import load_policy, save_policy
from research.models.saving import save_cross_encoder, save_dual_encoder, write_router
from research.models.sources import adapter_base, base_name, resolve
from research.runs.base_model import folder_of, option
from research.runs.disk import require_space, write_errors
from research.runs.files import atomic_write, replace_folder, write_json
from research.runs.folder import RunFolder
from research.runs.layout import MODEL, MODEL_FACTS


class Differs(Exception):
    """The exported folder is another model than the one that was to be exported."""


class Exported(NamedTuple):
    """What was written.

    Attributes:
        kind: adapter | causal-lm | sentence-transformers | two-towers | cross-encoder | transformers.
        base: the model that an adapter was trained on; None for a model without one.
        difference: as plain libraries load the folder: of the logits, of an encoder's embeddings over their length, or of a
            reranker's scores over the largest; None for models that are not compared.
        sentences: how plain sentence-transformers gives an encoder's embeddings or a reranker's scores.
    """

    kind: str
    base: str | None
    difference: float | None
    sentences: list[str]


def export(name: str, out: Path, merge: bool, license: str | None = None) -> Exported:
    """Write a model as a folder for sentence-transformers, transformers or PEFT.

    Args:
        name: as `sources.resolve` takes it.
        out: a new folder.
        merge: make a LoRA adapter part of its base's weights.
        license: the hub's id of a licence; None: what the model's own card or its base's states, where that lies here.

    Raises:
        UserError: not found, nothing to merge, or no room.
        Differs: what plain libraries load is another model; nothing is left in `out`.
    """
    folder = resolve(name)
    retriever = _adapter_of_retrieval(folder)
    adapter = (folder / ADAPTER_CONFIG).exists() and retriever is None
    if merge and not adapter and retriever is None:
        raise UserError(f"--merge: {folder} holds no adapter ({ADAPTER_CONFIG}); expected one to merge. Leave --merge out.")
    if merge and adapter and (method := read_config(folder / ADAPTER_CONFIG).get("peft_type")) != LORA:
        raise UserError(
            f"--merge: the adapter in {folder} is of type {method}, whose virtual tokens cannot become part of the "
            f"weights; expected {LORA}. Export it without --merge: PEFT loads it on its base."
        )
    size = sum(path.stat().st_size for path in everything_in(folder) if path.is_file())
    require_space(out.parent, 2 * size, "the exported model")
    kind = "causal-lm" if adapter else retriever or _kind(folder)
    with write_errors(out), replace_folder(out) as new:
        if retriever is not None:
            base = _save_merged_retriever(folder, new, retriever)
        else:
            base = _save_merged(name, new) if merge else _copy(folder, new, name if adapter else None)
        kind = "adapter" if adapter and not merge else kind
        difference, sentences = _check(name, new, kind, merge), []
        if kind == "two-towers":
            write_router(new)  # folders of earlier versions have none
        if kind in ("sentence-transformers", "two-towers"):
            comparison = compare(new)
            if not comparison.is_equal:  # an older folder, whose lengths a role stand where the library does not look
                save_dual_encoder(DualEncoder.load(folder), new)
                comparison = compare(new)
            difference, sentences = comparison.difference, comparison.sentences()
        elif kind == "cross-encoder":
            scores = compare_reranker(new)
            if not scores.is_equal:  # an older folder, whose length stands where the library does not look
                save_cross_encoder(load_cross_encoder(folder), new)
                scores = compare_reranker(new)
            difference, sentences = scores.difference, scores.sentences()
        with atomic_write(new / "README.md") as stream:
            run = _run_of(folder)
            stated = License(license=license) if license else _license(folder, base, run)
            stream.write(model_card(kind, out.resolve().name, base, run, sentences, stated).content)
    return Exported(kind, base, difference, sentences)


def _kind(folder: Path) -> str:
    """Return the kind of a model folder: sentence-transformers | two-towers | cross-encoder | causal-lm | transformers."""
    if (folder / "query").is_dir():
        return "two-towers"
    saved = folder / "config_sentence_transformers.json"
    if saved.exists() and read_config(saved).get("model_type") == "CrossEncoder":
        return "cross-encoder"
    if (folder / "modules.json").exists():
        return "sentence-transformers"
    names = " ".join(read_config(folder / "config.json").get("architectures") or [])
    return "cross-encoder" if "SequenceClassification" in names else "causal-lm" if "LM" in names else "transformers"


def _adapter_of_retrieval(folder: Path) -> str | None:
    """Return the kind of a retriever's or reranker's adapter: sentence-transformers | cross-encoder; None of other folders."""
    if not (folder / ADAPTER_CONFIG).exists():
        return None
    task = read_config(folder / ADAPTER_CONFIG).get("task_type")
    if (folder / "modules.json").exists() or task in ("SEQ_CLS", "FEATURE_EXTRACTION"):
        return "cross-encoder" if task == "SEQ_CLS" else _kind(folder)
    return "sentence-transformers" if task is None and _kind(adapter_base(folder)) != "causal-lm" else None


def _save_merged_retriever(folder: Path, new: Path, kind: str) -> str:
    """Save an encoder or a reranker with its adapter merged, which any library loads; return the base's name."""
    if kind == "cross-encoder":
        save_cross_encoder(load_cross_encoder(folder), new)
    else:
        save_dual_encoder(DualEncoder.load(folder), new)
    return base_name(folder)


def _copy(folder: Path, new: Path, adapter: str | None) -> str | None:
    """Copy the folder's files; of an adapter, return the name of its base, which PEFT will look for."""
    for path in everything_in(folder):
        place = path.relative_to(folder)
        if (
            path.is_file()
            and path.name != "README.md"
            and not (adapter and path.name == MODEL_FACTS)
            and place.parts[0][0] != "."
        ):
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new / place)
    if adapter is None:
        return None
    policy = load_policy(adapter)
    # a name that others can resolve where there is one; a package or a merged adapter is a folder of this machine
    hub = hub_id(policy.base) is not None
    base, _, revision = policy.base.partition("@") if hub else (str(policy.base_folder.resolve()), "", "")
    config = json.loads((new / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_json(new / ADAPTER_CONFIG, config | {"base_model_name_or_path": base, "revision": revision or None})
    if (policy.base_folder / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{folder} was trained on a base with an adapter of its own ({policy.base}); expected a base that "
            "plain PEFT finds. Export this one with --merge."
        )
    return policy.base


def _save_merged(name: str, new: Path) -> str:
    """Save a language model with its adapter merged; return the name of the model at the bottom."""
    policy = load_policy(name, merge=True)
    save_policy(policy.model, new, policy)
    return _trained_from(resolve(name))


def _trained_from(folder: Path) -> str:
    """Find the model at the bottom of a chain of adapters (SFT, then DPO)."""
    while (folder / ADAPTER_CONFIG).exists():
        name = base_name(folder)
        if not Path(name).is_dir() or not (Path(name) / ADAPTER_CONFIG).exists():
            return name
        folder = Path(name)
    return str(folder)


def _check(name: str, new: Path, kind: str, merged: bool) -> float | None:
    """Load the export by the plain library, and compare its logits with those of the model as Tandem loads it.

    Raises:
        Differs: the export would be another model.
    """
    if kind not in ("adapter", "causal-lm"):
        return None
    ours = load_policy(name).model.eval()
    if kind == "adapter":
        theirs = AutoPeftModelForCausalLM.from_pretrained(new, trust_remote_code=False).eval()
    else:
        theirs = AutoModelForCausalLM.from_pretrained(new, trust_remote_code=False).eval()
    ids = torch.arange(3, 35)[None] % ours.vocabulary
    with torch.no_grad():
        a, b = (
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :].float()
            for model in (ours.transformer, theirs.float())
        )
    difference = float((a - b).abs().max())
    if difference > (1e-3 if merged else 1e-5) * float(a.abs().max()):
        raise Differs(
            f"what plain libraries load has other logits than {name} (difference {difference:.3g}); nothing is exported"
        )
    return difference


def _run_of(folder: Path) -> RunFacts:
    """Read what the run folder around a model says: configuration, metrics, provenance; {} where there is none."""
    run = RunFolder(folder.parent if folder.name == MODEL else folder)
    if not run.is_begun or not run.has_config:
        return {}
    facts: RunFacts = {"provenance": run.provenance, "config": run.config}
    return facts | {"metrics": run.metrics} if run.metrics else facts


def _license(folder: Path, base: str | None, run: RunFacts) -> License | None:
    """Return the licence of the model's own card, or of its base's, of that one's base …: of those that lie on this machine."""
    if stated := read_license(folder):
        return stated
    place = folder_of({"model": {"model": base or option(run.get("config", {}), "model.model")}})
    return _license(place, None, _run_of(place)) if place and place.is_dir() else None
