"""Counts the disk space that a training needs, before it begins."""

import lightning as L
import peft
import torch


def bytes_needed(module: L.LightningModule) -> int:
    """Return the bytes of two checkpoints and of the best model, twice: the next one is written beside it.

    A checkpoint holds what the module leaves in it, and two moments of what is trained; model/ what its `save` writes, but for
    the tokenizer.
    """
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    moments = 2 * sum(_size(p) for p in module.parameters() if p.requires_grad)
    return 2 * (sum(map(_size, checkpoint["state_dict"].values())) + moments) + 2 * _saved(module)


def _saved(module: L.LightningModule) -> int:
    if hasattr(module, "language") and module.model.adapted:
        return sum(map(_size, peft.get_peft_model_state_dict(module.model.transformer).values()))
    # a retriever's or reranker's adapter is merged into the weights
    return sum(_size(p) for name, p in module.model.named_parameters() if "lora_" not in name)


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
