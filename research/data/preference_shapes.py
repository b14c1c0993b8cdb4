"""Rows of preferences: one function for each shape, and a table of the shapes."""

from collections.abc import Callable

from research import prompts
from research.data.beside import OTHER_COLUMNS, add_other_columns
from research.data.chat_tokens import common_length, extract_prompt
from research.data.conversations import (
    Malformed,
    Message,
    check_types,
    check_value,
    is_conversation,
    messages_of,
    read_written,
    shown,
    text_of,
    turns_of,
)
from research.data.instruction_shapes import ASKED, TALKS, UNDESIRED, context_of
from research.data.language_shapes import SIDES, Shaped

FORMS = "prompt, chosen and rejected, or chosen and rejected conversations with a common beginning"


def read_preference(row: dict) -> Shaped:
    """Read a row of preferences as {"prompt", "chosen", "rejected"}, or without the prompt if both sides begin with it.

    Raises:
        Malformed: it is in no shape, or a value is not what its shape has.
    """
    if "completion" in row and any(mark in row for mark in UNDESIRED) and not any(side in row for side in SIDES):
        raise Malformed(
            "the row has one answer and a mark whether it is desired (KTO), expected two answers: chosen and rejected",
            "no preference",
            "Make pairs of a desired and an undesired answer to one prompt, or learn the desired ones by SFTModule",
        )
    if missing := [side for side in SIDES if side not in row]:
        raise Malformed(
            f"the row has {', '.join(map(repr, row)) or 'no keys'} and no {missing[0]}, expected {FORMS}",
            "no preference",
            "Mend the row, or name its columns in data.columns",
        )
    row = read_written(row, "prompt", *SIDES)
    check_types(row, "prompt", *SIDES)
    if is_conversation(row["chosen"]) != is_conversation(row["rejected"]):
        raise Malformed("prompt, chosen and rejected are of two kinds, expected all texts or all lists of messages")
    shaped, used = next(shape for fits, shape in SHAPES if fits(row))(row)
    used = used | {*SIDES}
    if "prompt" not in shaped and is_conversation(shaped["chosen"]) and any(row.get(name) for name in OTHER_COLUMNS):
        shaped = extract_prompt(shaped)
    shaped, used = add_other_columns(row, shaped, used)
    for name in ("prompt", *SIDES) if "prompt" in shaped else SIDES:
        check_value(name, shaped[name], "expected an answer", needed=name != "prompt", last=name in SIDES)
    if shaped["chosen"] == shaped["rejected"]:
        raise Malformed("chosen and rejected are the same, expected two answers")
    return shaped, used


def raw_texts(row: dict) -> Shaped:
    """Read TRL's shape of three raw texts."""
    return {"prompt": row["prompt"], **_sides(row)}, {"prompt"}


def messages(row: dict) -> Shaped:
    """Read TRL's shape with a prompt of messages; if both sides repeat the prompt, it is removed from them."""
    shaped = {"prompt": messages_of("prompt", row["prompt"]), **_answers(row)}
    count = len(shaped["prompt"])
    again = [shaped[side][:count] == shaped["prompt"] and len(shaped[side]) > count for side in SIDES]
    if all(again):
        shaped |= {side: shaped[side][count:] for side in SIDES}
    elif any(again):
        raise Malformed("one of chosen and rejected repeats the prompt, and the other does not; expected both, or neither")
    return shaped, {"prompt"}


def question(row: dict) -> Shaped:
    """Read a question, perhaps with a passage, and its answers: texts, messages, or conversations that begin with it."""
    ask = _question_column(row)
    question_text, passage = text_of(ask, row[ask]), context_of(row, ask)
    texts = not is_conversation(row["chosen"])
    if texts and question_text.strip() and question_text.strip() in extract_prompt(_sides(row))["prompt"]:
        return _sides(row), {ask}  # the answers begin with it
    if not question_text.strip():
        raise Malformed(f"{ask} is empty, expected what chosen and rejected answer")
    shaped = _answers(row)
    begin = _common(shaped)
    if begin and begin[0]["role"] != "assistant":
        there = any(question_text.strip() == (message.get("content") or "").strip() for message in begin)
        return shaped, {ask} if there else set()  # what is not read is named
    for side in SIDES:
        if shaped[side][0]["role"] in ("system", "user"):
            raise Malformed(
                f"{side} begins with {shown(shaped[side][0])}, which the other side does not; expected both to "
                f"begin with the same, or to answer {ask}"
            )
    return {"prompt": prompts.instruction(question_text, next(iter(passage.values()), "")), **shaped}, {ask, *passage}


