"""What a run folder says: every room reads provenance, configuration and metrics of a run here.

Folders of all versions are read: what an earlier one did not write is absent. A value of another type than ours is refused with
its place and its cure. All files and all checks stand in this one file, so that there is no second reader to differ from it.
"""

import functools
import shlex
from pathlib import Path

import yaml

from research.errors import UserError
from research.runs.curves import CURE as COPY
from research.runs.curves import shortened
from research.runs.layout import CHECKPOINTS, CONFIG, EXAMPLES, METRICS, PROVENANCE, SCHEMA, SWEEP, TEST, WANDB
from research.runs.printable import is_deep
from research.runs.reading import read_json
from research.types import Json

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is there: a thousand configurations in 2 s, not 18
NESTED = 5_000  # places that may open a level: libyaml ends the process at some 30,000 levels, and SafeLoader raises
CURE = "Make the run again, or leave it out"
LARGEST = 10**300  # no float is larger
COUNTS = ("seconds", "steps", "temperature")
STAGE_KEYS = ("source", "split", "data", "queries", "documents", "stages")


class RunFolder:
    """One run folder; each of its files is read when it is first asked for, and once.

    Args:
        path: of the folder, which need not be there yet.
        name: as a report calls the run; None: the folder's own name.
    """

    def __init__(self, path: Path, name: str | None = None):
        self.path, self.name = path, path.name if name is None else name

    @property
    def is_begun(self) -> bool:
        """Return whether a command has begun to write here."""
        return (self.path / PROVENANCE).is_file()

    @property
    def is_training(self) -> bool:
        """Return whether `research fit` wrote it, the only verb whose provenance says what the run is made of."""
        if not self.is_begun:
            return False
        facts = read_json(self.path / PROVENANCE)
        return isinstance(facts, dict) and "made_of" in facts and "verb" not in facts

    @functools.cached_property
    def provenance(self) -> dict[str, Json]:
        """Read provenance.json; {} of a run that was never begun.

        Raises:
            UserError: damaged, or what a page lists of it has another form than it is listed in.
        """
        if not self.is_begun:
            return {}
        path = self.path / PROVENANCE
        facts = _object(path, read_json(path))
        schema = facts.get("schema", 0)  # folders that were written before it was noted
        if not isinstance(schema, int) or schema > SCHEMA:
            raise UserError(
                f"{path}: schema is {shortened(schema)}; expected up to {SCHEMA}. Read it with the version that wrote it."
            )
        _mapping(path, "packages", facts.get("packages"), "names with values")
        command = facts.get("command")
        if command is not None and not (isinstance(command, list) and all(isinstance(word, str) for word in command)):
            raise _wrong(path, "command", command, "a list of words")
        earlier = facts.get("earlier_fingerprints")
        if not isinstance(earlier, list | None):
            raise _wrong(path, "earlier_fingerprints", earlier, "a list")
        fingerprints = [facts.get("fingerprint"), *(earlier or [])]
        if not all(isinstance(digest, str | None) for digest in fingerprints):
            raise _wrong(path, "fingerprint", fingerprints, "hashes of code")
        return facts

    def command(self, otherwise: str) -> str:
        """Return the command that made the run, as it is typed; `otherwise` where it does not say it."""
        return shlex.join(self.provenance.get("command") or ["research", otherwise, "…"])

    @functools.cached_property
    def config(self) -> dict[str, Json]:
        """Read config.yaml of a training.

        Raises:
            UserError: missing or damaged.
        """
        path = self.path / CONFIG
        expected = "expected the configuration that `research fit` wrote"
        try:
            text = path.read_text(encoding="utf-8")
            is_safe = sum(map(text.count, ("[", "{", "- ", "? "))) < NESTED
            config = yaml.load(text, Loader=LOADER if is_safe else yaml.SafeLoader)
        except FileNotFoundError:
            raise UserError(f"training {self.path} has no {CONFIG}; expected what `research fit` wrote. {COPY}.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not readable YAML ({str(error).splitlines()[0]}); {expected}. {COPY}.") from None
        except RecursionError:
            config = None
        if is_deep(config):
            raise UserError(f"{path} is nested too deeply; {expected}. {COPY}.")
        if not isinstance(config, dict):
            raise UserError(f"{path} holds {shortened(config)}; {expected}. {COPY}.")
        return config

    @property
    def settings(self) -> dict[str, Json]:
        """Read config.yaml of whatever wrote it; {} where there is none that can be read."""
        try:
            return self.config
        except UserError:
            return {}

    @property
    def has_config(self) -> bool:
        """Return whether there is a config.yaml."""
        return (self.path / CONFIG).is_file()

    @functools.cached_property
    def metrics(self) -> dict[str, Json]:
        """Read metrics.json: of a training those of its best validation; {} where there is none yet.

        Raises:
            UserError: damaged, or a metric, value of an example or count is no number.
        """
        return {} if self._metrics is None else _checked(self.path / METRICS, self._metrics)

    @functools.cached_property
    def _metrics(self) -> Json:
        """Read what metrics.json holds, unchecked; None where there is none."""
        path = self.path / METRICS
        return read_json(path) if path.exists() else None

    @property
    def result(self) -> dict[str, Json]:
        """Read metrics.json, its values unchecked; {} where there is none that can be read."""
        try:
            return self._metrics if isinstance(self._metrics, dict) else {}
        except (UserError, OSError):
            return {}

    @functools.cached_property
    def test(self) -> dict[str, Json]:
        """Read test.json, which `research test` writes; {} where there is none.

        Raises:
            UserError: as `metrics`.
        """
        path = self.path / TEST
        return _checked(path, read_json(path)) if path.exists() else {}

    @functools.cached_property
    def examples(self) -> dict[str, Json]:
        """Read examples.json: texts of some queries of a retrieval; {} where there are none."""
        path = self.path / EXAMPLES
        return read_json(path) if path.exists() else {}

    @functools.cached_property
    def wandb(self) -> dict[str, Json]:
        """Read wandb.json of a training: the id of its W&B run, later the names of the summary; {} where there is none.

        Raises:
            UserError: damaged.
        """
        path = self.path / WANDB
        if not path.exists():
            return {}
        facts = read_json(path)
        if not isinstance(facts, dict) or not isinstance(facts.get("id"), str):
            raise UserError(
                f"{path} is not one this tool wrote; expected an object with the id of the W&B run. Delete it, and "
                "a new W&B run begins."
            )
        return facts

    @functools.cached_property
    def checkpoints(self) -> list[dict[str, Json]]:
        """Read checkpoints.json of an unfinished training: file, step and sha256 of each; [] where there are none.

        Raises:
            UserError: damaged.
        """
        path = self.path / CHECKPOINTS
        listed = read_json(path) if path.exists() else []
        if not isinstance(listed, list) or not all(
            isinstance(entry, dict) and {"file", "step", "sha256"} <= {*entry} for entry in listed
        ):
            raise UserError(
                f"{path} is not one this tool wrote; expected a list of checkpoints, each with file, step "
                "and sha256. Name a new --out, or delete this folder to train anew."
            )
        return listed

    def check_fit(self) -> None:
        """Refuse a metrics.json that is no training's; none at all is one that was not validated yet.

        Raises:
            UserError: another kind, or no step or metrics.
        """
        path, metrics = self.path / METRICS, self._metrics
        if metrics is None and not path.exists():
            return
        kind = metrics.get("kind") if isinstance(metrics, dict) else metrics
        if kind != "fit" or not isinstance(metrics.get("metrics"), dict) or not isinstance(metrics.get("step"), int):
            raise UserError(
                f'{path} has kind {shortened(kind)}; expected "fit" with the best step and its metrics, as '
                f"`research fit` writes it. {COPY}."
            )

    def check_stages(self) -> None:
        """Refuse a metrics.json that is not of a run that was evaluated stage by stage, each query with its value.

        Raises:
            UserError: not finished, or damaged.
        """
        path, metrics = self.path / METRICS, self._metrics
        if metrics is None and not path.exists():
            raise UserError(f"run {self.path} is half-written: it has no {METRICS}. Finish it: {self.command('retrieve')}")
        if isinstance(metrics, dict) and metrics.get("kind") == "generate":
            raise UserError(
                f"{self.path} is a run of `research generate`, which a report does not show; expected one of retrieve, "
                "evaluate or fit. Its answers are in answers.jsonl and its metrics in metrics.json; leave it out."
            )
        missing = [key for key in STAGE_KEYS if not metrics.get(key)] if isinstance(metrics, dict) else STAGE_KEYS
        if missing or not isinstance(metrics["stages"], dict):
            raise UserError(
                f"{path} has no {', '.join(missing or ['stages'])}; expected the file of a finished `research "
                f"retrieve`. {CURE}."
            )
        for name, stage in metrics["stages"].items():
            parts = [stage.get(key) if isinstance(stage, dict) else None for key in ("metrics", "per_query", "facts")]
            if not all(isinstance(part, dict) for part in parts) or not all(parts[1].get(metric) for metric in parts[0]):
                raise UserError(
                    f"{path} has no per-query values for every metric of stage {name!r}, which the tests need. "
                    "Make the run again."
                )
        # `retrieve` writes the provenance again at its end, with `seconds`: without it metrics.json is an earlier command's
        unfinished = self.provenance.get("verb") == "retrieve" and "seconds" not in self.provenance
        if unfinished or self.provenance.get("data") != metrics["data"]:
            raise UserError(
                f"run {self.path} is half-written: the command in its {PROVENANCE} did not finish, so {METRICS} is "
                f"an earlier one's. Finish it: {self.command('retrieve')}"
            )


