"""Measure TREC runs against a split's judgements, and test the differences between them.

research evaluate --data beir:my_folder --split test --runs bm25.trec dense.trec
"""

import argparse
import json
from pathlib import Path

from research.data.rankings import check_run, read_run
from research.data.rows import BadRows
from research.data.sources import check_relevant, check_split, load
from research.errors import UserError
from research.metrics import scores
from research.metrics.retrieval import unscorable
from research.progress import say
from research.runs.layout import open_run_folder, without_empty
from research.runs.writers import write_metrics, write_provenance
from research.verbs import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = options.add_data(parser)
    group.add_argument("--runs", nargs="+", required=True, type=Path, metavar="FILE", help="TREC run files")
    group = parser.add_argument_group(options.OUTPUT)
    group.add_argument("--out", type=Path, metavar="DIR", help="also write metrics.json (per query too) there")
    options.add_metrics(parser.add_argument_group(options.CHOICES))
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and compare TREC runs; the exit code."""
    metrics = scores.check_metrics(args.metrics)
    check_split(args.data, args.split)
    with without_empty(args.out or Path()):
        if args.out:
            open_run_folder(args.out)
        paths = _labels(args.runs)
        skipped = {label: BadRows(args.skip_bad_rows) for label in paths}
        runs = {label: read_run(path, skipped[label]) for label, path in paths.items()}
        data = check_relevant(load(args.data, args.split, args.skip_bad_rows))
    for label, path in paths.items():
        if ignored := check_run(path, runs[label], data.qrels, data.corpus, data.unjudged):
            say(f"{path}: {ignored} queries are not judged in split {args.split} and are ignored")
        skipped[label].say_counts(str(path))
    if lines := {label: dict(bad.counts) for label, bad in skipped.items() if bad.counts}:
        data = data._replace(notes=data.notes | {"skipped_run_lines": lines})

    measured = scores.evaluate_runs(data.qrels, runs, metrics, args.mean, names=paths)
    means, pairs = measured.metrics, measured.comparisons
    last = means[list(means)[-1]]
    if args.out:
        facts = {"verb": "evaluate", "source": args.data, "split": args.split, "data": data.fingerprint}
        if args.mean != "scorable":
            facts["mean"] = args.mean
        write_provenance(args.out, args.command, **facts)
        write_metrics(
            args.out,
            {
                **facts,
                "queries": len(data.queries),
                "documents": len(data.corpus),
                "unscorable": unscorable(data.qrels),
                "notes": data.notes,
                "metrics": last,
                "comparisons": pairs,
                "stages": {
                    label: {"metrics": means[label], "per_query": values, "facts": {"label": label}}
                    for label, values in measured.per_query.items()
                },
            },
        )
    intervals = {label: scores.interval(values[metrics[0]]) for label, values in measured.per_query.items()}
    if args.json:
        out = str(args.out) if args.out else None
        found = {"metrics": last, "stages": means, "comparisons": pairs, "out": out, "intervals": {metrics[0]: intervals}}
        print(json.dumps(found))
        return 0
    print(scores.table(means, intervals))
    if pairs:
        print("\n" + scores.comparison_lines(pairs))
    return 0


def _labels(paths: list[Path]) -> dict[str, Path]:
    """Name runs by their file stems; by whole paths if two stems are equal."""
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"--runs names {twice} twice; expected different runs. Remove one.")
    stems = [path.stem for path in paths]
    return {(path.stem if stems.count(path.stem) == 1 else str(path)): path for path in paths}
