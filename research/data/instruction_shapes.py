"""Rows of supervised fine-tuning: one function for each shape, and a table of the shapes."""

from collections.abc import Callable

from research import prompts
from research.data.beside import OTHER_COLUMNS, add_other_columns
from research.data.conversations import (
    Malformed,
    check_types,
    check_value,
    is_conversation,
    messages_of,
    read_written,
    text_of,
    turns_of,
)
from research.data.language_shapes import Shaped
from research.types import Json

FORMS = (
    "prompt and completion, messages, instruction and response, text, conversations, question and answer, or input and output"
)
ASKED = ("instruction", "question", "query", "input", "prompt")
ANSWERS = ("response", "output", "answer", "completion")
CONTEXT = ("context", "input")
TALKS = ("messages", "conversations", "conversation")
UNDESIRED = ("label", "kto_tag")  # of KTO's rows: false marks an answer that is not to be learned


def read_instruction(row: dict) -> Shaped:
    """Read a row of supervised fine-tuning as {"prompt", "completion"} (texts or messages), {"messages"} or {"text"}.

    Raises:
        Malformed: it is in no shape, or a value is not what its shape has.
    """
    row = read_written(row, "prompt", "completion")
    shape = next((shape for fits, shape in SHAPES if fits(row)), None)
    if shape is None:
        raise Malformed(
            f"the row has {', '.join(map(repr, row)) or 'no keys'}, expected {FORMS}",
            "unknown form",
            "Rename the keys, or name them in data.columns",
        )
    shaped, used = add_other_columns(row, *shape(row))
    for mark in UNDESIRED:
        if _is_undesired(row.get(mark)) and "text" not in shaped:
            raise Malformed(
                f"{mark} is {row[mark]!r}, expected answers to learn: this one is marked as undesired",
                "undesired",
                f"Leave such rows out, or the column {mark} where it means something else",
            )
    for name in set(shaped) - set(OTHER_COLUMNS):
        check_value(name, shaped[name], "expected some text to learn", needed=name != "prompt")
    return shaped, used


def prompt_and_completion(row: dict) -> Shaped:
    """Read TRL's shape: two raw texts, or messages; a text after messages is the assistant's."""
    shaped = {"prompt": row["prompt"], "completion": row["completion"]}
    check_types(row, *shaped)
    talk = [is_conversation(value) for value in shaped.values()]
    if talk == [False, True]:
        raise Malformed("prompt and completion are of two kinds, expected both texts or both lists of messages")
    if talk[0]:
        answer = [prompts.assistant(row["completion"])]
        shaped = {
            "prompt": messages_of("prompt", row["prompt"]),
            "completion": messages_of("completion", row["completion"]) if talk[1] else answer,
        }
    return shaped, {"prompt", "completion"}


def conversation(row: dict) -> Shaped:
    """Read OpenAI's messages, and ShareGPT's."""
    name = next(name for name in TALKS if name in row)
    return {"messages": turns_of(name, row[name])}, {name}


def text(row: dict) -> Shaped:
    """Read raw text."""
    return {"text": text_of("text", row["text"])}, {"text"}


def question_and_answer(row: dict) -> Shaped:
    """Read Alpaca's, Dolly's and similar shapes: a question, perhaps with the passage that it is about, and its answer."""
    ask, answer = asked_and_answered(row)
    if is_conversation(row[ask]):
        completion = row[answer]
        completion = (
            messages_of(answer, completion) if is_conversation(completion) else [prompts.assistant(text_of(answer, completion))]
        )
        return {"prompt": messages_of(ask, row[ask]), "completion": completion}, {ask, answer}
    passage = context_of(row, ask)
    prompt = prompts.instruction(text_of(ask, row[ask]), next(iter(passage.values()), ""))
    return {"prompt": prompt, "completion": [prompts.assistant(text_of(answer, row[answer]))]}, {ask, answer, *passage}


def asked_and_answered(row: dict) -> tuple[str, str] | None:
    """Return the columns of the question and of its answer."""
    return next(((ask, answer) for ask in ASKED for answer in ANSWERS if ask in row and answer in row), None)


def context_of(row: dict, ask: str) -> dict[str, str]:
    """Return {column: text} of the passage that a question is about; at most one."""
    name = next((name for name in CONTEXT if name in row and name != ask), None)
    if name is None or ask in ("input", "prompt"):
        return {}
    return {name: text_of(name, row[name])}


SHAPES: tuple[tuple[Callable[[dict], bool], Callable[[dict], Shaped]], ...] = (
    (lambda row: "prompt" in row and "completion" in row, prompt_and_completion),
    (lambda row: "messages" in row, conversation),
    (lambda row: (asked_and_answered(row) or ("",))[0] == "instruction", question_and_answer),
    (lambda row: "text" in row, text),
    (lambda row: any(name in row for name in TALKS), conversation),
    (lambda row: asked_and_answered(row) is not None, question_and_answer),
)
"""(whether a row has it, how it is read): the first that fits is a row's shape."""


def _is_undesired(label: Json) -> bool:
    """Return whether KTO's label is false: as a boolean in JSON or Parquet, or as the text of a CSV cell."""
    if isinstance(label, str):
        return label.strip().lower() in ("false", "f", "no", "n", "0", "0.0", "-1")
    return isinstance(label, bool | int | float) and label in (0, -1)
