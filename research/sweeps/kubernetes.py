"""A sweep as a Kubernetes Indexed Job: one point a completion index. Rendered, never applied."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml

from research.errors import DIVERGED, PREEMPTED, WRONG_INPUT, UserError
from research.runs.files import atomic_write
from research.runs.ledger import ATTEMPTS
from research.sweeps import directives
from research.sweeps.secrets import refuse_assignments, refuse_secret
from research.sweeps.submission import Submission, ranges
from research.types import Json

TEMPLATE = Path(__file__).with_name("templates") / "kubernetes.yaml"
NAME = 52  # characters of a Job's name: a pod's host is the name and its index, and has 63 at most
QUANTITIES = {"": "Mi", "K": "Ki", "M": "Mi", "G": "Gi", "T": "Ti"}
"""SLURM's units of memory → the same in Kubernetes, whose own M and G are decimal."""


class Claim(NamedTuple):
    """A PersistentVolumeClaim that every pod mounts.

    Attributes:
        name: of the claim.
        within: folder of the claim that is mounted; "" for all of it.
        path: where pods see it.
    """

    name: str
    within: str
    path: str


class Options(NamedTuple):
    """What the user says of Kubernetes alone; tasks, processors, memory and set-up are in directives.Options.

    Attributes:
        image: with this package and its dependencies.
        claim: NAME:/path of the PersistentVolumeClaim that holds the folder that the command is typed in; see `parse_claim`.
        namespace: of the Job; None leaves it to kubectl.
        env: NAME=VALUE.
        secret: names of Secrets whose keys become variables.
        max_failed: points that may fail before the others are given up; None lets all of them run.
    """

    image: str | None = None
    claim: str | None = None
    namespace: str | None = None
    env: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    max_failed: int | None = None


def parse_claim(text: str) -> Claim:
    """Parse NAME:/path or NAME/folder:/path.

    Raises:
        UserError: it is not that.
    """
    match = re.fullmatch(r"([a-z0-9][a-z0-9.-]*)(?:/([^:]*[^:/]))?:(/[^:]+)", text)
    if not match or ".." in (match[2] or "").split("/"):
        raise UserError(
            f"--claim {text!r}; expected NAME:/path, or NAME/folder:/path for a folder of the claim; a name has small "
            "letters, digits and -. Correct it."
        )
    return Claim(match[1], match[2] or "", match[3])


def job(name: str, copies: Submission, indices: Iterable[int], asked: directives.Options, options: Options) -> dict[str, Json]:
    """Make the Job that runs the points with these numbers; the n-th completion index is the n-th of them.

    Args:
        name: of the Job.
        copies: what the pods read, relative to the folder that the command is typed in, which the claim holds.
        indices: numbers of points in the plan.
        asked: of a pod: throttle, cpus, gpus, setup, warning, and mem as SLURM writes it (16G), or Kubernetes (16Gi).
        options: of the Job; with an image and a claim.

    Raises:
        UserError: an option that Kubernetes would not take.
    """
    refuse_assignments("--setup", asked.setup)
    chosen = sorted(indices)
    options_of_worker = {"--folder": copies.folder, "--plan": copies.plan, "--seed": copies.seed, "--of": ranges(chosen)}
    command = ["python", "-m", "research", "sweep", "worker", str(copies.file)]
    command += [str(word) for option in options_of_worker.items() for word in option] + ["--index"]
    if asked.setup:  # exec: the signal before the end must reach Python
        command = ["/bin/bash", "-c", "\n".join(["set -e", *asked.setup, 'exec "$@"']), "bash", *command]
    # $(NAME) is Kubernetes' own, also in a folder's name; $$( is the text $(
    command = [*(word.replace("$(", "$$(") for word in command), "$(JOB_COMPLETION_INDEX)"]
    volume = parse_claim(options.claim)
    values = {
        "name": name,
        "label": name.rpartition("-")[0],
        "namespace": options.namespace or None,
        "completions": len(chosen),
        "parallelism": min(asked.throttle or len(chosen), len(chosen)),
        "retries": ATTEMPTS - 1,
        "max_failed": None if options.max_failed is None else min(options.max_failed, len(chosen)),
        "preempted": [PREEMPTED],
        "final": [WRONG_INPUT, DIVERGED],  # the same command would end so again
        "warning": asked.warning,
        "image": options.image,
        "command": command,
        "claim": volume.name,
        "path": volume.path,
        "within": volume.within or None,
        "env": _variables(asked, options),
        "secrets": [{"secretRef": {"name": secret}} for secret in options.secret] or None,
        "resources": _resources(asked),
    }
    return _filled(yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")), values)


def _filled(node: Json, values: dict[str, Json]) -> Json:
    """Fill the template with its values; a key whose value is None is left out."""
    if isinstance(node, dict):
        return {key: value for key, inner in node.items() if (value := _filled(inner, values)) is not None}
    if isinstance(node, list):
        return [_filled(inner, values) for inner in node]
    return values[node[2:-1]] if isinstance(node, str) and node.startswith("${") else node


def text_of(job: dict[str, Json]) -> str:
    """Write a job as the YAML that `kubectl apply` takes."""
    return yaml.safe_dump(job, sort_keys=False, width=1000)


def write(folder: Path, job: dict[str, Json]) -> Path:
    """Write the job's file beside the sweep's other submissions."""
    path = folder / "submit" / f"{job['metadata']['name']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(text_of(job))
    return path


def name_of(sweep: str, folder: Path) -> str:
    """Name the sweep's next Job: a Job of the same name could not be changed."""
    n = 1
    while (folder / "submit" / f"{(name := _named(sweep, n))}.yaml").exists():
        n += 1
    return name


def _named(sweep: str, n: int) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-") or "sweep"
    label = label if label[0].isalpha() else f"s-{label}"
    return f"{label[: NAME - len(str(n)) - 1].rstrip('-')}-{n}"


def _variables(asked: directives.Options, options: Options) -> list[dict[str, str]]:
    variables = []
    for text in options.env:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise UserError(f"--env {text!r}; expected NAME=VALUE. Correct it; a key belongs in a Secret (--secret NAME).")
        refuse_secret(f"--env {name}", name, value)
        variables.append({"name": name, "value": value})
    ours = {"PYTHONUNBUFFERED": "1"}
    if asked.cpus and not asked.gpus:
        ours["OMP_NUM_THREADS"] = str(asked.cpus)  # torch would count the node's processors
    names = {variable["name"] for variable in variables}
    return [{"name": name, "value": value} for name, value in ours.items() if name not in names] + variables


def _resources(asked: directives.Options) -> dict[str, dict[str, str]]:
    resources = {}
    if asked.cpus:
        resources["cpu"] = str(asked.cpus)
    if asked.mem:
        match = re.fullmatch(r"([1-9]\d*)([KMGT]?)(i?)", asked.mem)
        if not match or (match[3] and not match[2]):
            raise UserError(f"--mem {asked.mem!r}; expected a number with K, M, G or T, such as 16G. Correct it.")
        resources["memory"] = match[1] + QUANTITIES[match[2]]
    if asked.gpus:
        resources["nvidia.com/gpu"] = str(asked.gpus)
    return {"requests": resources, "limits": dict(resources)} if resources else {}
