"""Turns conversations of the usual formats into messages for a chat template; what no template can take is refused by name.

OpenAI's (role, content, tool_calls, parts) and ShareGPT's (from, value). A message that is one already stays as it is.
Longer than most files: every value that a message may have is read, or refused, in one place.
"""

import json
import re

from research import prompts
from research.data.rows import broken
from research.types import Json

ROLES = ("system", "user", "assistant", "tool")
NAMES = {  # of the same roles, as ShareGPT's data and other tools write them
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
CALL = ("function_call", "tool_call")  # ShareGPT's roles of an assistant's call, its value JSON
FLAGS = ("weight", "train", "training", "loss")  # of an assistant's message: whether it is learned
MEDIA = ("image", "images", "image_url", "input_image", "video", "videos", "audio", "audios", "input_audio", "file")

Message = dict[str, Json]
WRITTEN = re.compile(r"""\s*\[\s*\{\s*["'](role|content|from|value)["']\s*:""")
"""A text that is the JSON of messages, or Python's own way to write them, as tables of cells have them."""


class Malformed(ValueError):
    """What is wrong with a value: the value and what was expected."""


def messages_of(name: str, value: Json) -> list[Message]:
    """Read the messages of a conversation.

    Args:
        name: of the column, for errors.
        value: a list of messages, one message, or the JSON text of a list.

    Raises:
        Malformed: it is no conversation, or holds what cannot be read as text.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Malformed(f"{name} is {shown(value)}, expected a list of {{role, content}} or its JSON") from None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise Malformed(f"{name} is {shown(value)}, expected a text or a list of {{role, content}}")
    return [_message(name, message) for message in value]


def is_conversation(value: Json) -> bool:
    """Return whether a value is meant as messages (even malformed ones) and not as a text."""
    return isinstance(value, (list, dict))


def turns_of(name: str, value: Json) -> list[Message]:
    """Read messages as `messages_of` does; texts without roles are the user's and the assistant's in turn, as in LIMA."""
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return [(prompts.assistant if at % 2 else prompts.user)(text) for at, text in enumerate(value)]
    return messages_of(name, value)


def read_written(row: dict, *names: str) -> dict:
    """Return the row, with messages that are written as JSON text in a cell read as messages.

    Raises:
        Malformed: a text that looks so, and is no JSON.
    """
    conversations = {}
    for name in names:
        if isinstance(row.get(name), str) and WRITTEN.match(row[name]):
            conversations[name] = messages_of(name, row[name])
    return row | conversations


def _message(name: str, message: dict) -> Message:
    if "role" not in message and "from" in message:
        message = {("role" if key == "from" else "content" if key == "value" else key): part for key, part in message.items()}
        if message["role"] in CALL:
            message = {**message, "role": "assistant", "content": None, "tool_calls": _calls(name, message.get("content"))}
    role = str(message.get("role")).lower()
    role = NAMES.get(role, role)
    if role not in ROLES:
        raise Malformed(
            f"{name} is {shown(message)}, expected a text or a list of {{role, content}} with the roles {', '.join(ROLES)}"
        )
    if "function_call" in message and message["function_call"] is not None:  # OpenAI's, before tool_calls
        message = {key: part for key, part in message.items() if key != "function_call"} | {
            "tool_calls": _calls(name, message["function_call"])
        }
    for key in MEDIA:
        if message.get(key):
            raise Malformed(
                f"a message of {name} has {key} {shown(message[key])}, expected text alone: nothing else is read here"
            )
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        content = "".join(_part(name, part) for part in content)
    if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
        raise Malformed(f"tool_calls of {name} is {shown(calls)}, expected a list of {{function: {{name, arguments}}}}")
    if not isinstance(content, str) and not (content is None and calls and role == "assistant"):
        raise Malformed(
            f"{name} is {shown(message)}, expected a text or a list of {{role, content}}: a message without content "
            "is an assistant's with tool_calls"
        )
    for flag in FLAGS:
        if (weight := message.get(flag)) is not None and (weight not in (0, 1) or isinstance(weight, str)):
            raise Malformed(f"{flag} of a message of {name} is {shown(weight)}, expected 0 or 1: other weights are not read")
    flags = {flag: message[flag] for flag in FLAGS if message.get(flag) is not None}
    if len({*map(int, flags.values())}) > 1:
        shown_flags = " and ".join(f"{flag} {value}" for flag, value in flags.items())
        raise Malformed(f"a message of {name} says {shown_flags}, expected one of them, or flags that agree")
    changed = {"role": role} | ({} if "content" not in message and content is None else {"content": content})
    return message if changed.items() <= message.items() else {**message, **changed}


def _is_call(value: Json) -> bool:
    return isinstance(value, dict) and isinstance(value.get("function", value), dict)


def _part(name: str, part: Json) -> str:
    """Read the text of one part of a message's content."""
    text = part if isinstance(part, str) else None
    if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
        text = part.get("text")
    if not isinstance(text, str):
        raise Malformed(f"a message of {name} has the part {shown(part)}, expected parts of text: nothing else is read here")
    return text


def _calls(name: str, value: Json) -> list[dict]:
    """Read function calls in the form of OpenAI's tool_calls."""
    try:
        calls = json.loads(value) if isinstance(value, str) else value
        calls = calls if isinstance(calls, list) else [calls]
        functions = []
        for call in calls:
            arguments = call["arguments"]
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            functions.append({"type": "function", "function": {"name": call["name"], "arguments": arguments}})
        return functions
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Malformed(f"a call of {name} is {shown(value)}, expected {{name, arguments}} or its JSON") from None


def tools_of(value: Json) -> list[dict]:
    """Read the tools of a row: a list, or its JSON text; [] if there are none.

    Raises:
        Malformed: anything else.
    """
    tools = value
    if isinstance(value, str):
        try:
            tools = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            raise Malformed(f"tools is {shown(value)}, expected a list of tools or its JSON") from None
    tools = [tools] if isinstance(tools, dict) else tools
    if isinstance(tools, list) and tools and all(isinstance(tool, str) for tool in tools):  # each of them as JSON
        tools = [inner for tool in tools for inner in tools_of(tool)]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Malformed(f"tools is {shown(value)}, expected a list of tools or its JSON")
    return tools


def with_system(messages: list[Message], system: Json) -> list[Message]:
    """Put a row's own system text before its conversation.

    Raises:
        Malformed: it is no text, or the conversation has another one.
    """
    if not isinstance(system, str):
        raise Malformed(f"system is {shown(system)}, expected a text")
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] == system:
            return messages
        raise Malformed(f"system is {shown(system)}, and the conversation begins with another one: expected one of them")
    return [{"role": "system", "content": system}, *messages]


