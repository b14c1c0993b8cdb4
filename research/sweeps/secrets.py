"""Keys that would be written into scripts and manifests, which others can read and which are kept."""

import re
from collections.abc import Iterable

from research.errors import UserError

SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
WITHIN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
"""A password in an address: https://me:mine@host."""
ASSIGNED = re.compile(r"(?:^|[\s;&|=(])([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&|]*)")
CURE = "Put it into a Secret (--secret NAME on Kubernetes), or into a file that you alone can read and that --setup sources"


def refuse_secret(where: str, name: str, value: str) -> None:
    """
    Raises:
        UserError: the variable is a key by its name, or its value has a password in it.
    """
    if SECRET.search(name) or WITHIN.search(value):
        what = "is a secret by its name" if SECRET.search(name) else "has a password in its address"
        raise UserError(
            f"{where}=… {what}, and would stand in a file that others can read; expected none there. {CURE}."
        )


def refuse_assignments(where: str, lines: Iterable[str]) -> None:
    """
    Raises:
        UserError: a line sets a variable that is a key to what stands there, not to what a command or a variable gives.
    """
    for line in lines:
        for name, value in ASSIGNED.findall(line):
            text = value.strip("\"'")
            if text and not text.startswith(("$", "`")):
                refuse_secret(f"{where}: {name}", name, text)
        if WITHIN.search(line):
            refuse_secret(where, "", line)
