"""A sweep as a SLURM array: one point a task, requeued by its own script; a job after it submits again what is missing.

Or an array of W&B's agents, one trial a task.
"""

import contextlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from research.errors import UserError
from research.runs.files import atomic_write
from research.runs.ledger import ATTEMPTS
from research.sweeps.agents import Target, sweep_copy
from research.sweeps.directives import Options, array_lines, finish_lines, quoted_folder
from research.sweeps.queue import note_array
from research.sweeps.spec import Sweep
from research.sweeps.submission import Submission, ranges

TEMPLATES = Path(__file__).with_name("templates")
ROUNDS = 3  # submissions of what is missing
ARRAY_OPTIONS = "--partition, --account, --qos, --time, --gpus-per-node, …"
SILENT = re.compile(
    r"Unable to contact|Could not establish a configuration source|Unable to establish controller|Connection refused|"
    r"connect failure|timed out|Unable to process configuration|cannot stat file|Zero Bytes|[Mm]unge"
)
"""What sbatch says where its controller is not there: no option is wrong."""
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


def submit(
    copies: Submission, indices: list[int], options: Options, round: int = 1, points: Sequence[str] = ()
) -> tuple[str, str]:
    """Hand both scripts to SLURM, and note what was submitted; return the job ids. What SLURM refuses leaves no file.

    Args:
        copies: what the tasks read.
        indices: numbers of the tasks.
        options: see there.
        round: how often the sweep is submitted.
        points: ids of all points of the plan, which the indices count; () of a search.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    script, place = array_script(copies, indices, options), copies.file.parent
    array = _sbatch(place / f"array-{round}.sh", script, ARRAY_OPTIONS, copies.folder / "logs")
    try:
        finish = finish_script(copies, array, round, options)
        after = _sbatch(place / f"finish-{round}.sh", finish, FINISH_OPTIONS, copies.folder / "logs")
    except UserError:  # an array that nothing follows would not be what was asked for
        subprocess.run(["scancel", array], capture_output=True, check=False)
        (place / f"array-{round}.sh").unlink(missing_ok=True)
        raise
    chosen = sorted(indices)
    numbers = range(len(chosen)) if chosen[-1] > last_index() else chosen
    named = {task: points[i] if points else "" for task, i in zip(numbers, chosen, strict=True)}
    note_array(place / f"array-{round}.json", array, after, job_name(copies.name), named)
    return array, after


def submit_agents(sweep: Sweep, folder: Path, target: Target, count: int, options: Options) -> str:
    """Hand the script of the agents to SLURM; return the job's id.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    copy = sweep_copy(folder, target)
    text = agents_script(sweep.name, copy, folder, target, count, options)
    array = _sbatch(folder / "submit" / f"agents-{target.sweep}.sh", text, ARRAY_OPTIONS, folder / "logs")
    with atomic_write(copy) as stream:  # read by a task that is requeued
        stream.write(sweep.text)
    return array


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


def job_name(sweep: str) -> str:
    """Return the name of a sweep's jobs: a space would end the directive."""
    return re.sub(r"[^\w.-]+", "-", sweep)


def _filled(template: str, setup: tuple[str, ...], **values: object) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    values |= {"python": sys.executable, "here": Path.cwd(), "setup": "\n".join(setup)}
    values["is_cancelled"] = (TEMPLATES / "slurm_cancelled.sh").read_text(encoding="utf-8").rstrip()
    values["name"] = job_name(str(values["name"]))
    values["logs"] = quoted_folder(str(Path(str(values["folder"])).resolve() / "logs"))
    for place in {"file", "folder", "plan", "here", "python"} & values.keys():
        values[place] = shlex.quote(str(Path(str(values[place])) if place == "python" else Path(str(values[place])).resolve()))
    values = {name: str(value) for name, value in values.items()}
    text = re.sub(r"^ *@(\w+)@\n", lambda match: match[0] if values.get(match[1], "-") else "", text, flags=re.MULTILINE)
    return re.sub(r"@(\w+)@", lambda match: values.get(match[1], match[0]), text)


def _sbatch(path: Path, text: str, options: str, logs: Path) -> str:
    """Write a script and submit it; return the job's id. What is refused leaves the script and the folder as they were.

    Raises:
        UserError: there is no sbatch, it refuses, or nobody answers it.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else None
    made = [folder for folder in (logs, path.parent, *path.parents[1:3], *logs.parents[:1]) if not folder.exists()]
    logs.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(text)
    environment = {
        name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_"))
    }
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False, env=environment
        )
        refusal = _refusal(path, answer.stderr, options) if answer.returncode else ""
    except FileNotFoundError:
        refusal = (
            "there is no sbatch here; expected SLURM's commands on the PATH. Submit from a login node, or look at the scripts "
            "with --dry-run."
        )
    if not refusal:
        return answer.stdout.strip().partition(";")[0]
    path.unlink() if before is None else path.write_text(before, encoding="utf-8")
    for folder in made:
        with contextlib.suppress(OSError):  # something else lies there
            folder.rmdir()
    raise UserError(refusal)


def _refusal(path: Path, said: str, options: str) -> str:
    short = " ".join(said.split())[:300]
    if SILENT.search(said):
        return (
            f"SLURM does not answer ({short}); expected a controller that takes jobs. Nothing is submitted: look at "
            "`scontrol ping`, and type the command again when it says UP."
        )
    return f"sbatch refuses {path} ({short}); expected a job that this cluster takes. Correct the options ({options})."
