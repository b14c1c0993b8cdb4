"""What jsonargparse finds wrong with a configuration, in one paragraph with the cure."""

import inspect
import re

from research.errors import suggest
from research.runs.defaults import imported
from research.training.option_names import REPLACED, TOP

RANGES = {
    "NonNegativeInt": "0 or more (a whole number)",
    "PositiveInt": "1 or more (a whole number)",
    "TwoOrMore": "2 or more (a whole number)",
    "ClosedUnitInterval": "0 to 1",
    "int": "a whole number",
    "float": "a finite number",
}
"""Number types of options → what they take, for messages."""


def explained(message: str, prog: str) -> str:
    """Say jsonargparse's error in one paragraph, with the cure where another name has taken over."""
    text = " ".join(message.split())
    for name, instead in REPLACED.items():
        if f"trainer.{name}" in text or f"'{name}'" in text:
            return f"trainer.{name} is not an option here; expected {instead}, which has taken its place. Use that."
    if refused := _refused_value(text):
        return f"{refused}. Correct the configuration or the option."
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
    """`data.limit=0; expected 1 or more, or null`, where a value is not of its option's range or choices; else None."""
    place = re.search(r'Parser key "(model|data)": .*?Parser key "([\w.]+)": (.*)', text)
    place = place or re.search(r'Parser key "(trainer)\.([\w.]+)": (.*)', text)
    expected = place and re.search(
        r"Not of type (\w+): |Expected an? <class '(int|float)'>|Expected a typing\.Literal\[(.+?)\]", place[3]
    )
    value = place and re.search(r"Got value: (\S+)|Given value: (?!NestedArg|\{)(\S+)|: (\S+) does not|: ('.*?')", place[3])
    if not expected or not value or len({*re.findall(r"Expected an? <class '(?!NoneType)(\w+)'>", place[3])}) > 1:
        return None  # a value of several types, whose list the parser gives
    if place[1] == "trainer" and (not expected[2] or "Literal" in place[3]):
        return None  # Lightning's options are unions of choices
    name = expected[1] or expected[2]
    choices = expected[3] or RANGES.get(name, name)
    null = ", or null" if re.search(r"Subtypes: \[[^]]*NoneType", place[3]) else ""
    return f"{place[1]}.{place[2]}={next(filter(None, value.groups()))}; expected {choices}{null}"
