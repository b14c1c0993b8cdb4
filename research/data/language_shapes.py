"""The shapes of instruction and preference rows that people bring → TRL's forms, which everything after reads.

docs/language-data.md has the table, with an example of each. A row says nothing that is dropped in silence: a column is part of
its shape, or named once as not read, or refused where it would change what is learned.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from research import prompts
from research.data.chat_tokens import extract_prompt
from research.data.conversations import (
    Malformed,
    arguments_of,
    has_text,
    is_conversation,
    messages_of,
    shown,
    text_problem,
    tools_of,
    with_system,
)
from research.data.rows import BadRows
from research.errors import UserError, suggest
from research.progress import say

SIDES = ("chosen", "rejected")
INSTRUCTION_FORMS = ("prompt and completion, messages, instruction and response, text, conversations, question and answer, or "
                     "input and output")  # fmt: skip
PREFERENCE_FORMS = "prompt, chosen and rejected, or chosen and rejected conversations with a common beginning"
ANSWERS = ("response", "output", "answer", "completion")
ASKED = ("instruction", "question", "query", "input", "prompt")
CONTEXT = ("context", "input")
TALKS = ("messages", "conversations", "conversation")
SEEN_OR_HEARD = ("image", "images", "video", "videos", "audio", "audios")  # columns of rows that are not text alone
BESIDE = (
    "system",
    "history",
    "tools",
    "chat_template_kwargs",
)  # what a conversation's row says beside the conversation
ROLES = ("prompt", "completion", "messages", "text", "instruction", "context", "response", "question", "answer", "system",
         "history", "tools", *SIDES)  # fmt: skip

Shaped = tuple[dict, set[str]]
"""A row in one of TRL's forms, and the columns that it is made of."""


def shape_rows(rows: Iterator[tuple[str, dict]], read: Callable[[dict], Shaped], bad: BadRows, source: Any,
               columns: dict[str, str] | None = None) -> Iterator[tuple[str, dict]]:  # fmt: skip
    """(where, row in one of TRL's forms), all in the form of the first.

    Args:
        rows: (where, row).
        read: read_instruction or read_preference.
        bad: what to do with a row that is in no shape.
        source: for messages.
        columns: role → the column that has it; see ROLES.

    Raises:
        UserError: a row in no shape, or of another form than the first; a column of `columns` that no row has.
    """
    first, unread, missing = None, {}, dict(columns or {})
    told: set[str] = set()  # roles whose columns say something
    taken: set[str] = set()  # of them those that a row is made of
    for where, row in rows:
        missing = {role: column for role, column in missing.items() if column not in row}
        given = {key: value for key, value in row.items() if not is_absent(value)}
        if columns:
            mapped = {role: given[column] for role, column in columns.items() if column in given}
            unread |= {f"{role} ({columns[role]} is read)": None for role in mapped if role in given
                       and role not in columns.values()}  # fmt: skip
            given = {key: value for key, value in given.items() if key not in columns.values()} | mapped
        try:
            shaped, used = read(given)
            refuse_beside(given, shaped, used)
        except Malformed as error:
            if missing:
                role, column = next(iter(missing.items()))
                raise UserError(f"data.columns: {where} has no column {column!r} ({role}); {suggest(column, row)}. Correct "
                                "it.") from None  # fmt: skip
            kind, cure = error.args[1:] or ("bad value", "Mend the row")
            bad.report(where, kind, str(error.args[0]), cure)
            continue
        if columns:
            told |= {role for role, value in mapped.items() if value not in ("", "[]", "{}", [], {})}
            taken |= used
        form = {name: is_conversation(value) for name, value in shaped.items() if name not in BESIDE}
        first = first or form
        # one row of preferences may say its prompt, and the next one begin with it
        if _kind(form) != _kind(first):
            bad.report(where, "mixed forms", f"the row has {_named(form)} where the first has {_named(first)}",
                       "Give all rows one form")  # fmt: skip
            continue
        unread |= dict.fromkeys(key for key in given if key not in used)
        yield where, shaped
    if missing and first:
        role, column = next(iter(missing.items()))
        raise UserError(f"data.columns: no row of {source} has the column {column!r} ({role}); {suggest(column, unread)}. "
                        "Correct it.")  # fmt: skip
    for role in sorted(told - taken):
        raise UserError(f"data.columns names {role} ({columns[role]!r}), and no row of {source} is made of it; expected roles "
                        f"of its shape ({', '.join(sorted(taken))}). Leave it out, or name the others by their "
                        "roles.")  # fmt: skip
    if unread:
        say(f"{source}: columns that are not read: {', '.join(sorted(unread))}")
    if bad.counts:
        say(f"{source}: skipped rows: " + ", ".join(f"{n} {reason}" for reason, n in bad.counts.items()))


