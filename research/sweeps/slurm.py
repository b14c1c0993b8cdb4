"""A sweep as a SLURM array: one point a task, requeued by its own script; a job after it submits again what is missing.

Or an array of W&B's agents, one trial a task.
"""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.runs.files import atomic_write
from research.runs.ledger import ATTEMPTS
from research.sweeps.agents import Target, copy_of_sweep
from research.sweeps.secrets import refuse_assignments
from research.sweeps.spec import Sweep
from research.sweeps.submission import Submission, ranges

TEMPLATES = Path(__file__).parents[2] / "scripts" / "slurm"
ROUNDS = 3  # submissions of what is missing


class Options(NamedTuple):
    """What the user says of the cluster.

    Attributes:
        throttle: tasks that run at a time; 0 for as many as there is room for.
        time: limit of a task, as SLURM writes it.
        partition, account: where, and on whose account.
        cpus, gpus, mem: of a task.
        nodes, tasks_per_node: of a point that is trained by DDP: one process a task.
        sbatch: further lines, without #SBATCH.
        setup: shell lines before the command, such as `module load cuda`.
        warning: seconds before the time limit at which a task saves.
    """

    throttle: int = 0
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    mem: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    warning: int = 120


def array_script(of: Submission, indices: Iterable[int], options: Options) -> str:
    """The script of the points with these numbers; where the cluster's arrays do not count so far, counted anew."""
    numbers = sorted(indices)
    is_far = numbers[-1] > last_index()
    chosen = ranges(range(len(numbers)) if is_far else numbers) + (f"%{options.throttle}" if options.throttle else "")
    many = options.nodes * options.tasks_per_node > 1
    counted = f"--of {ranges(numbers)}" if is_far else ""
    return _filled(
        "array.sh",
        options.setup,
        **of._asdict(),
        indices=chosen,
        of=counted,
        attempts=ATTEMPTS,
        warning=options.warning,
        resources=_resources(options, whole=True),
        launch="srun --kill-on-bad-exit=1" if many else "",
        term="USR1" if many else "TERM",
    )  # srun passes USR1 on, and makes KILL of TERM


def agents_script(name: str, file: Path, folder: Path, target: Target, count: int, options: Options) -> str:
    """The script of `count` W&B agents, each of which runs one trial.

    Args:
        name: of the sweep.
        file: the sweep as it was handed to W&B: a trial that goes on takes its command from there.
        folder: of the sweep.
        target: the sweep on the server.
        count: tasks.
        options: see there.
    """
    chosen = ranges(range(count)) + (f"%{options.throttle}" if options.throttle else "")
    programs = shlex.quote(str(Path(sys.executable).parent))
    return _filled(
        "agent.sh",
        options.setup,
        name=name,
        indices=chosen,
        file=file,
        folder=folder,
        attempts=ATTEMPTS,
        warning=options.warning,
        resources=_resources(options, whole=True),
        programs=programs,
        entity=shlex.quote(target.entity),
        project=shlex.quote(target.project),
        sweep=target.sweep,
    )


def finish_script(of: Submission, array: str, round: int, options: Options) -> str:
    """The script of the job after an array."""
    return _filled(
        "finish.sh",
        options.setup,
        **of._asdict(),
        array=array,
        round=round,
        options=shlex.quote(json.dumps(options._asdict())),
        resources=_resources(options, whole=False),
    )


def submit(of: Submission, indices: list[int], options: Options, round: int = 1) -> tuple[str, str]:
    """Hand both scripts to SLURM; the job ids.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    (of.folder / "logs").mkdir(parents=True, exist_ok=True)
    array = _sbatch(of.file.parent / f"array-{round}.sh", array_script(of, indices, options))
    after = _sbatch(of.file.parent / f"finish-{round}.sh", finish_script(of, array, round, options))
    return array, after


def submit_agents(sweep: Sweep, folder: Path, target: Target, count: int, options: Options) -> str:
    """Hand the script of the agents to SLURM; the job's id.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    copy = copy_of_sweep(folder, target)
    with atomic_write(copy) as stream:
        stream.write(sweep.text)
    text = agents_script(sweep.name, copy, folder, target, count, options)
    return _sbatch(folder / "submit" / f"agents-{target.sweep}.sh", text)


