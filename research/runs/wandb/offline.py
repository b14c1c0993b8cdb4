"""W&B's logs on the disk → one run an id, which may have gone on in several logs."""

from collections.abc import Sequence
from pathlib import Path

from research.errors import UserError
from research.progress import say
from research.runs.wandb.log import Log, curve, find_logs, read_log
from research.runs.wandb.source import WandbRun
from research.types import Json

PREEMPTED, SIGNALLED = 85, 128  # our exit code; a shell's, of a process that signal N ended, is 128 + N


def read_logs(paths: Sequence[Path]) -> list[WandbRun]:
    """Read logs; those of one id are one run that went on: the later says what became of it.

    Raises:
        UserError: no log, or none that can be read; a log that is named itself and cannot be read.
    """
    files = list(dict.fromkeys(file.resolve() for path in paths for file in find_logs(path)))
    if not files:
        raise UserError(
            f"{', '.join(map(str, paths[:3]))} holds no log of W&B (run-ID.wandb); expected one in each folder "
            "of a run. Copy the whole wandb folder, or check the path."
        )
    named = {path.resolve() for path in paths}
    runs: dict[tuple[str, str], list[Log]] = {}
    broken: list[tuple[Path, str]] = []
    for file in files:
        try:
            log = read_log(file)
            runs.setdefault((log.project, log.id), []).append(log)
        except UserError as error:
            if file in named:
                raise
            broken.append((file, str(error)))
    if not runs:
        raise UserError(f"none of {len(files)} logs can be read: {broken[0][1]}")
    begun = sorted(([*sorted(logs, key=lambda log: log.started)] for logs in runs.values()), key=_begun)
    all_runs = [_logged(logs) for logs in begun]
    all_runs += [_broken(file, why) for file, why in broken]
    return all_runs


def _begun(logs: list[Log]) -> tuple[float, str]:
    return logs[0].started, logs[0].id


def _logged(logs: list[Log]) -> WandbRun:
    last = logs[-1]
    config: dict[str, Json] = {}
    summary: dict[str, Json] = {}
    for log in logs:
        config |= log.config
        summary |= log.summary
        if "damaged" in log.damage and log is not last:
            say(f"warning: {log.path}: {log.damage}; the run went on, its curve has a gap")
    state, error = _ended(last)
    commits = list(dict.fromkeys(log.commit for log in logs if log.commit))
    if len(commits) > 1 and "made_of" not in config:  # a training of ours says itself what it is made of
        say(
            f"warning: run {last.id} was begun by code {commits[0][:12]} and went on with {commits[-1][:12]}: it is averaged "
            "with runs of neither"
        )
    return WandbRun(
        last.id,
        last.name,
        last.path,
        last.sweep or last.group,
        state,
        error,
        " ".join(commits),
        last.host,
        config,
        summary,
        lambda metric: curve(logs, metric),
    )


def _ended(log: Log) -> tuple[str, str]:
    """Return the state of a run by the end of its last log."""
    code = log.exit_code
    if code == 0:
        return "done", ""
    if code is None:
        return "half-written", log.damage or "its log has no end: it is running, or was killed"
    state = "preempted" if code == PREEMPTED or log.preempting else "killed" if code > SIGNALLED else "failed"
    return state, f"exit code {code}"


def _broken(file: Path, why: str) -> WandbRun:
    return WandbRun(file.stem.removeprefix("run-"), "", file, "", "half-written", why, "", "", {}, {}, lambda metric: [])