def is_absent(value: Any) -> bool:
    """JSON's null, and the NaN that pandas writes for a cell without a value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_undesired(label: Any) -> bool:
    """Whether KTO's label is false: as JSON and Parquet have it, or as the text of a CSV cell."""
    if isinstance(label, str):
        return label.strip().lower() in ("false", "f", "no", "n", "0", "0.0", "-1")
    return isinstance(label, (bool, int, float)) and label in (0, -1)


def check_columns(columns: dict[str, str] | None) -> None:
    """
    Raises:
        UserError: a role that there is not.
    """
    for role, column in (columns or {}).items():
        if role not in ROLES:
            raise UserError(f"data.columns has the role {role!r}; {suggest(role, ROLES)}. Write our name before the colon and "
                            "the column after it.")  # fmt: skip
        if not isinstance(column, str):
            raise UserError(f"data.columns.{role} is {column!r}; expected the name of a column. Correct it.")


def read_instruction(row: dict) -> Shaped:
    """A row of supervised fine-tuning: {"prompt", "completion"} (texts or messages), {"messages"} or {"text"}.

    Raises:
        Malformed: it is in no shape, or a value is not what its shape has.
    """
    asked = [(ask, answer) for ask in ASKED for answer in ANSWERS if ask in row and answer in row]
    talk = next((name for name in TALKS if name in row), None)
    if "prompt" in row and "completion" in row:
        shaped, used = {"prompt": row["prompt"], "completion": row["completion"]}, {"prompt", "completion"}
        _check_types(row, *shaped)
        conversations = [is_conversation(value) for value in shaped.values()]
        if any(conversations):
            shaped = {name: _talk(name, value) for name, value in shaped.items()}
        if conversations[0] != conversations[1]:
            raise Malformed("prompt and completion are of two kinds, expected both texts or both lists of messages")
    elif "messages" in row:
        shaped, used = {"messages": messages_of("messages", row["messages"])}, {"messages"}
    elif asked and asked[0][0] == "instruction":
        shaped, used = _asked(row, *asked[0])
    elif "text" in row:
        shaped, used = {"text": _text("text", row["text"])}, {"text"}
    elif talk:
        shaped, used = {"messages": messages_of(talk, row[talk])}, {talk}
    elif asked:
        shaped, used = _asked(row, *asked[0])
    else:
        raise Malformed(f"the row has {_keys(row)}, expected {INSTRUCTION_FORMS}", "unknown form",
                        "Rename the keys, or name them in data.columns")  # fmt: skip
    if is_undesired(row.get("label")) and "text" not in shaped:
        raise Malformed(f"label is {row['label']!r}, expected answers to learn: this one is marked as undesired", "undesired",
                        "Leave such rows out, or the column label where it means something else")  # fmt: skip
    shaped, used = _beside(row, shaped, used)
    for name in set(shaped) - set(BESIDE):
        _check(name, shaped[name], "expected some text to learn")
    return shaped, used


