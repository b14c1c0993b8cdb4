"""Answers of one language model in Python: a model by name, prompts in, texts out."""

from collections.abc import Sequence

from research.errors import UserError
from research.models.generate import BATCH, Decoding
from research.models.generate import generate as generate_ids
from research.models.inference import best_device
from research.models.policy import Policy, load_policy
from research.prompts import Message, prompt_ids, user
from research.rag.checks import check_generation

PROMPT_TOKENS = 1024


def load_lm(model: str, precision: str = "fp32") -> Policy:
    """Load a causal language model, with the adapter that its folder has, on the GPU where there is one.

    Args:
        model: run folder of `fit`, model or adapter folder, hub id, or pkg:PACKAGE/PATH (a .gguf file too).
        precision: "fp32" | "bf16" of the weights.

    Returns:
        The language model, which `generate` takes; `.model` is a torch module, `.model.tokenizer` transformers' tokenizer.

    Raises:
        UserError: a model that cannot be read, or an adapter whose base is another one now.

    Example:
        >>> from research import generate, load_lm
        >>> lm = load_lm("my-lm")
        >>> answers = generate(lm, ["What is a mutex?", "What is a thread?"], max_new_tokens=4)
        >>> len(answers)
        2
    """
    policy = load_policy(model, precision)
    policy.model.to(best_device()).eval()
    return policy


def generate(
    model: str | Policy,
    prompts: str | Sequence[str | list[Message]],
    *,
    raw: bool = False,
    max_new_tokens: int = Decoding().max_new_tokens,
    max_prompt_tokens: int = PROMPT_TOKENS,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    batch_size: int = BATCH,
) -> list[str]:
    """Answer prompts by a language model.

    Args:
        model: as `load_lm` gives it, or by name.
        prompts: texts, each a user's turn, or conversations: lists of {"role", "content"}.
        raw: texts as they stand, without the chat template.
        max_new_tokens: the longest answer.
        max_prompt_tokens: the longest prompt.
        temperature: 0 takes the most likely token; above it tokens are drawn.
        top_p: of a draw, the smallest set of tokens with that much probability.
        seed: of the draws, 0 where it is None; only where tokens are drawn.
        batch_size: prompts at a time.

    Returns:
        One text a prompt, in order; "" where the model ends at once.

    Raises:
        UserError: a model that cannot be read, no prompt, one that is too long, or an option out of its range.

    Example:
        >>> from research import generate
        >>> generate("my-lm", "What is a mutex?", max_new_tokens=4) == generate("my-lm", ["What is a mutex?"], max_new_tokens=4)
        True
    """
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked:
        raise UserError("there is no prompt; expected one or more. Give some.")
    given = {"max_new_tokens": max_new_tokens, "max_prompt_tokens": max_prompt_tokens, "batch_size": batch_size}
    check_generation(given | {"temperature": temperature, "top_p": top_p, "seed": seed})
    policy = model if isinstance(model, Policy) else load_lm(model)
    turns = [[user(prompt)] if isinstance(prompt, str) and not raw else prompt for prompt in asked]
    ids = [prompt_ids(policy.model.tokenizer, turn, policy.base) for turn in turns]
    room = prompt_room(policy, max_prompt_tokens, max_new_tokens)
    for number, row in enumerate(ids):
        if not 0 < len(row) <= room:
            raise UserError(
                f"prompts[{number}] has {len(row)} tokens; expected 1 to {room}. Shorten it, raise --max-prompt-tokens "
                f"{max_prompt_tokens}, or lower --max-new-tokens {max_new_tokens}."
            )
    decoding = Decoding(max_new_tokens, temperature, top_p, seed or 0)
    return [answer.text for answer in generate_ids(policy.model, ids, decoding, batch_size)]


def prompt_room(policy: Policy, max_prompt_tokens: int, max_new_tokens: int) -> int:
    """Return how many tokens a prompt can have so that the longest answer still fits the model's context."""
    return min(max_prompt_tokens, policy.model.positions - policy.model.virtual_tokens - max_new_tokens)