def text_of(name: str, value: Json) -> str:
    """Return a value that must be a text, or refuse it.

    Raises:
        Malformed: it is no text.
    """
    if not isinstance(value, str):
        raise Malformed(f"{name} is {shown(value)}, expected a text")
    return value


def check_types(row: dict, *names: str) -> None:
    """Refuse values that are no text, list or message.

    Raises:
        Malformed: neither a text nor a conversation.
    """
    for name in names:
        if name in row and not isinstance(row[name], (str, list, dict)):
            raise Malformed(f"{name} is {shown(row[name])}, expected a text or a list of {{role, content}}")


def check_value(name: str, value: Json, expected: str, needed: bool, last: bool = False) -> None:
    """Refuse a text or a conversation with nothing to learn.

    Args:
        name: of the column, for errors.
        value: a text, or messages.
        expected: end of the error.
        needed: whether there must be some text.
        last: whether the text must be in the last message, which must be an answer.

    Raises:
        Malformed: nothing to learn, or no Unicode.
    """
    if needed and not (value.strip() if isinstance(value, str) else has_text(value[-1:] if last else value)):
        raise Malformed(f"{name} is empty, {expected}")
    if last and not isinstance(value, str) and value[-1]["role"] in ("system", "user"):
        raise Malformed(f"{name} ends with {shown(value[-1])}, {expected}")
    if problem := text_problem(name, value):
        raise Malformed(problem)


def has_text(messages: list[Message]) -> bool:
    """Return whether any message has a text or a call."""
    return any((message.get("content") or "").strip() or message.get("tool_calls") for message in messages)


def text_problem(name: str, value: Json) -> str | None:
    """Return why a text or a conversation cannot be written as JSON in UTF-8."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"{name} holds what JSON cannot say ({error}), expected texts, numbers, lists and objects"
    return f"{name} has half a surrogate pair (\\ud800 to \\udfff), expected Unicode text" if broken(text) else None


def shown(value: Json) -> str:
    """Shorten a value for a message."""
    return f"{str(value)[:60]!r}"