def read_preference(row: dict) -> Shaped:
    """A row of preferences: {"prompt", "chosen", "rejected"}, or without a prompt that both sides begin with.

    Raises:
        Malformed: it is in no shape, or a value is not what its shape has.
    """
    if missing := [side for side in SIDES if side not in row]:
        raise Malformed(f"the row has {_keys(row)} and no {missing[0]}, expected {PREFERENCE_FORMS}", "no preference",
                        "Mend the row, or name its columns in data.columns")  # fmt: skip
    _check_types(row, "prompt", *SIDES)
    if is_conversation(row["chosen"]) != is_conversation(row["rejected"]):
        raise Malformed("prompt, chosen and rejected are of two kinds, expected all texts or all lists of messages")
    asked = "prompt" if "prompt" in row else next((name for name in ASKED if name in row), None)
    talk = next((name for name in TALKS if name in row), None)
    sides = {side: row[side] for side in SIDES}
    used, shaped = {*SIDES}, sides
    if asked and (asked != "prompt" or isinstance(row["prompt"], str)):
        context = _context(row, asked)
        texts = not any(map(is_conversation, sides.values()))
        used |= {asked, *context}
        question = _text(asked, row[asked])
        if texts and asked == "prompt":
            shaped = {"prompt": question, **sides}
        elif texts and question.strip() and question.strip() in extract_prompt(sides)["prompt"]:
            used -= {*context}  # the answers begin with it
        elif not question.strip():
            raise Malformed(f"{asked} is empty, expected what chosen and rejected answer")
        else:
            shaped = _answers(sides)
            implied = _common(shaped)
            if implied and implied[0]["role"] != "assistant":
                asked_there = any(question.strip() == (one.get("content") or "").strip() for one in implied)
                used -= {*context} if asked_there else {asked, *context}  # what is not read is named
            else:
                shaped = {"prompt": prompts.instruction(question, next(iter(context.values()), "")), **shaped}
    elif asked:
        shaped = {"prompt": row["prompt"], **sides}
        used |= {"prompt"}
        if not all(map(is_conversation, shaped.values())):
            raise Malformed("prompt, chosen and rejected are of two kinds, expected all texts or all lists of messages")
        shaped = _without_prompt({name: _talk(name, value) for name, value in shaped.items()})
    elif talk and (not is_conversation(row["chosen"]) or not _common(_answers(sides))):
        shaped = {"prompt": messages_of(talk, row[talk]), **_answers(sides)}
        used |= {talk}
        if shaped["prompt"][-1]["role"] == "assistant":
            raise Malformed(f"{talk} ends with an answer, expected what chosen and rejected answer", "no preference",
                            f"Leave {talk} out, or end it before the answer")  # fmt: skip
    elif any(map(is_conversation, sides.values())):
        shaped = _answers(sides)
        if not _common(shaped):
            raise Malformed(f"chosen and rejected begin with different messages and the row has no prompt, expected "
                            f"{PREFERENCE_FORMS}", "no preference", "Add a prompt, or name its column in "
                            "data.columns")  # fmt: skip
    else:
        _check_implied(row, sides)
    if "prompt" not in shaped and is_conversation(shaped["chosen"]) and any(row.get(name) for name in BESIDE):
        shaped = extract_prompt(shaped)
    shaped, used = _beside(row, shaped, used)
    for name in ("prompt", *SIDES) if "prompt" in shaped else SIDES:
        _check(name, shaped[name], "expected an answer")
    if shaped["chosen"] == shaped["rejected"]:
        raise Malformed("chosen and rejected are the same, expected two answers")
    return shaped, used


def refuse_beside(row: dict, shaped: dict, used: set[str]) -> None:
    """
    Raises:
        Malformed: the row says more than its form can hold.
    """
    for name in (*BESIDE, *SEEN_OR_HEARD):
        if name in row and name not in used and row[name] not in ("", "[]", "{}", [], {}):
            value = f"the row has {name} {shown(row[name])}"
            if name in SEEN_OR_HEARD:
                raise Malformed(f"{value}, expected text alone: nothing else is read here", "unread",
                                f"Leave the column {name} out")  # fmt: skip
            raise Malformed(f"{value}, which {_named(shaped)} cannot hold; expected messages that say it", "unread",
                            f"Write the row as messages, or leave the column {name} out")  # fmt: skip


def _beside(row: dict, shaped: dict, used: set[str]) -> Shaped:
    """System text, history, tools and the template's arguments, where the form can hold them."""
    name = "messages" if "messages" in shaped else "prompt"
    if not is_conversation(shaped.get(name)):
        return shaped, used
    shaped = dict(shaped)
    if "history" in row and name == "prompt":
        shaped[name] = [*_history(row["history"]), *shaped[name]]
        used = used | {"history"}
    if "system" in row:
        shaped[name] = with_system(shaped[name], row["system"])
        used = used | {"system"}
    if "tools" in row:
        used = used | {"tools"}
        if tools := tools_of(row["tools"]):
            shaped["tools"] = tools
    if "chat_template_kwargs" in row:
        used = used | {"chat_template_kwargs"}
        if arguments := arguments_of(row["chat_template_kwargs"]):
            shaped["chat_template_kwargs"] = arguments
    for key in ("tools", "chat_template_kwargs"):
        if problem := text_problem(key, shaped.get(key)):
            raise Malformed(problem)
    return shaped, used


