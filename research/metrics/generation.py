"""Metrics of generated texts against one or several references, per example: the best over the references.

Exact match and token F1 compare after SQuAD's normalisation (lower case, no punctuation, no articles, single blanks).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from research.types import Direction

ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Normalise a text as SQuAD does: lower case, no punctuation, no articles, single blanks.

    Source: the evaluation script of SQuAD 1.1, Rajpurkar et al. 2016.
    """
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the answer equals a reference after normalising, else 0."""
    return float(any(normalise(answer) == normalise(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Compute the harmonic mean of the words' precision and recall, counted with repetition; two empty texts agree."""
    return max(_f1(normalise(answer).split(), normalise(reference).split()) for reference in references)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Compute the F-measure of the longest common subsequence of words, with Porter stemming, as rouge-score does.

    Source: Lin 2004, §3; the package rouge-score.
    """
    from rouge_score.rouge_scorer import RougeScorer  # here: it loads nltk, for this metric alone

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in references)


METRICS: dict[str, tuple[Callable[[str, Sequence[str]], float], Direction]] = {
    "exact_match": (exact_match, "higher"),
    "token_f1": (token_f1, "higher"),
    "rouge_l": (rouge_l, "higher"),
}
"""Name → function, and which side of its value is the better one."""
DIRECTIONS = {name: better for name, (_, better) in METRICS.items()}


def evaluate(answers: dict[str, str], references: dict[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Compute {metric: {example: value}} of every example that has a reference; one without an answer counts as the empty text.

    Args:
        answers: example → generated text.
        references: example → texts, one or more.
    """
    return {
        name: {example: metric(answers.get(example, ""), texts) for example, texts in references.items()}
        for name, (metric, _) in METRICS.items()
    }


def _f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    common = sum((Counter(answer) & Counter(reference)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)
