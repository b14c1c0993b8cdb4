"""W&B sweeps: compiled from sources, checked point by point, run here, each point once.

  research sweep compile sweeps/src/lora_r_alpha.yaml       # ties and conditions → sweeps/lora_r_alpha.yaml, a plain W&B sweep
  research sweep plan sweeps/lora_r_alpha.yaml              # every point through the parser and the adapters' guard
  research sweep run sweeps/lora_r_alpha.yaml --workers 2   # what is missing, failed or was stopped, and nothing twice
  research sweep status sweeps/lora_r_alpha.yaml

The same file serves W&B: `wandb sweep sweeps/lora_r_alpha.yaml`, then `wandb agent`.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import bar, say

STEPS = ("compile", "plan", "run", "submit", "status", "worker", "finish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("step", choices=STEPS, metavar="STEP", help="compile | plan | run | submit | status")
    parser.add_argument("file", type=Path, metavar="FILE", help="a sweep's YAML")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="compile: where the plain sweeps go (sweeps/ beside src/)"
    )
    parser.add_argument(
        "--check", action="store_true", help="compile: say what differs from the files there, and write nothing"
    )
    parser.add_argument("--workers", type=int, default=1, help="run: processes at a time (1)")
    parser.add_argument("--gpus", default="", metavar="IDS", help="run: GPUs to share out among them, as 0,1")
    parser.add_argument("--threads", type=int, help="run: threads of each worker on a CPU (the processors, shared out)")
    parser.add_argument("--seed", type=int, default=0, help="of a random sweep's draws (0)")
    parser.add_argument("--rerun-stale", action="store_true", help="run: points that were done by other code, again")
    parser.add_argument("--retry", action="store_true", help="run: points that have failed three times, again")
    cluster = parser.add_argument_group("submit, to SLURM")
    cluster.add_argument("--dry-run", action="store_true", help="print the scripts, and submit nothing")
    cluster.add_argument("--throttle", type=int, default=0, help="tasks at a time (as many as there is room for)")
    cluster.add_argument("--time", help="limit of a point, as SLURM writes it: 2:00:00")
    cluster.add_argument("--partition")
    cluster.add_argument("--account")
    cluster.add_argument("--cpus", type=int, help="of a task")
    cluster.add_argument("--gpus-per-node", type=int, dest="slurm_gpus", help="of a point, on each of its nodes")
    cluster.add_argument("--mem", help="of a point, on each of its nodes: 16G")
    cluster.add_argument("--nodes", type=int, default=1, help="of a point that DDP trains (1)")
    cluster.add_argument("--tasks-per-node", type=int, default=1, help="processes of DDP on a node (1)")
    cluster.add_argument(
        "--warning", type=int, default=120, help="seconds before the limit at which a point saves (120)"
    )
    cluster.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="a further #SBATCH line, such as --qos=x"
    )
    cluster.add_argument("--setup", action="append", default=[], metavar="LINE", help="a shell line before the command")
    for name in ("--index", "--round", "--folder", "--options"):  # of the scripts that submit writes
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def run(args: argparse.Namespace) -> int:
    steps = {"compile": _compile, "plan": _plan, "run": _run, "submit": _submit, "status": _status, "worker": _worker,
             "finish": _finish}  # fmt: skip
    return steps[args.step](args)


# ---- compile --------------------------------------------------------------------------------------------------------


def _compile(args: argparse.Namespace) -> int:
    from research.runfolder import atomic_write
    from research.sweeps.compile import compile_source, text_of
    from research.sweeps.spec import read_sweep

    out = args.out or args.file.parent.parent
    made: list[str] = []
    differs: list[str] = []
    for size, sweep in compile_source(args.file).items():
        path = (out / size if size else out) / f"{args.file.stem}.yaml"
        text = text_of(Path(*args.file.parts[-3:]), sweep)
        if args.check:
            differs += [str(path)] if not path.exists() or path.read_text(encoding="utf-8") != text else []
            continue
        with atomic_write(path) as stream:
            stream.write(text)
        made.append(str(path))
        read_sweep(path)
    if differs:
        say(f"{', '.join(differs)}: not what {args.file} makes; run `research sweep compile {args.file}`")
        return 1
    for path in made:
        count = read_sweep(Path(path)).size
        print(f"{path}  {'no end' if count is None else f'{count} points'}")
    return 0


# ---- plan -----------------------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> int:
    from research.sweeps.plan import equivalents, is_exhaustive, plan, shown, write_plan
    from research.sweeps.spec import read_sweep

    sweep = read_sweep(args.file)
    points, problems = plan(sweep, describe, args.seed, _watched)
    if problems:
        for problem in problems[:10]:
            say(f"{shown(problem.values)}: {problem.reason}")
        first = problems[0]
        raise UserError(f"{args.file}: {len(problems)} of {len(points) + len(problems)} points cannot be run, the first "
                        f"{shown(first.values)}: {first.reason}")  # fmt: skip
    for a, b in equivalents(points):
        say(f"warning: {shown(b.values)} computes what {shown(a.values)} computes, spelled otherwise")
    folder = _folder(sweep)
    if is_exhaustive(sweep):
        write_plan(folder, points, _key(args, sweep))
    if args.json:
        rows = [{"point": one.point, "values": one.values, **one.facts} for one in points]
        print(json.dumps({"sweep": sweep.name, "method": sweep.method, "points": rows, "out": str(folder)}))
        return 0
    for one in points:
        print(f"{one.point}  {shown(one.values)}" + "".join(f"  {text}" for text in _facts(one.facts)))
    what = f"{len(points)} points" if is_exhaustive(sweep) else f"{len(points)} samples of an endless sweep"
    print(f"\n{what}, all can be run" + (f"; {folder / 'plan.jsonl'}" if is_exhaustive(sweep) else ""))
    return 0


def _facts(facts: dict[str, Any]) -> list[str]:
    if "trained_parameters" not in facts:
        return []
    out = [f"{facts['trained_parameters']:,} parameters"]
    if facts.get("adapter_bytes"):
        out.append(f"adapter {facts['adapter_bytes'] / 2**20:.2f} MiB")
    return [*out, f"≥ {facts['memory'] / 2**30:.2f} GiB"]


def _watched(points: Iterable) -> Iterable:
    points = list(points)
    with bar(len(points), "plan", "point") as progress:
        for point in points:
            yield point
            progress.update(1)


def _folder(sweep: Any) -> Path:
    """Where a sweep's points lie: what --out of its command says before {point}; else runs/sweeps/NAME."""
    from research.sweeps.plan import PLACE

    words = list(sweep.command)
    for flag, value in itertools.pairwise(words):
        if flag == "--out" and PLACE in value:
            return Path(value.partition(PLACE)[0])
    return Path("runs/sweeps") / sweep.name