def _asked(row: dict, ask: str, answer: str) -> Shaped:
    """A question and its answer → a user's and an assistant's message."""
    context = _context(row, ask)
    if is_conversation(row[ask]) and is_conversation(row[answer]):
        return {"prompt": messages_of(ask, row[ask]), "completion": messages_of(answer, row[answer])}, {ask, answer}
    prompt = prompts.instruction(_text(ask, row[ask]), next(iter(context.values()), ""))
    return {"prompt": prompt, "completion": [prompts.assistant(_text(answer, row[answer]))]}, {ask, answer, *context}


def _context(row: dict, ask: str) -> dict[str, str]:
    """{column: text} of the passage that a question is about; at most one."""
    name = next((name for name in CONTEXT if name in row and name != ask), None)
    if name is None or ask in ("input", "prompt"):
        return {}
    return {name: _text(name, row[name])}


def _history(value: Any) -> list[dict]:
    """LLaMA-Factory's [question, answer] pairs, or messages."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Malformed(f"history is {shown(value)}, expected a list of [question, answer] or its JSON") from None
    if not value or isinstance(value, str):
        return []
    if isinstance(value, list) and all(isinstance(turn, (list, tuple)) for turn in value):
        if not all(len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in value):
            raise Malformed(f"history is {shown(value)}, expected a list of [question, answer]")
        return [one for ask, answer in value for one in (prompts.user(ask), prompts.assistant(answer))]
    return messages_of("history", value)


def _answers(sides: dict) -> dict:
    """Both sides as messages; a text is an assistant's."""
    return {side: messages_of(side, value) if is_conversation(value) else [prompts.assistant(_text(side, value))]
            for side, value in sides.items()}  # fmt: skip


def _common(sides: dict) -> list[dict]:
    """The messages that both sides begin with."""
    count = 0
    for one, other in zip(*sides.values(), strict=False):
        if one != other:
            break
        count += 1
    return sides["chosen"][:count]


def _without_prompt(row: dict) -> dict:
    """Sides that repeat the prompt hold their own part alone: else it would be asked twice."""
    count = len(row["prompt"])
    if all(row[side][:count] == row["prompt"] and len(row[side]) > count for side in SIDES):
        return row | {side: row[side][count:] for side in SIDES}
    return row


def _check_implied(row: dict, sides: dict) -> None:
    """Texts without a prompt begin with it, as Anthropic's do: a sentence in another column would be the prompt."""
    texts = [_text(side, value) for side, value in sides.items()]
    for name, value in row.items():
        spoken = isinstance(value, str) and len(value.split()) > 1 and name not in (*SIDES, *BESIDE)
        if spoken and not all(value.strip() in text for text in texts):
            raise Malformed(f"the row has no prompt and the text {name!r} ({shown(value)}), expected {PREFERENCE_FORMS}",
                            "no preference", f"Name the prompt's column (data.columns: {{prompt: {name}}}), or leave {name} "
                            "out")  # fmt: skip


def _talk(name: str, value: Any) -> Any:
    return messages_of(name, value) if is_conversation(value) else value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{name} is {shown(value)}, expected a text")
    return value


def _check_types(row: dict, *names: str) -> None:
    """
    Raises:
        Malformed: neither a text nor a conversation.
    """
    for name in names:
        if name in row and not isinstance(row[name], (str, list, dict)):
            raise Malformed(f"{name} is {shown(row[name])}, expected a text or a list of {{role, content}}")


def _check(name: str, value: Any, expected: str) -> None:
    """
    Raises:
        Malformed: nothing to learn, or no Unicode.
    """
    if name != "prompt" and not (
        value.strip() if isinstance(value, str) else has_text(value[-1:] if name in SIDES else value)
    ):
        raise Malformed(f"{name} is empty, {expected}")
    if problem := text_problem(name, value):
        raise Malformed(problem)


def _keys(row: dict) -> str:
    return ", ".join(map(repr, row)) or "no keys"


def _kind(form: dict[str, bool]) -> tuple[set[str], bool]:
    return {*form} - {"prompt"}, any(form.values())


def _named(form: dict) -> str:
    talk = any(one is True or is_conversation(one) for one in form.values())
    return ", ".join(sorted(form)) + (" as messages" if talk else "")
