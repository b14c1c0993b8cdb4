"""Text that every form of a report can hold: SVG is XML 1.0, which lacks most control characters.

A renderer that meets one ends the whole process, and two names that differ by one must not become one: it is written out, as
\\x1b or \\u2028 (a line's end for JavaScript).
"""

import re

from research.types import Json

LACKING = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]"
    # written from right to left, or not seen at all: a name that reads as another one
    "|[\u200b\u202a-\u202e\u2060-\u2069\ufeff]"
)
DEEPEST = 100  # levels of a configuration


def printable(text: str) -> str:
    """Return the text with every unprintable character written as its escape."""
    return LACKING.sub(lambda match: match[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)


def printed(value: Json) -> Json:
    """Return JSON with all its texts printable, names too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name) if isinstance(name, str) else name: printed(inner) for name, inner in value.items()}
    return [printed(inner) for inner in value] if isinstance(value, list | tuple) else value


def is_deep(value: Json) -> bool:
    """Return whether JSON is nested deeper than any configuration is; to walk it would end in a RecursionError."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return False
    return True
