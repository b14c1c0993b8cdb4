"""Which side of a metric is the better one, by its name: what stands unless a spec or a sweep says it."""

import re

LOWER = ("loss", "perplexity", "ppl", "kl", "reward rejected", "error", "err", "error rate", "nll", "mse", "rmse", "mae", "wer",
         "cer", "bits per byte", "bpb")  # fmt: skip
"""Last words of metrics of which the lowest value is the best; many are other programs'."""
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test")
UNTELLING = (*SPLITS, "min", "max", "mean", "avg", "best", "last", "final", "epoch", "step")
"""Words after a metric's name that say of what or when it is."""


def is_lower(metric: str) -> bool:
    """Whether less of a metric is better, by its name, with its split or without: val/loss, loss/val, val_loss_epoch."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9/@]+", " ", re.sub(r"/dataloader_idx_\d+$", "", metric)).lower()
    parts = [part.split() for part in spaced.partition("@")[0].split("/") if part.strip() not in SPLITS]
    words = parts[-1] if parts else []
    while words and words[-1] in UNTELLING:
        words.pop()
    return any(words[-len(low) :] == low for low in map(str.split, LOWER))
