"""Time and memory as SLURM writes them, checked; and what a time limit means for points of known length."""

import math
import re
from collections.abc import Iterable

from research.errors import UserError
from research.progress import say

TIMES = "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds"
ENDLESS = ("0", "-1", "unlimited", "infinite")
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
ROUNDED = 60  # SLURM's limits are whole minutes


def limit_seconds(flag: str, text: str) -> float:
    """Parse a time limit of SLURM; return the seconds that SLURM makes of it, inf of none.

    Raises:
        UserError: sbatch would refuse it.
    """
    if text.lower() in ENDLESS:
        return math.inf
    match = re.fullmatch(r"(?:(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?)|(?:(?:(\d+):)?(\d+):(\d+))|(\d+)", text)
    if not match:
        raise UserError(
            f"{flag} {text!r}; expected a time as SLURM writes it: {TIMES}. "
            + (f"Write {meant}." if (meant := _time_meant(text)) else "Write 2:00:00 for two hours.")
        )
    days, hours, minutes, seconds, short_hours, short_minutes, short_seconds, alone = (
        int(part or 0) for part in match.groups()
    )
    total = days * 86400 + (hours + short_hours) * 3600 + (minutes + short_minutes + alone) * 60 + seconds + short_seconds
    return math.ceil(total / ROUNDED) * ROUNDED


def _time_meant(text: str) -> str:
    """Return SLURM's spelling of 2h, 1.5 hours, 1d12h, 30min; "" where it is none of these."""
    part = r"(\d+(?:\.\d+)?)\s*(d|h|m|s)(?:ays?|ours?|rs?|in(?:ute)?s?|ec(?:ond)?s?)?"
    if not re.fullmatch(rf"(?:{part}\s*)+", text.lower()):
        return ""
    total = round(sum(float(number) * UNITS[unit] for number, unit in re.findall(part, text.lower())))
    days, rest = divmod(total, 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def check_memory(flag: str, text: str) -> None:
    """Refuse an amount of memory that sbatch would refuse.

    Raises:
        UserError: it is one.
    """
    if re.fullmatch(r"\d+(?:[KMGT]B?)?", text, re.IGNORECASE):
        return
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])(?:i?B?)", text, re.IGNORECASE)
    if not match:
        meant = "16G for 16 GiB"
    elif "." in match[1]:
        smaller = {"T": "G", "G": "M", "M": "K", "K": "K"}[match[2].upper()]
        meant = f"{math.ceil(float(match[1]) * 1024)}{smaller}"
    else:
        meant = f"{match[1]}{match[2].upper()}"
    raise UserError(f"{flag} {text!r}; expected a whole number with K, M, G or T, as SLURM writes it. Write {meant}.")


def check_warning(flag: str, text: str, warning: int) -> None:
    """Refuse a time limit that is over before anything is computed: the warning would come at the start, again and again.

    Raises:
        UserError: the limit is one, or no time at all.
    """
    limit = limit_seconds(flag, text)
    if limit <= warning:
        raise UserError(
            f"{flag} {text} is {limit:g} s and --warning {warning} s: a task would be told to save when it starts, and be "
            f"requeued for ever; expected a limit longer than the warning. Pass a longer {flag}, or a shorter --warning."
        )


def note_resumptions(flag: str, text: str, warning: int, seconds: Iterable[float]) -> None:
    """Say how often points are resumed that take longer, as measured, than the time that a task has."""
    longest, limit = max(seconds, default=0), limit_seconds(flag, text) - warning
    if longest > limit:
        times = math.ceil(longest / limit) - 1
        say(
            f"note: the longest point takes about {longest:.0f} s (measured on the machine that planned it), and a task trains "
            f"for {limit:g} s at most: it is requeued and goes on about {times} {'time' if times == 1 else 'times'}"
        )
