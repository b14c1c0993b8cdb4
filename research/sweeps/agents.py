"""Resume a trial that W&B's server gave to an agent, without the agent.

W&B's server hands a run out once. A run that calls `mark_preempting` is handed out again, but with its whole configuration as
arguments, not the sweep's parameters alone (wandb/wandb#9143), which no typed command takes. So nothing here calls it: a
task that was stopped resumes the trial that it has, from what the agent wrote down, as the same W&B run.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from research.errors import UserError
from research.runs.plan import fill_in
from research.sweeps.spec import Sweep, read_mapping
from research.types import Json


class Target(NamedTuple):
    """A sweep on W&B's server."""

    entity: str
    project: str
    sweep: str

    def __str__(self) -> str:
        return "/".join(self)


class Trial(NamedTuple):
    """A trial as the agent received it.

    Attributes:
        run: id of the W&B run.
        argv: the command, as the agent started it.
    """

    run: str
    argv: list[str]


def parse_target(text: str) -> Target:
    """Parse ENTITY/PROJECT/SWEEP_ID.

    Raises:
        UserError: it is not that.
    """
    parts = text.split("/")
    if len(parts) != 3 or not all(part.strip() for part in parts) or not re.fullmatch(r"[\w-]+", parts[2]):
        raise UserError(f"--wandb {text!r}; expected ENTITY/PROJECT/SWEEP_ID, as `wandb sweep FILE` prints it. Correct it.")
    return Target(*parts)


def sweep_copy(folder: Path, target: Target) -> Path:
    """Return the copy of a sweep's file from which a trial that is resumed takes its command."""
    return folder / "submit" / f"agents-{target.sweep}.yaml"


def received_trial(folder: Path, target: Target, sweep: Sweep) -> Trial:
    """Read the trial whose parameters the agent wrote into its folder (WANDB_DIR).

    Args:
        folder: where the agent ran.
        target: the sweep on the server.
        sweep: the same, as its file says.

    Raises:
        UserError: there is none, or its parameters are not the sweep's.
    """
    files = sorted(folder.glob(f"wandb/sweep-{target.sweep}/config-*.yaml"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(f"{folder} holds no trial of {target.sweep}; expected what `wandb agent` leaves there. Run the agent.")
    facts = {name: entry for name, entry in read_mapping(files[-1]).items() if name != "wandb_version"}
    names = list(dict.fromkeys((parameter.path or (parameter.name,))[0] for parameter in sweep.parameters))
    if set(facts) != set(names):
        other = sorted(set(facts) ^ set(names))
        raise UserError(
            f"{files[-1]} and {sweep.path} differ in {', '.join(other)}; expected the file that `wandb sweep` was "
            "given. Submit that one."
        )
    values: dict[str, Json] = {name: facts[name]["value"] for name in names}
    return Trial(
        files[-1].stem.removeprefix("config-"), fill_in(*sweep.command_of(values), str(files[-1].with_suffix(".json")))
    )


def resume_trial(sweep: Sweep, folder: Path, wandb: str) -> NoReturn:
    """Resume the trial that this task's agent received.

    Args:
        sweep: as it was handed to W&B.
        folder: where the agent ran.
        wandb: the sweep on the server, as ENTITY/PROJECT/SWEEP_ID.

    Raises:
        UserError: it was handed none.
    """
    target = parse_target(wandb)
    trial = received_trial(folder, target, sweep)
    # the run is in its sweep already; with WANDB_SWEEP_ID wandb would ask the server for a place there again
    variables = {
        "WANDB_ENTITY": target.entity,
        "WANDB_PROJECT": target.project,
        "WANDB_RUN_ID": trial.run,
        "WANDB_RESUME": "allow",
        "TANDEM_TRIAL": target.sweep,
    }
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # as the agent leaves it out
    try:
        os.execvpe(trial.argv[0], trial.argv, environment | variables)
    except OSError as error:
        raise UserError(
            f"{trial.argv[0]} cannot be started ({error.strerror}); expected a command. Correct the sweep's."
        ) from None
