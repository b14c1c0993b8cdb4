"""Turns jsonargparse's errors about a configuration into one paragraph with the cure."""

import ast
import inspect
import re

from research.errors import did_you_mean, suggest
from research.ranges import EXPECTED
from research.runs.defaults import imported
from research.training.option_names import REPLACED, RUN_OPTIONS, TOP

NUMBERS = {"int": "a whole number", "float": "a finite number"}


def explained(message: str, prog: str) -> str:
    """Rewrite jsonargparse's error as one paragraph, with the cure if an option has been renamed."""
    text = " ".join(message.split())
    for name, instead in REPLACED.items():
        if f"trainer.{name}" in text or f"'{name}'" in text:
            return f"trainer.{name} is not an option here; expected {instead}, which has taken its place. Use that."
    if refused := _refused_value(text):
        return f"{refused} Correct the configuration or the option."
    known = ""
    if match := re.search(r".*class_path '([\w.]+)':.*?Option '([\w.]+)' is not accepted", text):
        known = suggest(match[2], inspect.signature(imported(match[1]).__init__).parameters.keys() - {"self", "seed"})
    elif match := re.search(r"(?:Option '|unrecognized arguments: )(--)?([^' =]+)", text):
        known = suggest(f"{match[1] or ''}{match[2]}", [f"{match[1] or ''}{name}" for name in TOP])
    given = re.search(r"Given value: (?!NestedArg|Namespace|\{)(\S+)", text)
    text = re.sub(r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ", "", text)
    text = re.sub(r"( - Expected a <class 'NoneType'>)?( Given value type:.*)?$", "", text)
    text = re.sub(r"<class '(\w+)'>", r"\1", text).rstrip(".")
    if given and not known and "Got value" not in text:
        text += f", not {given[1].rstrip('.')!r}"
    return (
        f"{text[:600]}; {known + '. Expected' if known else 'expected'} what `{prog} -c CONFIG --help` lists. Correct the "
        "configuration or the option."
    )


def _refused_value(text: str) -> str | None:
    """Return `data.limit=0; expected 1 or more, or null`, where a value is not in its option's range or choices; else None."""
    place = re.search(r'Parser key "(model|data)": .*?Parser key "([\w.]+)": (.*)', text)
    place = place or re.search(r'Parser key "(trainer)\.([\w.]+)": (.*)', text)
    place = place or re.search(rf'Parser key "()({"|".join(RUN_OPTIONS)})": (.*)', text)
    refused = place and re.search(
        r"Not of type (\w+): |Expected an? <class '(int|float)'>|Expected a typing\.Literal\[(.+?)\]", place[3]
    )
    value = place and re.search(
        r"Got value: (?!- )(\S+)|Given value: (?!NestedArg|\{)(\S+)|: (\S+) does not|: ('.*?')", place[3]
    )
    if not refused or not value or len({*re.findall(r"Expected an? <class '(?!NoneType)(\w+)'>", place[3])}) > 1:
        return None  # a value of several types, whose list the parser gives
    if place[1] == "trainer" and (not refused[2] or "Literal" in place[3]):
        return None  # Lightning's options are unions of choices
    given = next(filter(None, value.groups()))
    choices = [*ast.literal_eval(f"[{refused[3]}]")] if refused[3] else []
    expected = " | ".join(choices) or (NUMBERS | EXPECTED)[refused[1] or refused[2]]
    null = ", or null" if re.search(r"Subtypes: \[[^]]*NoneType", place[3]) else ""
    return f"{'.'.join(filter(None, place.groups()[:2]))}={given}; expected {expected}{null}.{did_you_mean(given, choices)}"
