"""W&B for verbs that do not train: online where a key is found, else offline, never a prompt, never the end of a run.

Everything a report needs is in the run folder as well; W&B is a second place to look at it.
"""

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

from research.progress import say
from research.runs.wandb_service import forget_service, leave_in_time, start_service
from research.types import Json

UPLOAD = 30.0  # seconds for what W&B has not uploaded at the end; WANDB_FINISH_TIMEOUT says otherwise


def wandb_mode(choice: str = "auto") -> str:
    """Return online | offline | disabled.

    Args:
        choice: what the user asked for; "auto" follows WANDB_MODE, else takes online only where a key is found.
    """
    if choice != "auto":
        return choice
    if os.environ.get("WANDB_MODE") in ("online", "offline", "disabled"):
        return os.environ["WANDB_MODE"]
    return "online" if has_key() else "offline"


class Tracker:
    """One W&B run in the run folder. Any failure of W&B becomes one warning, and the work goes on.

    Args:
        choice: auto | online | offline | disabled.
        folder: the run folder; W&B's files go into its wandb/.
        job: job type, by which runs are grouped.
        config: what the run was asked to do.
        id: of the W&B run that goes on; None begins a new one.
        group: of runs that belong together, as a sweep's.
    """

    def __init__(self, choice: str, folder: Path, job: str, config: dict, id: str | None = None, group: str | None = None):
        self.run = None
        mode = wandb_mode(choice)
        if mode == "disabled":
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            import wandb  # here: a second, none where it is disabled, and a broken installation is one warning

            # W&B's own limit is none: until there is a network again
            limit = os.environ.get("WANDB_FINISH_TIMEOUT") or UPLOAD
            settings = wandb.Settings(
                console="off", init_timeout=30, x_disable_stats=True, finish_timeout=limit, finish_timeout_raises=True
            )
            start_service(wandb)
            # an absolute path: wandb's service may be an older process with another working folder
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "tandem"),
                dir=folder.resolve(),
                job_type=job,
                config=config,
                mode=mode,
                settings=settings,
                name=folder.name,
                id=id,
                group=group,
                resume=None if id is None else "allow",
            )
            say(f"W&B: {mode}" + ("" if mode == "online" else f", files in {folder / 'wandb'} (wandb sync uploads them)"))
        except Exception as error:  # wandb raises its own, requests' and OS errors
            self._lost(error)
        finally:
            leave_in_time()

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Log values to W&B; a failure is a warning."""
        self._try(lambda: self.run.log(values, step=step))

    def summary(self, values: dict[str, Json]) -> None:
        """Give W&B what its table shows of the run, whatever was logged last."""
        self._try(lambda: self.run.log({}, commit=True))  # the last step is else written after it, and over it
        self._try(lambda: self.run.summary.update(values))

    def finish(self, code: int = 0) -> None:
        """End the W&B run: finished where the code is 0, else failed, until a process goes on with it.

        A sweep's search takes a finished run's numbers for its result; those of a training that was stopped are none.
        """
        self._try(lambda: self._upload(code))
        self.run = None

    def _upload(self, code: int) -> None:
        try:
            self.run.finish(exit_code=code)
        except TimeoutError:
            settings = self.run.settings
            say(
                f"warning: W&B has not taken all of this run's numbers in {settings.finish_timeout:g} s; they are in the run "
                f"folder, and `wandb sync {settings.sync_dir}` uploads them"
            )

    def _try(self, action) -> None:
        if self.run is not None:
            try:
                action()
            except Exception as error:
                self._lost(error)

    def _lost(self, error: Exception) -> None:
        self.run = None
        if isinstance(error, ConnectionError):
            forget_service()
        say(f"warning: W&B failed ({type(error).__name__}: {error}); the run goes on, its numbers are in the run folder")


def has_key() -> bool:
    """Return whether W&B's key is in the environment or where `wandb login` leaves it; nothing is asked."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        keys = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(keys.authenticators(host) is not None for host in _hosts())


def _hosts() -> list[str]:
    """List names under which `wandb login` may have left the key: the address of W&B's cloud has changed between versions."""
    if base := os.environ.get("WANDB_BASE_URL"):
        return [urlparse(base).hostname or ""]
    import wandb  # here, as in Tracker

    return [urlparse(wandb.Settings().base_url).hostname or "", "api.wandb.ai"]
