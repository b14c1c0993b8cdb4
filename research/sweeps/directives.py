"""What a user asks of SLURM, checked, as #SBATCH lines: of a sweep's tasks, and of the job after them."""

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from research.errors import UserError
from research.sweeps.limits import check_memory, check_warning, limit_seconds
from research.sweeps.secrets import refuse_assignments

FINISH = {"time": "30:00", "nodes": 1, "ntasks": 1, "cpus-per-task": 1}
"""What the job after an array asks for: it submits again, or writes a report, and needs no GPU."""
SHORT = {
    "a": "array",
    "A": "account",
    "c": "cpus-per-task",
    "d": "dependency",
    "G": "gpus",
    "J": "job-name",
    "n": "ntasks",
    "N": "nodes",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "W": "wait",
}
"""sbatch's options of one letter, of those that are looked at here."""
WRITTEN = {
    "array": "--throttle N for the tasks at a time",
    "job-name": "the sweep's name",
    "nodes": "--nodes N",
    "no-requeue": "a script that requeues its own task",
    "ntasks": "--tasks-per-node N",
    "ntasks-per-node": "--tasks-per-node N",
    "open-mode": "logs that are appended to",
    "output": "the logs in the sweep's folder",
    "signal": "--warning SECONDS",
    "wait": "a command that does not wait for the sweep",
}
"""Options that the script of an array has → what is expected instead of a further line."""
ASKED = {
    "account": ("account",),
    "cpus": ("cpus-per-task",),
    "gpus": ("gres", "gpus", "gpus-per-node", "gpus-per-task"),
    "mem": ("mem", "mem-per-cpu", "mem-per-gpu"),
    "partition": ("partition",),
    "qos": ("qos",),
    "time": ("time",),
}
"""Options here → those of sbatch that would contradict them, once they are given."""


class Options(NamedTuple):
    """What the user says of the cluster.

    Attributes:
        throttle: tasks that run at a time; 0 for as many as there is room for.
        time: limit of a task, as SLURM writes it.
        partition, account, qos: where, and on whose account.
        cpus, gpus, mem: of a task.
        nodes, tasks_per_node: of a point that is trained by DDP: one process a task.
        sbatch: further lines of the tasks, without #SBATCH.
        finish_sbatch: lines of the job after them, such as --partition=cpu.
        setup: shell lines before the command, such as `module load cuda`.
        warning: seconds before the time limit at which a task saves.
    """

    throttle: int = 0
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    mem: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    sbatch: tuple[str, ...] = ()
    finish_sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    warning: int = 120


def array_lines(options: Options) -> str:
    """Write the #SBATCH lines of an array's tasks."""
    asked = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "time": options.time,
        "cpus-per-task": options.cpus,
        "gres": options.gpus and f"gpu:{options.gpus}",
        "mem": options.mem,
        "nodes": options.nodes,
        "ntasks-per-node": options.tasks_per_node,
    }
    return _lines(asked, options.sbatch)


def finish_lines(options: Options) -> str:
    """Write the #SBATCH lines of the job after an array: no GPU, no partition of GPUs, and a time of its own."""
    named = {name for line in options.finish_sbatch for name, _ in _named(line)}
    asked = {name: value for name, value in FINISH.items() if name not in named}
    if "account" not in named:
        asked["account"] = options.account
    return _lines(asked, options.finish_sbatch)


def _lines(asked: dict[str, str | int | None], further: Iterable[str]) -> str:
    lines = [f"--{name}={value}" for name, value in asked.items() if value]
    return "\n".join(f"#SBATCH {line}" for line in [*lines, *further])


