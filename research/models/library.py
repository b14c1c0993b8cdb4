"""Opens model folders by sentence-transformers itself, without pickles, without the folder's code, without random weights.

What a folder is, is read off the loaded stack of modules. What the library would pass over with a warning is refused here.
"""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

from safetensors import safe_open
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from torch import nn
from transformers import PreTrainedModel

from research.errors import UserError
from research.models.adapter_fields import peft_warnings
from research.models.adapter_folder import check_adapter, check_saved, merge_adapters, read_by_peft, with_base_files
from research.models.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS, has_own_weights, read_config
from research.models.folder import DTYPES, check_weights, is_without_weights, loading, quiet, unreadable
from research.models.guard import check, check_text, listening, module_paths, no_pickles
from research.models.sources import adapter_base
from research.progress import say

SAVED = {
    "__version__",
    "model_type",
    "prompts",
    "default_prompt_name",
    "similarity_fn_name",
    "truncate_dim",
    "activation_fn",
    "keep_in_fp32_modules",
    "requirements",
}
HARMLESS = ("Default prompt name", "Converting", "No sentence-transformers", "This model was loaded in")
Stack = TypeVar("Stack", SentenceTransformer, CrossEncoder)


def open_encoder(folder: Path, precision: str) -> SentenceTransformer:
    """Open the stack of an encoder's folder, in eval mode, on the CPU; without weights within `without_weights`.

    Args:
        folder: as `sources.resolve` gives it.
        precision: "fp32" or "bf16", of the weights.

    Raises:
        UserError: whatever sentence-transformers cannot load, would load only in part, or would ask to trust.
    """
    check(folder)
    with _opening(folder) as (place, warned, loaded):
        stack = SentenceTransformer(str(place), **_load_options(precision))
    kinds = [message for message in warned if message.startswith("Converting")]
    if kinds:
        kind = kinds[0].split()[1]
        cure = "Name it as --reranker" if kind == "CrossEncoder" else "Name a SentenceTransformer"
        raise UserError(
            f"model folder {folder} is a {kind} of sentence-transformers, which has no single embedding a text; "
            f"expected an encoder. {cure}."
        )
    saved = folder / "config_sentence_transformers.json"
    similarity = read_config(saved).get("similarity_fn_name") if saved.exists() else None
    if similarity is not None and similarity not in stack.SUPPORTED_SIMILARITY_FN_NAMES:
        raise UserError(
            f"{saved} has similarity_fn_name {similarity!r}; expected cosine or dot. Correct it, or name another model."
        )
    dim = stack.truncate_dim
    if dim is not None and (type(dim) is not int or dim < 1):
        raise UserError(
            f"{saved} has truncate_dim {dim!r}, expected a whole number above 0, or none. Correct it, or copy or "
            "download the folder again."
        )
    return _finished(stack, folder, precision, loaded)


def open_reranker(folder: Path, precision: str, new_head: bool = False) -> CrossEncoder:
    """Open the stack of a reranker's folder, in eval mode, on the CPU; without weights within `without_weights`.

    Args:
        folder: as `sources.resolve` gives it.
        precision: "fp32" or "bf16", of the weights.
        new_head: an encoder, or a language model, gets a classification head of one label, drawn at random.

    Raises:
        UserError: as `open_encoder`.
    """
    check(folder)
    with _opening(folder, new_head) as (place, _, loaded):
        options = _load_options(precision)
        labels = 1 if new_head else head_labels(folder)
        if labels is not None:
            # the pair as it is, whatever template a language model has for its chats
            text = {"text": {"method": "forward", "method_output_name": "logits"}}
            shared = {"trust_remote_code": False, "local_files_only": True}
            first = Transformer(
                str(place),
                transformer_task="sequence-classification",
                modality_config=text,
                module_output_name="scores",
                model_kwargs=options["model_kwargs"] | shared,
                processor_kwargs=dict(shared),
                config_kwargs=shared | {"num_labels": labels},
            )
            stack = CrossEncoder(modules=[first], device=str(next(first.parameters()).device))
        else:
            stack = CrossEncoder(str(place), **options)
    for module in stack:
        unknown = getattr(stack.tokenizer, "unk_token_id", None)
        if type(module) is LogitScore and unknown is not None and unknown in (module.true_token_id, module.false_token_id):
            raise UserError(
                f"model folder {folder} is a language model whose tokenizer has no tokens yes and no, by which it "
                "would be a reranker; expected a model trained to rank. Name another."
            )
    return _finished(stack, folder, precision, loaded)


def head_labels(folder: Path) -> int | None:
    """Count the labels of the head in a classifier's adapter; None for other folders, whose configuration says it."""
    if not (folder / ADAPTER_CONFIG).exists() or has_own_weights(folder) or (folder / "modules.json").exists():
        return None
    if read_config(folder / ADAPTER_CONFIG).get("task_type") != "SEQ_CLS":
        return None
    check_adapter(folder)
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
        heads = [name for name in file.keys() if name.endswith(".weight") and "lora_" not in name]  # noqa: SIM118
        shapes = [file.get_slice(name).get_shape() for name in sorted(heads)]
    rows = [shape[0] for shape in shapes if len(shape) == 2]
    base = adapter_base(folder) / "config.json"
    return rows[-1] if rows else len((read_config(base) if base.exists() else {}).get("id2label") or [0])