def last_index() -> float:
    """The highest number that a task of an array may have here; inf where the cluster does not say it."""
    try:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return math.inf
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    return int(size[1]) - 1 if size else math.inf


def check_array(tasks: int, what: str) -> None:
    """
    Raises:
        UserError: the cluster has no array of so many tasks.
    """
    if tasks - 1 > (last := last_index()):
        raise UserError(
            f"{what} are {tasks:,} tasks, and an array has {last + 1:,} at most here (SLURM's MaxArraySize); "
            f"expected as many. Write run_cap: {last + 1} into the sweep, and raise it once those are "
            "done."
        )


def _filled(template: str, setup: tuple[str, ...], **values: object) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    values |= {"python": sys.executable, "here": Path.cwd(), "setup": "\n".join(setup)}
    values["name"] = re.sub(r"[^\w.-]+", "-", str(values["name"]))  # a space would end the directive
    values["logs"] = directive(str(Path(str(values["folder"])).resolve() / "logs"))
    for place in {"file", "folder", "plan", "here", "python"} & values.keys():
        values[place] = shlex.quote(str(Path(str(values[place])) if place == "python" else Path(str(values[place])).resolve()))
    return re.sub(r"@(\w+)@", lambda match: str(values[match[1]]) if match[1] in values else match[0], text)


def directive(folder: str) -> str:
    """A folder within the quotes of an #SBATCH line, where SLURM reads %j as the job's number.

    Raises:
        UserError: a line could not hold it.
    """
    if bad := re.search(r"[\x00-\x1f\x7f\"]", folder):
        raise UserError(
            f"the sweep's folder {folder!r} has {bad[0]!r} in its name, which would end the line of the script "
            "that names it; expected a name without quotes and control characters. Give the folder another, or "
            "--out in the sweep's command."
        )
    return folder.replace("\\", "\\\\").replace("%", "%%")


def check(options: Options) -> None:
    """
    Raises:
        UserError: options that would break out of their lines, or that hold a key.
    """
    _resources(options, whole=True)


def _resources(options: Options, whole: bool) -> str:
    lines = {"partition": options.partition, "account": options.account}
    if whole:
        lines |= {
            "time": options.time,
            "cpus-per-task": options.cpus,
            "gres": options.gpus and f"gpu:{options.gpus}",
            "mem": options.mem,
            "nodes": options.nodes,
            "ntasks-per-node": options.tasks_per_node,
        }
    refuse_assignments("--setup", options.setup)
    for name, value in lines.items():
        if re.search(r"[\s\x00-\x1f\x7f\"'\\#]", str(value or "")):
            raise UserError(
                f"--{name} {value!r}; expected a value without blanks and quotes: it stands in a line of the "
                "script. Correct it."
            )
    for line in options.sbatch:
        refuse_assignments("--sbatch", [line.replace(",", " ")])
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line) or not line.startswith("-"):
            raise UserError(
                f"--sbatch {line!r}; expected one option on one line, such as --qos=x. Give --sbatch once for each."
            )
    text = [f"#SBATCH --{name}={value}" for name, value in lines.items() if value]
    return "\n".join([*text, *(f"#SBATCH {line}" for line in options.sbatch)])


def _sbatch(path: Path, text: str) -> str:
    with atomic_write(path) as stream:
        stream.write(text)
    environment = {
        name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_"))
    }
    try:
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        raise UserError(
            "there is no sbatch here; expected SLURM's commands on the PATH. Submit from a login node, or look at "
            "the "
            "scripts with --dry-run."
        ) from None
    if done.returncode:
        raise UserError(
            f"sbatch refuses {path} ({' '.join(done.stderr.split())[:300]}); expected a job that this cluster "
            "takes. "
            "Correct the options (--partition, --time, --gpus, …)."
        )
    return done.stdout.strip().partition(";")[0]