def describe(argv: list[str]) -> dict[str, Any]:
    """What a command would compute, without computing it: its models are built without weights.

    Raises:
        UserError: the command would end in one.
    """
    from research.runfolder import hash_json
    from research.sweeps.spec import ours
    from research.verbs.identity import LENGTH

    words = ours(argv)
    if words is None or words[:1] != ["fit"]:
        return {"point": hash_json(argv)[:LENGTH]}  # somebody else's program: the command is all that is known
    from research import cli
    from research.models.folder import without_weights
    from research.verbs import configuration
    from research.verbs.identity import point_of

    args = cli._parse(words)
    with configuration.own_names():
        config, resolved = configuration.read(args)
        with without_weights():
            module, data = configuration.build(config)
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained = sum(n for n, wanted in sizes if wanted)
    frozen = sum(n for n, wanted in sizes if not wanted)
    narrow = (
        config.trainer.precision == "bf16-mixed" and frozen and hasattr(module, "language") and module.model.adapted
    )
    facts = (
        module.language.describe()
        if hasattr(module, "language")
        else {"trained_parameters": trained, "adapter_bytes": 0}
    )
    inputs = data.describe()
    return {
        "point": point_of(resolved, module.base_hash, inputs),
        "computes": hash_json([_canonical(resolved), module.base_hash, inputs])[:LENGTH],
        "trained_parameters": trained, "adapter_bytes": facts["adapter_bytes"],
        # weights, gradients and two moments; activations come on top
        "memory": trained * 16 + frozen * (2 if narrow else 4), "base_hash": module.base_hash, "data": inputs,
    }  # fmt: skip


def _canonical(resolved: dict) -> dict:
    """The configuration with LoRA's alpha and rsLoRA as the one number that they make: the scale of the update."""
    from research.models.adapters import LORA, effective_scale
    from research.verbs.identity import _what

    values = _what(json.loads(json.dumps(resolved)))
    adapter = values["model"]["init_args"].get("adapter")
    if isinstance(adapter, dict) and adapter.get("class_path") == "peft.LoraConfig":
        inner = adapter["init_args"]
        inner["scale"] = effective_scale({**inner, "peft_type": LORA})
        inner.pop("lora_alpha"), inner.pop("use_rslora", None)
    return values


# ---- run ------------------------------------------------------------------------------------------------------------


