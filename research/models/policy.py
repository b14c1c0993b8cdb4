"""Loads a language model by name, with the adapter in its folder, and saves it into a folder."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from research.errors import UserError
from research.models.adapter_fields import peft_warnings
from research.models.adapter_files import check_weights, take_tokenizer
from research.models.adapter_folder import check_saved
from research.models.adapter_rules import LORA
from research.models.adapters import kind_of
from research.models.base_cache import load_cached, release_cached_base
from research.models.causal_lm import CausalLM, load_causal_lm
from research.models.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_config
from research.models.folder import is_without_weights
from research.models.hashed import hash_model
from research.models.sources import base_name, resolve
from research.runs.files import write_json
from research.runs.hashes import hash_json
from research.runs.layout import MODEL_FACTS

MERGED = {torch.float32: 1e-4}  # of the largest logit: what rounding may move by a merge
HALF = 2e-2  # as MERGED, where the weights are of half precision


class Policy(NamedTuple):
    """A loaded language model.

    Attributes:
        model: with its adapter attached, or merged.
        base: the name that its base was found by; an adapter's folder where that was merged.
        base_folder: where the base lies.
        base_hash: sha256 of the base, and of what was merged into it.
        adapter_hash: sha256 of an adapter that is attached.
    """

    model: CausalLM
    base: str
    base_folder: Path
    base_hash: str
    adapter_hash: str | None = None


def load_policy(
    name: str, precision: str = "fp32", merge: bool = False, trainable: bool = False, above: tuple[Path, ...] = ()
) -> Policy:
    """Load a base model, or an adapter on its base.

    Args:
        name: as `sources.resolve` takes it; an adapter's folder brings its base along.
        precision: "fp32" or "bf16", of the base.
        merge: make an adapter part of the weights.
        trainable: go on training an adapter that is not merged.
        above: folders of adapters whose base this is.

    Raises:
        UserError: not found, another base than the adapter was trained on, or an adapter that cannot be merged.
    """
    folder = resolve(name, "language model")
    if not (folder / ADAPTER_CONFIG).exists():
        base_hash = hash_model(folder)
        load = functools.partial(_checked, folder, precision)
        key = (str(folder.resolve()), base_hash, precision)
        model = load() if is_without_weights() else load_cached(key, load)
        return Policy(model, _absolute(name), folder, base_hash)
    if folder.resolve() in above:
        raise UserError(
            f"the adapter in {folder} is its own base ({MODEL_FACTS} or {ADAPTER_CONFIG}); expected the model that "
            "it was trained on. Correct base_model_name_or_path."
        )
    kind = read_config(folder / ADAPTER_CONFIG).get("peft_type")
    if (merge or trainable) and kind != LORA:
        raise UserError(
            f"the adapter in {folder} is of type {kind}, which is neither made part of the weights nor trained on "
            f"here; expected {LORA} for both. Start from its base."
        )
    check_weights(folder)
    check_saved(read_config(folder / ADAPTER_CONFIG), folder)
    base = _base_of(folder, precision, above)
    model = base.model
    take_tokenizer(model, folder)
    attach_saved(model, folder, trainable=trainable and not merge)
    if not merge:
        return base._replace(adapter_hash=hash_model(folder))
    merge_adapter(model, folder)
    return Policy(model, _absolute(name), folder, hash_json([base.base_hash, hash_model(folder)]))


def _checked(folder: Path, precision: str) -> CausalLM:
    model = load_causal_lm(folder, precision)
    model.check_head()
    return model


def check_base(folder: Path, base_hash: str) -> None:
    """Refuse a base that is not the one that an adapter was trained on.

    Raises:
        UserError: the adapter in the folder was trained on another base.
    """
    facts = read_config(folder / MODEL_FACTS) if (folder / MODEL_FACTS).exists() else {}
    expected = facts.get("base_hash", base_hash)
    if expected != base_hash:
        raise UserError(
            f"the adapter in {folder} was trained on {facts.get('base')} of hash {str(expected)[:12]}…, and what "
            "is "
            f"there now has {base_hash[:12]}…; expected the same weights, or its numbers mean nothing. Bring them "
            "back, or train again."
        )


def _base_of(folder: Path, precision: str, above: tuple[Path, ...]) -> Policy:
    """Load the base of an adapter; a base that has an adapter itself (SFT before DPO) is merged.

    Raises:
        UserError: it cannot be found, or is another model now.
    """
    base = load_policy(base_name(folder), precision, merge=True, above=(*above, folder.resolve()))
    check_base(folder, base.base_hash)
    return base


def _absolute(name: str) -> str:
    """Return a local folder's absolute path, by which an adapter remembers its base."""
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name


