"""Refuse keys in scripts and manifests: others can read these files, and they stay on the disk."""

import re
from collections.abc import Iterable

from research.errors import UserError

SECRET = re.compile(
    r"(API|ACCESS|PRIVATE|SECRET|SIGNING|MASTER|AUTH)KEY$|(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)S?$"
    r"|(^|_)(KEY|PASS|PAT|JWT|CREDS|AUTH|AUTHORIZATION|BEARER|COOKIE)$|.+_PWD$",
    re.IGNORECASE,
)
"""Names of variables that hold a key, without what BEHIND matches; MAX_TOKENS and MONKEY are no keys."""
BEHIND = re.compile(r"(_?\d+|_PEM|_B64|_BASE64)+$", re.IGNORECASE)
COUNTS = re.compile(r"(^|_)(MAX|MIN|NUM|N|NEW)(_\w+)?_TOKENS$", re.IGNORECASE)
WITHIN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
"""A password in an address: https://me:mine@host."""
ISSUED = re.compile(
    r"\b(gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|xox[abeprs]-[\w-]{8,}"
    r"|AKIA[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)|-----BEGIN [A-Z ]*PRIVATE KEY|\bBearer\s+[^\s$`]\S*"
)
"""Keys by the form in which services issue them, whatever the variable is called."""
ASSIGNED = re.compile(r"""(?:^|[\s;&|=("'])([A-Za-z_]\w*)\+?=("[^"]*"|'[^']*'|[^\s;&|"']*)""")
TYPED = re.compile(
    r"""(?:^|\s)(?:--?(token|password|passwd|secret|api[-_]?key|access[-_]?key)[\s=]+|setenv\s+(\w+)\s+|"""
    r"""wandb\s+login\s+(?:--\w+\s+)*(?=[0-9a-f]{40}))("[^"]*"|'[^']*'|[^\s;&|]+)""",
    re.IGNORECASE,
)
"""A key as an option, or in csh's words."""
CURE = "Put it into a Secret (--secret NAME on Kubernetes), or into a file that you alone can read and that --setup sources"


def refuse_secret(where: str, name: str, value: str) -> None:
    """Refuse a variable that is a key by its name, or whose value is one by its form or has a password in it.

    Raises:
        UserError: the variable is a key by its name, or its value is one by its form or has a password in it.
    """
    if is_secret(name):
        what = "is a secret by its name"
    elif WITHIN.search(value):
        what = "has a password in its address"
    elif ISSUED.search(value):
        what = "has a key in it, by its form"
    else:
        return
    raise UserError(f"{where}=… {what}, and would stand in a file that others can read; expected none there. {CURE}.")


def is_secret(name: str) -> bool:
    """Return whether a variable is a key, by its name."""
    return SECRET.search(BEHIND.sub("", name)) is not None and not COUNTS.search(name)


def refuse_assignments(where: str, lines: Iterable[str]) -> None:
    """Refuse lines that write a key out, instead of taking it from a command or a variable.

    Raises:
        UserError: a line sets a variable or an option that is a key to what stands there, not to what a command or a variable
            gives.
    """
    for line in lines:
        typed = [(option or name or "wandb login", value) for option, name, value in TYPED.findall(line)]
        for name, value in [*ASSIGNED.findall(line), *typed]:
            text = value.strip("\"'")
            if text and not text.startswith(("$", "`")):
                key = "TOKEN" if name == "wandb login" else name.replace("-", "_")
                refuse_secret(f"{where}: {name}", key, text)
        refuse_secret(where, "", line)
