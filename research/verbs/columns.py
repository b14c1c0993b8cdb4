"""--columns of the verbs that read rows: which column has a role, as JSON."""

import json

from research.errors import UserError


def named_columns(text: str | None) -> dict[str, str] | None:
    """
    Raises:
        UserError: it is no JSON object.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"--columns {text!r}; expected a JSON object of roles and columns. Write it so: --columns "
            """'{"question": "ask", "answer": "reply"}'."""
        )
    return found