def check(options: Options) -> None:
    """Refuse options that would break out of their lines, that contradict the script, or that hold a key.

    Raises:
        UserError: there is one.
    """
    refuse_assignments("--setup", options.setup)
    for name in ("partition", "account", "qos", "time", "mem"):
        value = getattr(options, name)
        if re.search(r"[\s\x00-\x1f\x7f\"'\\#]", str(value or "")):
            raise UserError(
                f"--{name} {value!r}; expected a value without blanks and quotes: it stands in a line of the "
                "script. Correct it."
            )
    asked = {theirs: name for name, others in ASKED.items() if getattr(options, name) for theirs in others}
    of_tasks = WRITTEN | {theirs: f"--{_flag(name)} {getattr(options, name)} alone" for theirs, name in asked.items()}
    of_finish = {name: WRITTEN[name] for name in ("array", "job-name", "open-mode", "output", "wait")}
    of_finish["dependency"] = "the array before it"
    for flag, lines, written in (("--sbatch", options.sbatch, of_tasks), ("--finish-sbatch", options.finish_sbatch, of_finish)):
        for line in lines:
            _check_line(flag, line, written)


def check_limits(options: Options) -> None:
    """Refuse times and amounts of memory that sbatch refuses, and a time limit that the warning fills.

    Raises:
        UserError: there is one.
    """
    if limit := time_limit(options):
        check_warning(*limit, options.warning)
    if options.mem:
        check_memory("--mem", options.mem)
    for flag, lines in (("--sbatch", options.sbatch), ("--finish-sbatch", options.finish_sbatch)):
        for name, value in (named for line in lines for named in _named(line)):
            if name == "time":
                limit_seconds(f"{flag} --time", value)
            elif name in ASKED["mem"]:
                check_memory(f"{flag} --{name}", value)


def time_limit(options: Options) -> tuple[str, str] | None:
    """Return the option that limits a task's time, and its value; None leaves it to the partition."""
    lines = [value for line in options.sbatch for name, value in _named(line) if name == "time"]
    return ("--time", options.time) if options.time else ("--sbatch --time", lines[-1]) if lines else None


def _check_line(flag: str, line: str, written: dict[str, str]) -> None:
    refuse_assignments(flag, [line.replace(",", " ")])
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line) or not line.startswith("-"):
        raise UserError(f"{flag} {line!r}; expected one option on one line, such as --qos=x. Give {flag} once for each.")
    for name, _ in _named(line):
        if name in written:
            raise UserError(
                f"{flag} {line!r} contradicts what the script says of --{name} itself; expected {written[name]}. Leave it out."
            )


def _named(line: str) -> Iterator[tuple[str, str]]:
    """Yield the options in a line, by their whole names, with their values; "" of none.

    sbatch takes several in a line, letters, and beginnings of names.
    """
    try:
        arguments = shlex.split(line)
    except ValueError:
        raise UserError(f"--sbatch {line!r} has a quote without its other; expected both. Correct it.") from None
    known = {*WRITTEN, *FINISH, "dependency", *(name for names in ASKED.values() for name in names)}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if match := re.fullmatch(r"(?s)--([\w-]+)(?:=(.*))?", argument):
            longer = sorted((name for name in known if name.startswith(match[1])), key=len)
            yield longer[0] if longer else match[1], following if match[2] is None else match[2]
        elif match := re.fullmatch(r"(?s)-(\w)(.*)", argument):
            yield SHORT.get(match[1], match[1]), match[2] or following


def _flag(name: str) -> str:
    return {"cpus": "cpus-per-task", "gpus": "gpus-per-node"}.get(name, name)


def quoted_folder(folder: str) -> str:
    """Quote a folder for an #SBATCH line, where SLURM reads %j as the job's number.

    Raises:
        UserError: a line could not hold it.
    """
    if bad := re.search(r"[\x00-\x1f\x7f\"]", folder):
        raise UserError(
            f"the sweep's folder {folder!r} has {bad[0]!r} in its name, which would end the line of the script that names it; "
            "expected a name without quotes and control characters. Give the folder another, or --out in the sweep's command."
        )
    return folder.replace("\\", "\\\\").replace("%", "%%")
