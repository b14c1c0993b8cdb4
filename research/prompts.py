"""Prompts of the tasks: what a language model is asked, in one place for training, generation and pages."""

from typing import TYPE_CHECKING

from research.errors import UserError

if TYPE_CHECKING:  # the short help needs no transformers
    from transformers import PreTrainedTokenizerBase

DOCSTRING = "Write the first sentence of this Python function's docstring.\n\n```python\n{code}\n```"
INSTRUCTION = "{instruction}\n\n{context}"

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""


def instruction(text: str, context: str = "") -> list[Message]:
    """A question or order, with the passage that it is about, as one user turn."""
    return [user(INSTRUCTION.format(instruction=text, context=context) if context else text)]


def docstring(code: str) -> list[Message]:
    """The embedded task: code → the first paragraph of its docstring."""
    return [user(DOCSTRING.format(code=code))]


def user(text: str) -> Message:
    """Return a user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """Return an assistant's message."""
    return {"role": "assistant", "content": text}


class Asked(list):
    """Messages that are to be answered, with what their row says beside them.

    Attributes:
        options: tools and the template's own arguments.
    """

    def __init__(self, messages: list[Message], options: dict[str, object]):
        super().__init__(messages)
        self.options = options


def asked(row: dict) -> str | list[Message]:
    """The prompt of an instruction row; messages keep the row's tools and the template's arguments."""
    options = ({"tools": row["tools"]} if "tools" in row else {}) | row.get("chat_template_kwargs", {})
    return Asked(row["prompt"], options) if options and isinstance(row["prompt"], list) else row["prompt"]


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str | list[Message], model: str) -> list[int]:
    """Token ids of a prompt that is to be answered: a text as it is, messages by the chat template.

    Raises:
        UserError: messages without a template, or one that fails on them.
    """
    if isinstance(prompt, str):
        ids, end = tokenizer(prompt)["input_ids"], tokenizer.eos_token_id
        alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        # some tokenizers end every text; in training the completion follows, and no end
        return ids[:-1] if ids[-1:] == [end] and ids[:-1][-len(alone) :] == alone else ids
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"{model} has no chat template; expected one for prompts that are conversations. Name an "
            "instruction-tuned model, or data with plain prompts."
        )
    try:
        options = prompt.options if isinstance(prompt, Asked) else {}
        return tokenizer.apply_chat_template([*prompt], add_generation_prompt=True, return_dict=True, **options)["input_ids"]
    except Exception as error:  # jinja's errors, KeyError of the template's own fields
        raise UserError(
            f"the chat template of {model} fails ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "expected messages that it takes. Correct the prompt's roles, or the template."
        ) from error
