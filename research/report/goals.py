"""Which side of a metric is the better one, by its name: what stands unless a spec or a sweep says it."""

import re

LOWER = ("loss", "losses", "entropy", "xent", "perplexity", "ppl", "kl", "divergence", "reward rejected", "error", "err",
         "error rate", "nll", "mse", "rmse", "mae", "mape", "smape", "wer", "cer", "ter", "eer", "brier", "ece", "fid", "kid",
         "fpr", "fnr", "hallucination", "toxicity", "regret", "latency", "runtime", "duration", "seconds", "ms", "memory",
         "bits per byte", "bpb", "bits per char", "bits per character", "bpc", "rank loss", "edit distance", "levenshtein",
         "distance", "far", "frr", "logloss", "log loss", "cost", "params", "flops")  # fmt: skip
"""Last words of metrics of which the lowest value is the best; many are other programs'."""
HIGHER = ("accuracy", "acc", "precision", "recall", "f1", "f2", "fbeta", "auc", "auroc", "auprc", "ap", "map", "mrr", "ndcg",
          "dcg", "hit", "hits", "hit rate", "success", "success rate", "match", "em", "rouge", "rouge l", "rouge 1", "rouge 2",
          "rouge lsum", "rougel", "rouge1", "rouge2", "rougelsum", "bleu", "sacrebleu", "chrf", "meteor", "bertscore", "comet",
          "win rate", "winrate", "reward", "reward chosen", "reward margin", "margin", "likelihood", "r2", "pearson",
          "spearman", "kendall", "correlation", "cosine", "similarity", "kappa", "mcc", "iou", "dice", "psnr", "ssim",
          "coverage", "faithfulness", "specificity", "sensitivity", "tpr", "throughput", "per second")  # fmt: skip
"""The same of which the highest is."""
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test")
UNTELLING = (*SPLITS, "min", "max", "mean", "avg", "best", "last", "final", "epoch", "step")
"""Words after a metric's name that say of what or when it is."""


def direction(metric: str) -> str | None:
    """lower | higher: which side of a metric is the better one, by its name, with its split or without: val/loss, loss/val,
    val_loss_epoch; None of a name that does not tell."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9/@]+", " ", re.sub(r"/dataloader_idx_\d+$", "", metric)).lower()
    parts = [part.split() for part in spaced.partition("@")[0].split("/") if part.strip() not in SPLITS]
    words = parts[-1] if parts else []
    while words and words[-1] in UNTELLING:
        words.pop()
    for side, names in (("lower", LOWER), ("higher", HIGHER)):
        if any(words[-len(name) :] == name for name in map(str.split, names)):
            return side
    return None


def is_lower(metric: str) -> bool:
    """Whether less of a metric is better; of a name that does not tell, more is taken for better."""
    return direction(metric) == "lower"