def _planned(args: argparse.Namespace, sweep: Any) -> list:
    """The points, checked: from the plan where it is this sweep's, else planned now."""
    from research.sweeps.plan import is_exhaustive, is_planned, plan, read_plan, write_plan

    if not is_exhaustive(sweep):
        raise UserError(f"{args.file}: {sweep.method}{' without run_cap' if sweep.method == 'random' else ''} has no list of "
                        "points; "
                        "expected a grid, or method: random with run_cap. Change the method, or run it by `wandb "
                        "agent`.")  # fmt: skip
    folder, key = _folder(sweep), _key(args, sweep)
    if is_planned(folder, key):  # fit refuses a point whose data have changed since
        return read_plan(folder)
    points, problems = plan(sweep, describe, args.seed, _watched)
    if problems:
        raise UserError(f"{args.file}: {len(problems)} points cannot be run, the first: {problems[0].reason}")
    write_plan(folder, points, key)
    return points


def _key(args: argparse.Namespace, sweep: Any) -> str:
    """Hash of the sweep, the configurations that its command names, the seed and the code."""
    from research.runfolder import hash_json
    from research.verbs.identity import code_fingerprint

    files = [Path(word) for word in sweep.command if word.endswith((".yaml", ".yml")) and Path(word).is_file()]
    return hash_json([sweep.facts, args.seed, code_fingerprint(), [path.read_text(encoding="utf-8") for path in files]])


def _run(args: argparse.Namespace) -> int:
    from research.sweeps.executors import count, run_local
    from research.sweeps.ledger import Ledger
    from research.sweeps.spec import read_sweep

    if args.workers < 1:
        raise UserError(f"--workers {args.workers}; expected 1 or more. Correct it.")
    sweep = read_sweep(args.file)
    folder = _folder(sweep)
    points = _planned(args, sweep)
    ledger = Ledger(folder)
    for one in _again(args, ledger, points, folder):
        ledger.append(one.point, "missing", reason="run again")
    gpus = [gpu for gpu in args.gpus.split(",") if gpu]
    threads = args.threads or max(1, len(os.sched_getaffinity(0)) // args.workers)
    command = [sys.executable, "-m", "research", "sweep", "worker", str(args.file), "--seed", str(args.seed)]
    code = run_local(folder, points, command, args.workers, gpus, threads)
    if args.json:
        print(json.dumps({"out": str(folder), "states": count(ledger, points)}))
    return code


def _again(args: argparse.Namespace, ledger: Any, points: list, folder: Path) -> list:
    """Points that are run again because the user asks for it, or because what they made is gone."""
    standings = ledger.standings([one.point for one in points])
    stale = [one for one in points if is_stale(folder / one.point)]
    if stale and not args.rerun_stale:
        say(f"{len(stale)} points were done by other code; --rerun-stale runs them again")
    again = stale if args.rerun_stale else []
    gone = [
        one
        for one in points
        if standings[one.point].state == "done" and _fits(one) and not _is_done(folder / one.point)
    ]
    failed = [one for one in points if standings[one.point].state in ("failed", "killed")] if args.retry else []
    for one in again:
        _move_aside(folder / one.point)
    return [*again, *gone, *failed]


def _fits(one: Any) -> bool:
    from research.sweeps.spec import ours

    return (ours(one.argv) or [""])[0] == "fit"


def _is_done(run: Path) -> bool:
    try:
        return bool(json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError, AttributeError):
        return False


def is_stale(run: Path) -> bool:
    """Whether a finished run was made by other code than this."""
    from research.runfolder import MARKER
    from research.verbs.identity import code_fingerprint

    if not _is_done(run):
        return False
    try:
        return json.loads((run / MARKER).read_text(encoding="utf-8")).get("fingerprint") != code_fingerprint()
    except (OSError, ValueError):
        return True


def _move_aside(run: Path) -> None:
    """Keep what other code made, under another name."""
    n = 1
    while (aside := run.with_name(f"{run.name}.stale-{n}")).exists():
        n += 1
    run.rename(aside)


def _worker(args: argparse.Namespace) -> int:
    from research import cli
    from research.sweeps.ledger import Ledger
    from research.sweeps.plan import read_plan
    from research.sweeps.spec import read_sweep
    from research.sweeps.worker import work

    sweep = read_sweep(args.file)
    folder = Path(args.folder) if args.folder else _folder(sweep)
    points = read_plan(folder)
    if args.index is not None:
        points = [points[int(args.index)]]
        if int(os.environ.get("SLURM_PROCID", "0")):  # another rank of this point: the first one keeps the books
            from research.sweeps.plan import placed
            from research.sweeps.spec import ours

            own = ours(placed(points[0].argv, points[0].point))
            done = _is_done(folder / points[0].point)
            return 0 if done or own is None else cli.main(own)
    code = work(Ledger(folder), points, cli.main, sweep.name)
    if code or args.index is None:
        return code
    last = Ledger(folder).standings([points[0].point])[points[0].point]
    return int(last.last.get("code") or 1) if last.state == "failed" else 0


# ---- SLURM ----------------------------------------------------------------------------------------------------------


def _options(args: argparse.Namespace) -> Any:
    from research.sweeps.slurm import Options

    for name, least in {
        "throttle": 0,
        "nodes": 1,
        "tasks_per_node": 1,
        "warning": 1,
        "cpus": 1,
        "slurm_gpus": 0,
    }.items():
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}; expected {least} or more. Correct it.")
    return Options(args.throttle, args.time, args.partition, args.account, args.cpus, args.slurm_gpus, args.mem, args.nodes,
                   args.tasks_per_node, tuple(args.sbatch), tuple(args.setup), args.warning)  # fmt: skip


