"""Models as folders that this house and sentence-transformers load alike."""

import dataclasses
from pathlib import Path

from safetensors.torch import save_file

from research.models.adapters import merged
from research.models.cross_encoder import CrossEncoder
from research.models.dual_encoder import DualEncoder, TextEncoder
from research.models.settings import LENGTHS_FILE
from research.runfolder import write_json

POOLING_NAMES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
MODULE = "sentence_transformers.models."


def save_dual_encoder(model: DualEncoder, folder: Path) -> None:
    """One folder for a shared tower, `query/` and `doc/` for separate ones.

    Args:
        folder: made if absent; its files are replaced.
    """
    if model.query is model.doc:
        save_text_encoder(model.doc, folder)
    else:
        save_text_encoder(model.query, folder / "query")
        save_text_encoder(model.doc, folder / "doc")


def save_text_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Transformer, tokenizer, and sentence-transformers' modules: Pooling, Dense, Normalize."""
    settings = encoder.settings
    folder.mkdir(parents=True, exist_ok=True)
    merged(encoder.transformer).save_pretrained(folder, safe_serialization=True)
    encoder.tokenizer.save_pretrained(folder)
    longest = max(settings.query_max_length, settings.doc_max_length)
    kinds = [
        "Transformer",
        "Pooling",
        *("Dense" for _ in settings.dense),
        *(["Normalize"] if settings.normalize else []),
    ]
    paths = [f"{i}_{kind}" if i else "" for i, kind in enumerate(kinds)]
    write_json(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": MODULE + kind}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ])  # fmt: skip
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": settings.lower_case})
    write_json(folder / "config_sentence_transformers.json", {
        "prompts": {"query": settings.query_prompt, "document": settings.doc_prompt}, "default_prompt_name": None,
        "similarity_fn_name": settings.similarity,
    })  # fmt: skip
    write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": encoder.transformer.config.hidden_size, "include_prompt": settings.include_prompt,
        "pooling_mode": POOLING_NAMES[settings.pooling],
    })  # fmt: skip
    linears = [layer for layer in encoder.dense if hasattr(layer, "weight")] if settings.dense else []
    for path, dense, linear in zip(paths[2:], settings.dense, linears, strict=False):
        activation = {"identity": "Identity", "tanh": "Tanh", "gelu": "GELU", "relu": "ReLU"}[dense.activation]
        write_json(folder / path / "config.json", {
            "in_features": dense.in_features, "out_features": dense.out_features, "bias": dense.bias,
            "activation_function": f"torch.nn.modules.{'linear' if activation == 'Identity' else 'activation'}.{activation}",
        })  # fmt: skip
        state = {f"linear.{name}": tensor.detach().cpu().contiguous() for name, tensor in linear.state_dict().items()}
        save_file(state, folder / path / "model.safetensors")
    # sentence-transformers knows one length; ours are a role's own
    write_json(folder / LENGTHS_FILE, {name: value for name, value in dataclasses.asdict(settings).items()
                                       if name.endswith("max_length")})  # fmt: skip


def save_cross_encoder(model: CrossEncoder, folder: Path) -> None:
    """A Hugging Face sequence classifier, which sentence-transformers' CrossEncoder loads too."""
    folder.mkdir(parents=True, exist_ok=True)
    merged(model.transformer).save_pretrained(folder, safe_serialization=True)
    model.tokenizer.model_max_length = model.max_length
    model.tokenizer.save_pretrained(folder)
