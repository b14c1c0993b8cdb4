"""A trained model as a folder that plain sentence-transformers, transformers or PEFT loads, with a model card.

research export runs/mine --out exported/retriever
research export runs/sft --out exported/adapter              # a PEFT folder
research export runs/sft --merge --out exported/model        # LoRA as part of the weights
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import say


class Differs(Exception):
    """The exported folder is another model than the one that was to be exported."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, model or adapter folder, hub id, or pkg:PACKAGE/PATH")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--merge", action="store_true", help="a LoRA adapter as part of its base's weights")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def run(args: argparse.Namespace) -> int:
    from research.models.adapters import LORA
    from research.models.sources import ADAPTER_CONFIG, check_name, read_config, resolve
    from research.report.card import model_card
    from research.runs.disk import require_space
    from research.runs.files import atomic_write, replace_folder
    from research.training.curves import writing

    check_name(args.model)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"--out {args.out} exists and is not an empty folder; expected a new one. Name another, or delete it.")
    folder = resolve(args.model)
    retriever = _adapter_of_retrieval(folder)
    adapter = (folder / ADAPTER_CONFIG).exists() and retriever is None
    if args.merge and not adapter and retriever is None:
        raise UserError(f"--merge: {folder} holds no adapter ({ADAPTER_CONFIG}); expected one to merge. Leave --merge out.")
    if args.merge and adapter and (method := read_config(folder / ADAPTER_CONFIG).get("peft_type")) != LORA:
        raise UserError(
            f"--merge: the adapter in {folder} is of type {method}, whose virtual tokens cannot become part of the "
            f"weights; expected {LORA}. Export it without --merge: PEFT loads it on its base."
        )
    require_space(args.out.parent, 2 * _size(folder), "the exported model")
    kind = "causal-lm" if adapter else retriever or _kind(folder)
    try:
        with writing(args.out), replace_folder(args.out) as new:
            if retriever is not None:
                base = _save_merged(folder, new, retriever)
            else:
                base = _merge(args.model, new) if args.merge else _copy(folder, new, args.model if adapter else None)
            kind = "adapter" if adapter and not args.merge else kind
            difference = _check(args.model, new, kind, args.merge)
            with atomic_write(new / "README.md") as stream:
                stream.write(model_card(kind, args.out.resolve().name, base, _run_of(folder)))
    except Differs as error:
        say(f"error: {error}")
        return 1
    if difference is not None:
        say(f"loaded again by plain {'PEFT' if kind == 'adapter' else 'transformers'}: logits differ by {difference:.2g}")
    facts = {"out": str(args.out), "kind": kind, "base": base, "difference": difference}
    print(json.dumps(facts) if args.json else f"written to {args.out} ({kind}; README.md says how it is loaded)")
    return 0


def _kind(folder: Path) -> str:
    """sentence-transformers | two-towers | cross-encoder | causal-lm | transformers"""
    from research.models.sources import read_config

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
    """sentence-transformers | cross-encoder of an adapter's folder on an encoder or a reranker; None of any other folder."""
    from research.models.sources import ADAPTER_CONFIG, adapter_base, read_config

    if not (folder / ADAPTER_CONFIG).exists():
        return None
    task = read_config(folder / ADAPTER_CONFIG).get("task_type")
    if (folder / "modules.json").exists() or task in ("SEQ_CLS", "FEATURE_EXTRACTION"):
        return "cross-encoder" if task == "SEQ_CLS" else _kind(folder)
    return "sentence-transformers" if task is None and _kind(adapter_base(folder)) != "causal-lm" else None


def _save_merged(folder: Path, new: Path, kind: str) -> str:
    """An encoder's or a reranker's adapter as part of its base's weights, which any library loads; the base's name."""
    from research.models.cross_encoder import load_cross_encoder
    from research.models.dual_encoder import DualEncoder
    from research.models.saving import save_cross_encoder, save_dual_encoder
    from research.models.sources import base_name

    if kind == "cross-encoder":
        save_cross_encoder(load_cross_encoder(folder), new)
    else:
        save_dual_encoder(DualEncoder.load(folder), new)
    return base_name(folder)


def _copy(folder: Path, new: Path, adapter: str | None) -> str | None:
    """The folder's files; of an adapter, the name of its base, which PEFT will look for."""
    from research.models.hashed import everything_in
    from research.models.policy import load_policy
    from research.models.sources import ADAPTER_CONFIG
    from research.runs.files import write_json
    from research.runs.layout import MODEL_FACTS

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
    hub = not policy.base.startswith(("pkg:", "random:")) and not Path(policy.base).exists()
    base, _, revision = policy.base.partition("@") if hub else (str(policy.base_folder.resolve()), "", "")
    config = json.loads((new / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_json(new / ADAPTER_CONFIG, config | {"base_model_name_or_path": base, "revision": revision or None})
    if (policy.base_folder / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{folder} was trained on a base with an adapter of its own ({policy.base}); expected a base that "
            "plain PEFT finds. Export this one with --merge."
        )
    return policy.base


def _merge(name: str, new: Path) -> str:
    from research.models.policy import load_policy, save_policy
    from research.models.sources import resolve

    policy = load_policy(name, merge=True)
    save_policy(policy.model, new, policy)
    return _trained_from(resolve(name))


def _trained_from(folder: Path) -> str:
    """The model at the bottom of a chain of adapters (SFT, then DPO)."""
    from research.models.sources import ADAPTER_CONFIG, base_name

    while (folder / ADAPTER_CONFIG).exists():
        name = base_name(folder)
        if not Path(name).is_dir() or not (Path(name) / ADAPTER_CONFIG).exists():
            return name
        folder = Path(name)
    return str(folder)


def _check(name: str, new: Path, kind: str, merged: bool) -> float | None:
    """Load the export as a stranger would, and compare its logits with those of the model as Tandem loads it.

    Raises:
        Differs: the export would be another model.
    """
    if kind not in ("adapter", "causal-lm"):
        return None
    import torch
    from transformers import AutoModelForCausalLM

    from research.models.policy import load_policy

    ours = load_policy(name).model.eval()
    if kind == "adapter":
        from peft import AutoPeftModelForCausalLM

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


def _run_of(folder: Path) -> dict[str, Any]:
    """What the run folder around a model says: configuration, metrics, provenance; {} where there is none."""
    import yaml

    from research.runs.layout import MARKER
    from research.runs.reading import read_json

    run = folder.parent if folder.name == "model" else folder
    if not (run / MARKER).exists() or not (run / "config.yaml").exists():
        return {}
    found = {"provenance": read_json(run / MARKER), "config": yaml.safe_load((run / "config.yaml").read_text("utf-8"))}
    if (run / "metrics.json").exists():
        found["metrics"] = read_json(run / "metrics.json")
    return found


def _size(folder: Path) -> int:
    from research.models.hashed import everything_in

    return sum(path.stat().st_size for path in everything_in(folder) if path.is_file())
