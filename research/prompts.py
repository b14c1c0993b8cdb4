"""Prompts of the tasks: what a language model is asked, in one place for training, generation and pages."""

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
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}