def _submit(args: argparse.Namespace) -> int:
    from research.sweeps.ledger import AGAIN, Ledger
    from research.sweeps.slurm import array_script, finish_script, submit
    from research.sweeps.spec import read_sweep

    sweep, options = read_sweep(args.file), _options(args)
    folder = _folder(sweep).resolve()
    points = _planned(args, sweep)
    ledger = Ledger(folder)
    for one in _again(args, ledger, points, folder):
        ledger.append(one.point, "missing", reason="run again")
    standings = ledger.standings([one.point for one in points])
    todo = [i for i, one in enumerate(points) if standings[one.point].state in AGAIN]
    if not todo:
        print(f"all {len(points)} points are done or running")
        return 0
    if args.dry_run:
        print(array_script(sweep.name, args.file, folder, todo, options))
        print(finish_script(sweep.name, args.file, folder, "ARRAY", 1, options))
        return 0
    array, after = submit(sweep.name, args.file, folder, todo, options)
    facts = {"array": array, "finish": after, "points": len(todo), "out": str(folder)}
    print(json.dumps(facts) if args.json else f"{len(todo)} points are array {array}; job {after} follows it; `research sweep "
          f"status {args.file}` shows where they stand")  # fmt: skip
    return 0


def _finish(args: argparse.Namespace) -> int:
    """After an array: again what is missing, a few times; then what there is."""
    from research.runfolder import write_json
    from research.sweeps.executors import count
    from research.sweeps.ledger import Ledger
    from research.sweeps.plan import read_plan
    from research.sweeps.slurm import ROUNDS, Options, submit
    from research.sweeps.spec import read_sweep
    from research.sweeps.worker import is_due

    sweep, folder, round = read_sweep(args.file), Path(args.folder), int(args.round)
    points, ledger = read_plan(folder), Ledger(folder)
    standings = ledger.standings([one.point for one in points])
    todo = [i for i, one in enumerate(points) if is_due(standings[one.point])]
    if todo and round < ROUNDS:
        values = json.loads(args.options)
        options = Options(**values | {"sbatch": tuple(values["sbatch"]), "setup": tuple(values["setup"])})
        array, _ = submit(sweep.name, args.file, folder, todo, options, round + 1)
        say(f"{len(todo)} of {len(points)} points are missing: submitted again as array {array}")
        return 0
    counts = count(ledger, points)
    write_json(folder / "finished.json", {"states": counts, "rounds": round})
    say(", ".join(f"{n} {state}" for state, n in counts.items()))
    return 0 if set(counts) <= {"done", "pruned"} else 1


def _status(args: argparse.Namespace) -> int:
    from rich.console import Console

    from research.sweeps.executors import count, table
    from research.sweeps.ledger import Ledger
    from research.sweeps.plan import read_plan
    from research.sweeps.spec import read_sweep

    folder = _folder(read_sweep(args.file))
    points, ledger = read_plan(folder), Ledger(folder)
    standings = ledger.standings([one.point for one in points])
    for one in points:
        if standings[one.point].state == "done" and _fits(one):
            state = "stale" if is_stale(folder / one.point) else "done" if _is_done(folder / one.point) else "missing"
            standings[one.point] = standings[one.point]._replace(state=state)
    if args.json:
        rows = [{"point": one.point, "values": one.values, **standings[one.point]._asdict()} for one in points]
        print(json.dumps({"out": str(folder), "states": count(ledger, points), "points": rows}))
        return 0
    Console(soft_wrap=True).print(table(points, standings))
    return 0