def conversation(row: dict) -> Shaped:
    """Read LLaMA-Factory's shape: a conversation, and two messages that continue it."""
    name = _conversation_column(row)
    shaped = {"prompt": turns_of(name, row[name]), **_answers(row)}
    if shaped["prompt"][-1]["role"] == "assistant":
        raise Malformed(
            f"{name} ends with an answer, expected what chosen and rejected answer",
            "no preference",
            f"Leave {name} out, or end it before the answer",
        )
    return shaped, {name}


def common_messages(row: dict) -> Shaped:
    """Read two conversations; the prompt is their common beginning."""
    shaped = _answers(row)
    if not _common(shaped):
        raise Malformed(
            f"chosen and rejected begin with different messages and the row has no prompt, expected {FORMS}",
            "no preference",
            "Add a prompt, or name its column in data.columns",
        )
    return shaped, set()


def common_texts(row: dict) -> Shaped:
    """Read Anthropic's shape: two texts, whose common beginning is the prompt; no other column may hold text of the row."""
    texts = [text_of(side, row[side]) for side in SIDES]
    for name, value in row.items():
        spoken = isinstance(value, str) and len(value.split()) > 1 and name not in (*SIDES, *OTHER_COLUMNS)
        if spoken and not all(value.strip() in text for text in texts):
            raise Malformed(
                f"the row has no prompt and the text {name!r} ({shown(value)}), expected {FORMS}",
                "no preference",
                f'Name the prompt\'s column (data.columns {{"prompt": "{name}"}}), or leave {name} out',
            )
    if texts[0] != texts[1] and not texts[0][: common_length(*texts)].strip():
        raise Malformed(
            f"chosen and rejected begin with different words and the row has no prompt, expected {FORMS}",
            "no preference",
            "Add a prompt, or name its column in data.columns",
        )
    return _sides(row), set()


def _question_column(row: dict) -> str | None:
    """Return the column of the question; `prompt` before others."""
    return "prompt" if "prompt" in row else next((name for name in ASKED if name in row), None)


def _conversation_column(row: dict) -> str | None:
    return next((name for name in TALKS if name in row), None)


def _has_raw_texts(row: dict) -> bool:
    return not any(is_conversation(row.get(name, [])) for name in ("prompt", *SIDES))


def _continues(row: dict) -> bool:
    """Return whether a conversation is the prompt that the sides continue, and not their own beginning."""
    return _conversation_column(row) is not None and (not is_conversation(row["chosen"]) or not _common(_answers(row)))


def _sides(row: dict) -> dict:
    return {side: row[side] for side in SIDES}


def _answers(row: dict) -> dict[str, list[Message]]:
    """Return both sides as messages; a text is the assistant's."""
    return {
        side: messages_of(side, value) if is_conversation(value) else [prompts.assistant(text_of(side, value))]
        for side, value in _sides(row).items()
    }


def _common(sides: dict[str, list[Message]]) -> list[Message]:
    """Return the messages with which both sides begin."""
    pairs = zip(sides["chosen"], sides["rejected"], strict=False)
    count = next((at for at, (message, other) in enumerate(pairs) if message != other), min(map(len, sides.values())))
    return sides["chosen"][:count]


SHAPES: tuple[tuple[Callable[[dict], bool], Callable[[dict], Shaped]], ...] = (
    (_has_raw_texts, raw_texts),
    (lambda row: is_conversation(row.get("prompt")), messages),
    (lambda row: _question_column(row) is not None, question),
    (_continues, conversation),
    (lambda row: is_conversation(row["chosen"]), common_messages),
    (lambda row: True, common_texts),
)
"""(whether a row has it, how it is read): the first that fits is a row's shape."""
