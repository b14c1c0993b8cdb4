"""Names of the metrics that a language model's training measures, with their better side; None if neither side is better.

training/sft.py and training/dpo.py compute them from losses; here stands what a report of their runs must know.
"""

from research.types import Direction

TOKENS: dict[str, Direction | None] = {
    "loss": "lower",
    "perplexity": "lower",
    "token_accuracy": "higher",
    "other_loss": "lower",
}
"""Of labelled tokens; other_loss is forgetting, the loss on text that is not trained."""
PREFERENCES: dict[str, Direction | None] = {
    "loss": "lower",
    "reward_accuracy": "higher",
    "reward_margin": "higher",
    "reward_chosen": "higher",
    "reward_rejected": "lower",
    "logps_chosen": "higher",
    "logps_rejected": None,
    "tokens_chosen": None,
    "tokens_rejected": None,
    "kl": "lower",
}
"""Of preference pairs."""
