"""An encoder's or a reranker's LoRA adapter: opened together with its base, then part of the weights."""

import contextlib
import dataclasses
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import peft
from peft import set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import nn

from research.errors import UserError
from research.models.adapter_fields import WHY
from research.models.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS, has_own_weights, read_config, weight_files
from research.models.sources import adapter_base
from research.progress import say
from research.runs.layout import MODEL_FACTS

LEFT = (".bin", ".pt", ".pth", ".pkl", ".md")  # of training, or pickles: never opened, and not even shown
STACK = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", MODEL_FACTS)
"""Of a base: how it is used as an encoder. sentence-transformers leaves it out where the adapter's folder does not say it."""


@contextlib.contextmanager
def with_base_files(folder: Path) -> Iterator[Path]:
    """Return the folder itself; for an adapter, one that also has its base's weights, configuration and, if needed, tokenizer.

    Raises:
        UserError: pickled adapter weights, or a base that is not to be had.
    """
    if (folder / ADAPTER_CONFIG).exists():
        check_adapter(folder)
    if not (folder / ADAPTER_CONFIG).exists() or has_own_weights(folder):
        yield folder
        return
    base = adapter_base(folder)
    weight_files(base)
    if (base / "modules.json").exists() and not (folder / "modules.json").exists():
        say(f"{folder} has no modules.json: pooling and prompts are the library's defaults, not those of its base {base}")
    has_tokenizer = any(folder.glob("tokenizer*"))
    with tempfile.TemporaryDirectory(prefix="tandem-adapter-") as name:
        place = Path(name)
        for path in base.iterdir():
            tokenizer = path.suffix != ".safetensors" and path.name not in ("config.json", "model.safetensors.index.json")
            if path.is_file() and path.suffix not in LEFT and path.name not in STACK and not (tokenizer and has_tokenizer):
                (place / path.name).symlink_to(path.resolve())
        for path in folder.iterdir():
            if path.suffix not in LEFT and path.name not in (ADAPTER_CONFIG, "config.json"):
                (place / path.name).unlink(missing_ok=True)
                (place / path.name).symlink_to(path.resolve())
        config = read_config(folder / ADAPTER_CONFIG) | {"base_model_name_or_path": str(base.resolve()), "revision": None}
        (place / ADAPTER_CONFIG).write_text(json.dumps(config), encoding="utf-8")
        yield place


def check_saved(values: dict, folder: Path) -> None:
    """Refuse a saved configuration that this version of PEFT would ignore, or apply otherwise than when it was saved.

    Args:
        values: of adapter_config.json.
        folder: for messages.

    Raises:
        UserError: a field that this PEFT does not have, with more than nothing in it; an initialisation that is drawn.
    """
    known = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(str(values.get("peft_type")))
    if known is None:
        raise UserError(
            f"the adapter in {folder} is of type {values.get('peft_type')!r}; expected one of PEFT "
            f"{peft.__version__}. Copy it again, or name another."
        )
    fields = {field.name for field in dataclasses.fields(known)} | {"runtime_config"}
    for name, value in values.items():
        if name not in fields and value not in (None, False, "", [], {}):
            raise UserError(
                f"{folder}/adapter_config.json has {name}={str(value)[:100]}, which PEFT {peft.__version__} does "
                "not know; expected fields that it has, or nothing in them. Leave it out of the file if it changes "
                "nothing, or merge the adapter with the PEFT that saved it."
            )
    if "niter" in str(values.get("init_lora_weights")):
        raise UserError(
            f"the adapter in {folder} has init_lora_weights={values['init_lora_weights']!r}, which {WHY['niter']}; "
            "expected an adapter that does not depend on draws. Save it as plain LoRA (PEFT's "
            "path_initial_model_for_weight_conversion), or merged, where it was trained."
        )


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that an encoder or a reranker cannot read.

    Raises:
        UserError: weights that are a pickle or missing, or a method whose virtual tokens would be pooled with the text.
    """
    if not (folder / ADAPTER_WEIGHTS).exists():
        problem = "it has a pickle, which runs code when loaded" if (folder / "adapter_model.bin").exists() else "it has none"
        raise UserError(
            f"the adapter in {folder} needs its weights as {ADAPTER_WEIGHTS}; {problem}. Save it again with "
            "save_pretrained, or name another."
        )
    config = read_config(folder / ADAPTER_CONFIG)
    if config.get("num_virtual_tokens"):
        raise UserError(
            f"the adapter in {folder} is of type {config.get('peft_type')}: its virtual tokens would be read "
            "with the text; expected LORA for an encoder or a reranker. Name another."
        )


def read_by_peft(model: nn.Module, info: dict, folder: Path) -> None:
    """Give a model the weights of its adapter by PEFT's own names, in place, where transformers misses some.

    Those are DoRA's magnitudes and AdaLoRA's ranks, for example.

    Args:
        model: as transformers loaded it with the adapter.
        info: what it says of the loading; what PEFT finds is taken off.
        folder: of the adapter.
    """
    if not getattr(model, "peft_config", None) or not (info["missing_keys"] and info["unexpected_keys"]):
        return
    state = {name.removeprefix("base_model.model."): value for name, value in load_file(folder / ADAPTER_WEIGHTS).items()}
    try:
        with warnings.catch_warnings(action="ignore"):  # that a model without numbers takes none
            keys = set_peft_model_state_dict(model, state, adapter_name=next(iter(model.peft_config)))
    except (RuntimeError, KeyError, ValueError):  # of other shapes or names: what transformers said of them stands
        return
    info["missing_keys"] = {*info["missing_keys"]} & {*keys.missing_keys}
    info["unexpected_keys"] = {*keys.unexpected_keys}


def merge_adapters(stack: nn.Module, folder: Path) -> None:
    """Make the adapters in a stack part of its weights, in place.

    Raises:
        UserError: an adapter that cannot become part of them.
    """
    if not any(hasattr(module, "peft_config") for module in stack.modules()):
        return
    try:
        for parent in list(stack.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer):
                    if not next(child.parameters()).is_meta:
                        child.merge(safe_merge=True)
                    setattr(parent, name, child.get_base_layer())
                elif isinstance(child, ModulesToSaveWrapper):
                    setattr(parent, name, child.modules_to_save[child.active_adapters[0]])
                elif isinstance(child, AuxiliaryTrainingWrapper):
                    raise ValueError(type(child).__name__)
    except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
        raise UserError(
            f"the adapter in {folder} cannot become part of its base's weights "
            f"({' '.join(str(error).split())[:200]}); expected a LoRA adapter. Merge it with PEFT and name the "
            "merged model."
        ) from error
    left = ("peft_config", "_hf_peft_config_loaded", "_weight_conversions")  # the last: names of weights, as PEFT has them
    for module in stack.modules():
        for name in set(left) & vars(module).keys():
            delattr(module, name)
    for parameter in stack.parameters():
        parameter.requires_grad = True
