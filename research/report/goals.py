"""Which side of a metric is better, for reports: as it is declared where it is made; else as names are commonly meant.

A report says what it took from a name: runs of any program are read, and of their metrics nothing is declared.
"""

import re
from collections.abc import Iterable, Mapping

from research.metrics import directions
from research.runs.record import RunRecord
from research.types import Direction

LOWER = (
    """
loss, losses, entropy, xent, perplexity, ppl, kl, divergence, div, reward rejected, error, err, error rate, nll, mse,
rmse, msle, rmsle, mae, mape, smape, wer, cer, ter, eer, hter, brier, ece, fid, kid, lpips, fpr, fnr, false positive,
false positives, false negative, false negatives, miss, hallucination, toxicity, regret, forgetting, drop, degradation,
latency, time, runtime, duration, elapsed, seconds, ms, memory, mb, mib, gb, gib, bytes, energy, bits per byte, bpb,
bits per char, bits per character, bpc, bits per dim, bpd, rank, rank loss, medr, edit distance, levenshtein,
wasserstein, chamfer, distance, far, frr, logloss, log loss, ce, bce, cost, params, parameters, flops
""".replace("\n", " ")
    .strip()
    .split(", ")
)
"""Last words of metrics of which the lowest value is the best; many are other programs'."""
HIGHER = (
    """
accuracy, acc, precision, prec, recall, f1, f2, fbeta, auc, auroc, auprc, aupr, auc roc, auc pr, ap, map, mrr,
reciprocal rank, recip rank, bpref, ndcg, dcg, hit, hits, success, pass, match, em, rouge, rouge l, rouge lsum, rougel,
rouge1, rouge2, rougelsum, bleu, bleu1, bleu2, bleu3, bleu4, sacrebleu, chrf, meteor, bertscore, bert score, comet, win,
winrate, reward, reward chosen, reward margin, margin, likelihood, r2, pearson, spearman, kendall, correlation, cosine,
similarity, kappa, mcc, iou, miou, dice, psnr, ssim, coverage, faithfulness, specificity, sensitivity, tpr, tnr, true
positive, true negative, throughput, speed, fps, qps, mfu, improvement, gain, speedup
""".replace("\n", " ")
    .strip()
    .split(", ")
)
"""Last words of metrics of which the highest value is the best."""
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test")
NEUTRAL = {*SPLITS} | set(
    "min max mean avg average median best last final epoch step steps total sum overall macro micro weighted "
    "norm normalized normalised ema smooth smoothed score scores value rate ratio count percent pct at cut top "
    "fmeasure raw ".split()
)
"""Words after a metric's name that tell its split, time or unit, and not its better side; numbers, top5 and p95 too."""
NUMBERS = re.compile(r"(top|p|k)?\d+")
SETTINGS = ("scale", "weight", "fn", "type")  # of a loss
TIMES = ("s", "sec", "second", "seconds", "minute", "hour")


def direction(metric: str, declared: Mapping[str, Direction] | None = None) -> Direction | None:
    """Return the better side of a metric, with its split or without (val/loss, loss/val, val_loss_epoch); None: not known.

    Args:
        declared: metric → better side, as its run records it.
    """
    return declaration(metric, declared) or convention(metric)


def declaration(metric: str, declared: Mapping[str, Direction] | None = None) -> Direction | None:
    """Return the better side as the run or this code declares it; None of a foreign metric, or where neither is better."""
    return directions.direction(metric, declared or {}) or directions.direction(metric)


def convention(metric: str) -> Direction | None:
    """Return the better side of metrics that are commonly so called; None of a name that does not tell."""
    plain = re.sub(r"/dataloader_idx_\d+$", "", metric).partition(",")[0]  # lm-eval's acc_norm,none
    # ERR@k is the expected reciprocal rank, and no error
    plain = re.sub(r"(?i)\berr@", "reciprocal_rank@", plain)
    return _side(_words(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", plain))) or _side(_words(plain))  # chrF is one word


def _words(name: str) -> list[str]:
    spaced = re.sub(r"[^A-Za-z0-9/@]+", " ", name).lower()
    parts = [part.split() for part in spaced.partition("@")[0].split("/") if part.strip() not in SPLITS]
    return parts[-1] if parts else []


def _side(words: list[str]) -> Direction | None:
    """Return the better side that the last known words of a metric's name tell; None where they tell none."""
    all_words = words
    while words:
        matches = [
            (len(name), side, name[-1])
            for side, names in (("lower", LOWER), ("higher", HIGHER))
            for name in map(str.split, names)
            if words[-len(name) :] == name
        ]
        if matches:
            _, side, last = max(matches)
            # scikit-learn's neg_mean_squared_error; a negative_recall is the recall of a class
            if all_words[0] in ("neg", "negative", "minus") and (side == "lower" or last == "likelihood"):
                return "higher" if side == "lower" else "lower"
            return side
        if "per" in words[:-1]:  # tokens per second; ms per query
            before = words.index("per")
            if words[before + 1] in TIMES:
                return "higher"
            words = words[:before]
        elif words[-1] in NEUTRAL or NUMBERS.fullmatch(words[-1]):
            words = words[:-1]
        else:
            break
    return "lower" if len(all_words) == 2 and all_words[0] == "loss" and all_words[1] not in SETTINGS else None  # loss_bbox


def recorded(runs: Iterable[RunRecord]) -> dict[str, Direction]:
    """Map each metric to its better side, as the trainers of these runs declare it."""
    return {name: side for run in runs for name, side in run.directions.items()}


def is_lower(metric: str, declared: Mapping[str, Direction] | None = None) -> bool:
    """Return whether less of a metric is better; more is taken for better where nothing tells its side."""
    return direction(metric, declared) == "lower"