def sweep_owner(folder: Path) -> dict[str, Json]:
    """Read whose a sweep's folder is (sweep.json); {} where it notes nothing that can be read."""
    try:
        owner = read_json(folder / SWEEP)
    except (UserError, OSError):
        return {}
    return owner if isinstance(owner, dict) else {}


# ---- what the files may hold ----------------------------------------------------------------------------------------


def _object(path: Path, value: object) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise UserError(f"{path} is not one this tool wrote; expected an object. {CURE}.")
    return value


def _checked(path: Path, value: object) -> dict[str, Json]:
    """Return metrics.json or test.json, if each metric, value of an example and count is a number or null."""
    result = _object(path, value)
    _numbers(path, "metrics", result.get("metrics"))
    for name, values in _mapping(path, "per_query", result.get("per_query")).items():
        _numbers(path, f"per_query.{name}", values)
    _numbers(path, "trained", result.get("trained"))
    for name in COUNTS:
        _number(path, name, result.get(name))
    for example, answer in _mapping(path, "answers", result.get("answers"), "examples with answers").items():
        prompt = answer.get("prompt") if isinstance(answer, dict) else None
        if not isinstance(answer, dict) or (isinstance(prompt, list) and not all(isinstance(turn, dict) for turn in prompt)):
            raise _wrong(path, f"answers.{example}", answer, "a prompt, a reference and an answer")
    monitor = result.get("monitor")
    if not isinstance(monitor, str | None):
        raise _wrong(path, "monitor", monitor, "a metric, such as val/loss")
    for name, side in _mapping(path, "directions", result.get("directions"), "metrics with lower or higher").items():
        if side not in ("lower", "higher"):
            raise _wrong(path, f"directions.{name}", side, "lower or higher")
    return result


def _mapping(path: Path, where: str, value: object, expected: str = "names with numbers") -> dict[str, Json]:
    if value is not None and not isinstance(value, dict):
        raise _wrong(path, where, value, expected)
    return value or {}


def _numbers(path: Path, where: str, value: object) -> None:
    for name, number in _mapping(path, where, value).items():
        _number(path, f"{where}.{name}", number)


def _number(path: Path, where: str, value: object) -> None:
    huge = isinstance(value, int) and abs(value) > LARGEST
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or huge):
        raise _wrong(path, where, value, "a number")


def _wrong(path: Path, where: str, value: object, expected: str) -> UserError:
    return UserError(f"{path}: {where} is {shortened(value)}; expected {expected}. {CURE}.")
