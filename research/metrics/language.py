"""Names of what a language model's training measures, and which side of each is the better one; None: neither.

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
