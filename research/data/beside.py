"""Other columns of a row with a conversation: a system text, earlier turns, tools, and arguments of the chat template."""

import json

from research import prompts
from research.data.conversations import (
    Malformed,
    Message,
    is_conversation,
    messages_of,
    shown,
    text_problem,
    tools_of,
    with_system,
)
from research.types import Json

SYSTEMS = ("system", "system_prompt", "system_message")
OTHER_COLUMNS = (*SYSTEMS, "history", "tools", "chat_template_kwargs")
FUNCTIONS = "functions"  # OpenAI's older name of tools; other data have a column of that name
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")  # columns of rows that are not text alone


def add_other_columns(row: dict, shaped: dict, used: set[str]) -> tuple[dict, set[str]]:
    """Return the row in its form; if that is a conversation, with the system text, earlier turns and tools of other columns.

    Raises:
        Malformed: a value that is not what its column has.
    """
    name = "messages" if "messages" in shaped else "prompt"
    if not is_conversation(shaped.get(name)):
        return shaped, used
    shaped, used = dict(shaped), used | {*SYSTEMS, "tools", "chat_template_kwargs"}
    if "history" in row and name == "prompt":
        shaped[name] = [*_history(row["history"]), *shaped[name]]
        used = used | {"history"}
    for column in SYSTEMS:
        if column in row:
            shaped[name] = with_system(shaped[name], row[column])
    tools = tools_of(row.get("tools", []))
    if functions := _functions(row.get(FUNCTIONS)):
        if tools and tools != functions:
            raise Malformed(f"{FUNCTIONS} is {shown(functions)} and tools is {shown(tools)}, expected one of them")
        tools, used = functions, used | {FUNCTIONS}
    if tools:
        shaped["tools"] = tools
    if options := _arguments(row.get("chat_template_kwargs", {})):
        shaped["chat_template_kwargs"] = options
    for key in ("tools", "chat_template_kwargs"):
        if problem := text_problem(key, shaped.get(key)):
            raise Malformed(problem)
    return shaped, used


def refuse_other_columns(row: dict, shaped: dict, used: set[str]) -> None:
    """Refuse a row with columns that its form has no place for.

    Raises:
        Malformed: the row says more than its form can hold.
    """
    for name in (*OTHER_COLUMNS, *MEDIA_COLUMNS):
        if name not in row or name in used or says_nothing(row[name]):
            continue
        value = f"the row has {name} {shown(row[name])}"
        if name in MEDIA_COLUMNS:
            raise Malformed(
                f"{value}, expected text alone: nothing else is read here", "unread", f"Leave the column {name} out"
            )
        cure = "Write the row as messages"
        if "prompt" in shaped and not is_conversation(shaped["prompt"]):
            answer = ', "answer": "completion"' if "completion" in shaped else ""
            cure += f' (data.columns {{"question": "prompt"{answer}}} makes them of prompt and answer)'
        raise Malformed(
            f"{value}, which {named(shaped)} cannot hold; expected messages that say it",
            "unread",
            f"{cure}, or leave the column {name} out",
        )


def says_nothing(value: Json) -> bool:
    """Return whether a value is empty, as itself or as JSON."""
    return value in ("", "[]", "{}", [], {})


def _arguments(value: Json) -> dict:
    """Read the chat template's arguments: an object, or its JSON text; {} if there are none."""
    arguments = value
    if isinstance(value, str):
        try:
            arguments = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise Malformed(f"chat_template_kwargs is {shown(value)}, expected an object or its JSON")
    return arguments


def named(form: dict) -> str:
    """Return the names of a form, for messages."""
    talk = any(value is True or is_conversation(value) for value in form.values())
    return ", ".join(sorted(form)) + (" as messages" if talk else "")


def _history(value: Json) -> list[Message]:
    """Read earlier turns: LLaMA-Factory's [question, answer] pairs, or messages."""
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
        return [message for ask, answer in value for message in (prompts.user(ask), prompts.assistant(answer))]
    return messages_of("history", value)


def _functions(value: Json) -> list[dict]:
    """Read OpenAI's older `functions` as tools; [] if the column has something else."""
    try:
        functions = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return []
    if not isinstance(functions, list) or not all(
        isinstance(function, dict) and isinstance(function.get("name"), str) for function in functions
    ):
        return []
    return [{"type": "function", "function": function} for function in functions]
