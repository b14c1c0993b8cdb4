"""Training from Python: does what `research fit` does, takes a mapping of options, and returns the metrics."""

import argparse
import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from research.errors import DIVERGED, PREEMPTED
from research.training import arguments, run


def fit(
    config: str | Path | Sequence[str | Path], overrides: Mapping[str, object] | None = None, out: str | Path | None = None
) -> dict[str, object]:
    """Train a configuration, or resume it where it stopped, like `research fit -c CONFIG --NAME VALUE`.

    Args:
        config: a YAML file, or several, each an overlay on those before.
        overrides: option → value, over the files: {"model.temperature": 0.02, "trainer.max_epochs": 1}.
        out: the run folder; None takes the configuration's own.

    Returns:
        {"metrics": {metric: value of the best model}, "out": run folder}; `load_encoder`, `load_reranker` and `load_lm` take
        the run folder as a model.

    Raises:
        UserError: a wrong file, option or value, a folder that is not this run's, or data or model that cannot be read.
        FloatingPointError: the training diverged.
        RuntimeError: it was stopped and has saved its state (call it again to go on), or has computed another thing than asked.

    Example:
        >>> from research import fit
        >>> result = fit("my-config.yaml", {"trainer.max_epochs": 1}, out="my-run")
        >>> sorted(result)
        ['metrics', 'out']
    """
    files = [config] if isinstance(config, str | Path) else config
    argv = [part for file in files for part in ("-c", str(file))]
    argv += ["--out", str(out)] if out is not None else []
    argv += [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in (overrides or {}).items()]
    args = arguments.parse(argparse.ArgumentParser(prog="research fit"), [*argv, "--json"])
    assert args is not None
    args.command = ["research", "fit", *argv]
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = run.fit(args)
    if code == DIVERGED:
        raise FloatingPointError("the training diverged; stderr says where, and what helps")
    if code:
        stopped = "it was stopped, and has saved its state: call it again to go on"
        raise RuntimeError(stopped if code == PREEMPTED else f"it ended with exit code {code}; stderr says why")
    return json.loads(stdout.getvalue().splitlines()[-1])