def attach_saved(model: CausalLM, folder: Path, name: str = "default", trainable: bool = False) -> None:
    """Put the adapter of a folder on a model, or beside the adapters that it has.

    Raises:
        UserError: it is damaged, or does not fit the model.
    """
    check_weights(folder)
    try:
        with peft_warnings(f"the adapter in {folder}"):
            if model.adapted:
                model.transformer.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
            else:
                model.transformer = peft.PeftModel.from_pretrained(
                    model.transformer, str(folder), adapter_name=name, is_trainable=trainable
                )
        if not is_without_weights():  # PEFT says which weights are missing, and not which have no place
            keys = peft.set_peft_model_state_dict(model.transformer, load_file(folder / ADAPTER_WEIGHTS), adapter_name=name)
            # PEFT puts virtual tokens in their place apart from that, and writes embeddings twice
            ends = {model.base.get_input_embeddings(), model.base.get_output_embeddings()}
            twice = [name for name, module in model.base.named_modules() if module in ends]
            unplaced = [
                key
                for key in keys.unexpected_keys
                if key != "prompt_embeddings" and not any(f"{name}." in key for name in twice)
            ]
            if unplaced:
                raise ValueError(f"{ADAPTER_WEIGHTS} has {unplaced[0]}, which has no place in it")
    except UserError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the adapter in {folder} cannot be put on its base ({type(error).__name__}: {reason}); expected "
            f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} of PEFT for this model. Copy it again, or name "
            "another."
        ) from error


def merge_adapter(model: CausalLM, folder: Path) -> None:
    """Merge the adapter into the weights.

    PEFT adds a replicated layer's update to weights that other layers share, without a warning: so the outcome is compared.

    Args:
        model: with the adapter of the folder.
        folder: named in errors.

    Raises:
        UserError: PEFT cannot merge it, or the merged model is another one.
    """
    release_cached_base(model)
    before = None if is_without_weights() else model.probe()
    try:
        if getattr(model.transformer.active_peft_config, "layer_replication", None):
            raise ValueError("its layers are replicated, and share their weights")
        model.transformer = model.transformer.merge_and_unload()
        after = before if before is None else model.probe()
        limit = 0.0 if before is None else MERGED.get(model.table.dtype, HALF) * float(before.abs().max())
        if before is not None and not torch.allclose(before, after, rtol=0, atol=limit):
            raise ValueError(f"merged, its logits are off by {float((before - after).abs().max()):.3g}")
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the adapter in {folder} cannot become part of its base's weights ({reason}); expected one that PEFT "
            "can merge. Load it, or export it without --merge, as the adapter that it is."
        ) from error


def take_saved(model: CausalLM, folder: Path) -> None:
    """Load the weights of a saved LoRA adapter into an attached one with the same configuration.

    Raises:
        UserError: it is damaged, or of another shape.
    """
    try:
        keys = peft.set_peft_model_state_dict(model.transformer, load_file(folder / ADAPTER_WEIGHTS))
        if keys.unexpected_keys:
            raise ValueError(f"it has {keys.unexpected_keys[0]}")
        if missing := [key for key in keys.missing_keys if kind_of(key) != "base"]:
            raise ValueError(f"it lacks {missing[0]}")
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the adapter in {folder} does not fit the one of the configuration ({type(error).__name__}: "
            f"{reason}); "
            "expected the adapter that this configuration trained. Name its own run "
            "folder."
        ) from error


def save_policy(model: CausalLM, folder: Path, policy: Policy) -> None:
    """Save an adapter in PEFT's format, with the base's name and hash, or a whole model in transformers' format.

    Args:
        folder: made if absent; its files are replaced.
        policy: what the model was loaded as.
    """
    folder.mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()  # PEFT runs the encoder of virtual tokens to save what it gives: without its dropout
    model.transformer.save_pretrained(folder, safe_serialization=True)
    model.train(was_training)
    model.tokenizer.save_pretrained(folder)
    if model.adapted:
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        write_json(folder / MODEL_FACTS, {"base": policy.base, "base_hash": policy.base_hash})
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        # PEFT takes an adapter's folder for its base, and would lose that adapter: it must not find it
        base = str(policy.base_folder.resolve())
        if (policy.base_folder / ADAPTER_CONFIG).exists():
            base = f"{base} (an adapter, merged: research export --merge)"
        write_json(folder / ADAPTER_CONFIG, config | {"base_model_name_or_path": base})
