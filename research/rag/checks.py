"""Options of generation, checked before a model is loaded."""

from collections.abc import Mapping

from research.errors import UserError


def check_generation(given: Mapping[str, object]) -> None:
    """Refuse options out of their range.

    Args:
        given: temperature and top_p; limit, seed, max_new_tokens, max_prompt_tokens and batch_size where they are not None.

    Raises:
        UserError: as said.
    """
    for name in ("limit", "max_new_tokens", "max_prompt_tokens", "batch_size"):
        if (value := given.get(name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}; expected 1 or more. Correct it.")
    temperature, top_p = given["temperature"], given["top_p"]
    if not 0 <= temperature < 100:
        raise UserError(f"--temperature {temperature}; expected 0 (no draws) to below 100. Correct it.")
    if not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p}; expected above 0 to 1. Correct it.")
    if top_p < 1 and not temperature:
        raise UserError(
            f"--top-p {top_p} without --temperature: nothing is drawn; expected both, or neither. Pass --temperature 1, say."
        )
    if (seed := given.get("seed")) is not None and not temperature:
        raise UserError(
            f"--seed {seed} without --temperature: nothing is drawn; expected both, or neither. Pass --temperature 1, say, or "
            "leave --seed out."
        )
