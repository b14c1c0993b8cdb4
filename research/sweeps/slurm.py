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

from research.errors import UserError
from research.runs.files import atomic_write
from research.runs.ledger import ATTEMPTS
from research.sweeps.agents import Target, sweep_copy
from research.sweeps.directives import Options, array_lines, finish_lines, quoted_folder
from research.sweeps.spec import Sweep
from research.sweeps.submission import Submission, ranges

TEMPLATES = Path(__file__).with_name("templates")
ROUNDS = 3  # submissions of what is missing
ARRAY_OPTIONS = "--partition, --account, --qos, --time, --gpus-per-node, …"
FINISH_OPTIONS = "of the job after the array: --account, --finish-sbatch=--partition=NAME, --finish-sbatch=--time=1:00:00, …"


def array_script(copies: Submission, indices: Iterable[int], options: Options) -> str:
    """Write the script of the points with these numbers; where the cluster's arrays do not count so far, counted anew."""
    numbers = sorted(indices)
    is_far = numbers[-1] > last_index()
    chosen = ranges(range(len(numbers)) if is_far else numbers) + (f"%{options.throttle}" if options.throttle else "")
    many = options.nodes * options.tasks_per_node > 1
    counted = f"--of {ranges(numbers)}" if is_far else ""
    return _filled(
        "slurm_array.sh",
        options.setup,
        **copies._asdict(),
        indices=chosen,
        of=counted,
        attempts=ATTEMPTS,
        warning=options.warning,
        resources=array_lines(options),
        launch="srun --kill-on-bad-exit=1" if many else "",
        term="USR1" if many else "TERM",
    )  # srun passes USR1 on, and makes KILL of TERM


def agents_script(name: str, file: Path, folder: Path, target: Target, count: int, options: Options) -> str:
    """Write the script of `count` W&B agents, each of which runs one trial.

    Args:
        name: of the sweep.
        file: the sweep as it was handed to W&B: a trial that goes on takes its command from there.
        folder: of the sweep.
        target: the sweep on the server.
        count: tasks.
        options: see there.
    """
    chosen = ranges(range(count)) + (f"%{options.throttle}" if options.throttle else "")
    return _filled(
        "slurm_agent.sh",
        options.setup,
        name=name,
        indices=chosen,
        file=file,
        folder=folder,
        attempts=ATTEMPTS,
        warning=options.warning,
        resources=array_lines(options),
        programs=shlex.quote(str(Path(sys.executable).parent)),
        target=shlex.quote(str(target)),
        sweep=target.sweep,
    )


def finish_script(copies: Submission, array: str, round: int, options: Options) -> str:
    """Write the script of the job after an array."""
    return _filled(
        "slurm_finish.sh",
        options.setup,
        **copies._asdict(),
        array=array,
        round=round,
        options=shlex.quote(json.dumps(options._asdict())),
        resources=finish_lines(options),
    )


def submit(copies: Submission, indices: list[int], options: Options, round: int = 1) -> tuple[str, str]:
    """Hand both scripts to SLURM; return the job ids.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    (copies.folder / "logs").mkdir(parents=True, exist_ok=True)
    array = _sbatch(copies.file.parent / f"array-{round}.sh", array_script(copies, indices, options), ARRAY_OPTIONS)
    try:
        after = _sbatch(copies.file.parent / f"finish-{round}.sh", finish_script(copies, array, round, options), FINISH_OPTIONS)
    except UserError:  # an array that nothing follows would not be what was asked for
        subprocess.run(["scancel", array], capture_output=True, check=False)
        raise
    return array, after


def submit_agents(sweep: Sweep, folder: Path, target: Target, count: int, options: Options) -> str:
    """Hand the script of the agents to SLURM; return the job's id.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    copy = sweep_copy(folder, target)
    with atomic_write(copy) as stream:
        stream.write(sweep.text)
    text = agents_script(sweep.name, copy, folder, target, count, options)
    return _sbatch(folder / "submit" / f"agents-{target.sweep}.sh", text, ARRAY_OPTIONS)


def last_index() -> float:
    """Return the highest number that a task of an array may have here; inf where the cluster does not say it."""
    try:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return math.inf
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    return int(size[1]) - 1 if size else math.inf


def check_array(tasks: int, what: str) -> None:
    """Refuse an array of more tasks than the cluster takes.

    Raises:
        UserError: the cluster has no array of so many tasks.
    """
    if tasks - 1 > (last := last_index()):
        raise UserError(
            f"{what} are {tasks:,} tasks, and an array has {last + 1:,} at most here (SLURM's MaxArraySize); "
            f"expected as many. Write run_cap: {last + 1} into the sweep, and raise it once those are "
            "answer."
        )


def _filled(template: str, setup: tuple[str, ...], **values: object) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    values |= {"python": sys.executable, "here": Path.cwd(), "setup": "\n".join(setup)}
    values["name"] = re.sub(r"[^\w.-]+", "-", str(values["name"]))  # a space would end the directive
    values["logs"] = quoted_folder(str(Path(str(values["folder"])).resolve() / "logs"))
    for place in {"file", "folder", "plan", "here", "python"} & values.keys():
        values[place] = shlex.quote(str(Path(str(values[place])) if place == "python" else Path(str(values[place])).resolve()))
    values = {name: str(value) for name, value in values.items()}
    text = re.sub(r"^ *@(\w+)@\n", lambda match: match[0] if values.get(match[1], "-") else "", text, flags=re.MULTILINE)
    return re.sub(r"@(\w+)@", lambda match: values.get(match[1], match[0]), text)


def _sbatch(path: Path, text: str, options: str) -> str:
    with atomic_write(path) as stream:
        stream.write(text)
    environment = {
        name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_"))
    }
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:
        raise UserError(
            "there is no sbatch here; expected SLURM's commands on the PATH. Submit from a login node, or look at the scripts "
            "with --dry-run."
        ) from None
    if answer.returncode:
        raise UserError(
            f"sbatch refuses {path} ({' '.join(answer.stderr.split())[:300]}); expected a job that this cluster takes. "
            f"Correct the options ({options})."
        )
    return answer.stdout.strip().partition(";")[0]