def _load_options(precision: str) -> dict[str, object]:
    model = {"dtype": DTYPES[precision], "use_safetensors": True}
    placed = (
        {"model_kwargs": model | {"device_map": "meta"}} if is_without_weights() else {"model_kwargs": model, "device": "cpu"}
    )
    return {"trust_remote_code": False, "local_files_only": True, **placed}


@contextlib.contextmanager
def _opening(folder: Path, new_head: bool = False) -> Iterator[tuple[Path, list[str], list]]:
    """Yield the folder to open, the library's warnings, and the loaded models with what their files lacked.

    Of an adapter it is a folder with its base's files. Errors of the libraries become UserErrors.
    """
    warned: list[str] = []
    loaded: list[tuple[PreTrainedModel, dict]] = []
    try:
        if adapted := (folder / ADAPTER_CONFIG).exists():
            check_saved(read_config(folder / ADAPTER_CONFIG), folder)
        listener = peft_warnings(f"the adapter in {folder}") if adapted else contextlib.nullcontext()
        with listener, with_base_files(folder) as place, quiet(), listening(warned), loading(loaded), no_pickles():
            yield place, warned, loaded
        with quiet():
            for model, info in list(loaded):
                read_by_peft(model, info, folder)
                check_weights(folder, model, info, new_head)
                if getattr(model, "peft_config", None):
                    _check_base(folder, model, new_head)
    except UserError:
        raise
    except Exception as error:  # the libraries raise OSError, ValueError, KeyError, SafetensorError, … for bad folders
        raise unreadable(folder, error) from error
    saved = folder / "config_sentence_transformers.json"
    unread = sorted(read_config(saved).keys() - SAVED) if saved.exists() else []
    if unread:
        say(f"{saved} says {', '.join(unread)}, which sentence-transformers does not read")
    for message in warned:
        if any(phrase in message for phrase in ("not trusted", "Ignoring un", "Could not parse", "Unknown keys")):
            raise UserError(
                f"model folder {folder} asks for what sentence-transformers leaves out: {message[:300]} Expected a "
                "folder that is read whole. Name another model."
            )
        if not message.startswith(HARMLESS):
            say(f"{folder}: {message[:300]}")


def _check_base(folder: Path, model: PreTrainedModel, new_head: bool) -> None:
    """Check that the adapter has what its base lacks (a trained head): transformers tells of the adapter alone."""
    base = folder if has_own_weights(folder) else adapter_base(folder)
    config = copy.deepcopy(model.config)
    _, info = type(model).from_pretrained(
        base,
        config=config,
        device_map="meta",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        adapter_kwargs={"_adapter_model_path": None},
    )
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
        trained = {name.removeprefix("base_model.model.").replace(".modules_to_save", "") for name in file.keys()}  # noqa: SIM118
    info["missing_keys"] = {name for name in info["missing_keys"] if name not in trained}
    check_weights(base, SimpleNamespace(base_model_prefix=model.base_model_prefix), info, new_head)


def _finished(stack: Stack, folder: Path, precision: str, loaded: list[tuple[PreTrainedModel, dict]]) -> Stack:
    merge_adapters(stack, folder)
    if precision != "fp32":  # the library casts what lies at the top, where the first module has that precision
        inner = {id(module) for transformer in transformers_of(stack) for module in transformer.model.modules()}
        for module in (module for module in stack.modules() if id(module) not in inner):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(DTYPES[precision])
    missing = {id(model): info["missing_keys"] for model, info in loaded}
    for module in transformers_of(stack):
        lost = [name for name in missing.get(id(module.model), ()) if name.startswith("pooler.")]
        if lost and uses_pooler(module):
            raise UserError(
                f"model folder {folder} lacks {len(lost)} weights that its modules ask for ({lost[0]}, …); they "
                "would be random. Expected the weights of the pooler; save the model again."
            )
        check_text(module, folder)
        tokenizer = module.tokenizer
        if tokenizer.pad_token_id is None:  # the library pads, and masks: any token does that a model can read
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or min(tokenizer.get_vocab())
    return stack.eval()


def float_projections(stack: SentenceTransformer, folder: Path) -> None:
    """Load the Dense modules' weights in their files' own precision: they are small, and applied to float32 in any case."""
    for module, path in zip(stack, module_paths(folder), strict=False):
        if type(module) is Dense:
            read = Dense.load(str(folder), subfolder=path, local_files_only=True)
            module.load_state_dict(read.state_dict(), assign=True)


def uses_pooler(module: Transformer) -> bool:
    """Return whether the stack uses the model's own pooler instead of its last hidden states."""
    return any("pooler" in str(call["method_output_name"]) for call in module.modality_config.values())


def transformers_of(stack: nn.Module) -> list[Transformer]:
    """List every Transformer module of a stack."""
    return [module for module in stack.modules() if isinstance(module, Transformer)]
