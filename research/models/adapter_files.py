"""The files of an adapter's folder beside its configuration: weights, and the tokenizer that it was trained with."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from research.errors import UserError
from research.models.causal_lm import CausalLM, with_padding
from research.models.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS, VOCABULARY_FILES, read_config
from research.models.folder import unreadable


def check_weights(folder: Path) -> None:
    """Refuse an adapter whose weights are not safetensors.

    Raises:
        UserError: the adapter's weights are absent, or in a pickle only.
    """
    if (folder / ADAPTER_WEIGHTS).is_file():
        return
    pickled = [path.name for path in sorted(folder.glob("adapter_model.*"))]
    there = f"it has {', '.join(pickled)}, and pickled weights run code when loaded" if pickled else "nor any other weights"
    raise UserError(
        f"the adapter in {folder} has no {ADAPTER_WEIGHTS}; {there}; expected safetensors. Save it again with "
        "PEFT's save_pretrained, or name another."
    )


def take_tokenizer(model: CausalLM, folder: Path) -> None:
    """Give a model the tokenizer, or the chat template alone, that lies in its adapter's folder: it was trained with that one.

    Tokens that the base does not have get rows of their own, as PEFT's AutoPeftModel makes them, which the adapter must fill.

    Raises:
        UserError: it cannot be read, or has tokens whose rows are nowhere.
    """
    rows = _saved_rows(model, folder)
    if rows and rows != model.vocabulary:  # that of the resized base, which may have more than the tokenizer, or fewer
        model.transformer.resize_token_embeddings(rows, mean_resizing=False)
    if not any((folder / name).exists() for name in VOCABULARY_FILES):
        template = folder / "chat_template.jinja"
        if template.exists():
            model.tokenizer.chat_template = template.read_text(encoding="utf-8")
        elif (path := folder / "tokenizer_config.json").exists() and read_config(path).get("chat_template"):
            model.tokenizer.chat_template = read_config(path)["chat_template"]
        return
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True, trust_remote_code=False)
        highest = max(tokenizer.get_vocab().values())
    except Exception as error:  # as load_transformer
        raise unreadable(folder, error) from error
    if highest >= model.vocabulary:
        _check_new_rows(model, folder, highest)
        model.transformer.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.tokenizer = with_padding(tokenizer)


def _saved_rows(model: CausalLM, folder: Path) -> int:
    """Count the rows of the embedding table that the adapter was saved with; 0 if it has none."""
    names = [name for name, module in model.transformer.named_modules() if module is model.base.get_input_embeddings()]
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            shapes = [
                file.get_slice(key).get_shape()
                for key in file.keys()  # noqa: SIM118
                if names and f"{names[0]}." in key and "lora_" not in key and key.endswith("weight")
            ]
    except (SafetensorError, OSError):
        return 0  # attach_saved says what is wrong with it
    return max((shape[0] for shape in shapes if shape[1:] == [model.table.shape[1]]), default=0)


def _check_new_rows(model: CausalLM, folder: Path, highest: int) -> None:
    """Refuse a tokenizer with tokens whose embeddings neither base nor adapter has.

    Raises:
        UserError: the adapter does not bring rows for the tokens that its tokenizer has beyond the base's.
    """
    trained = read_config(folder / ADAPTER_CONFIG).get("trainable_token_indices") or []
    trained = trained if isinstance(trained, list) else [token for tokens in trained.values() for token in tokens]
    if not {*range(model.vocabulary, highest + 1)} <= {*trained}:
        raise UserError(
            f"the tokenizer in {folder} has ids up to {highest}, its base {model.vocabulary} rows of embeddings, "
            f"and {ADAPTER_WEIGHTS} none of its own: they would be random. Expected the tokenizer that the "
            "adapter was trained with, or an adapter saved with its embeddings. Copy the folder "
            "again."
        )
