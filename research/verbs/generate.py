"""Answers of causal language models, with any adapter or several side by side on the same prompts.

  research generate --model runs/sft --data builtin:stdlib --split test --limit 100 --out runs/answers
  research generate --model BASE --model runs/lora --model runs/prefix --prompts questions.txt

With --data the answers are measured against the completions (exact match, token F1, ROUGE-L), and models are compared on
the same prompts. Decoding is greedy unless --temperature says otherwise, and the same for every model.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from research.data.tables import is_table
from research.errors import UserError
from research.metrics import scores
from research.models.device import add_device
from research.models.sources import check_name
from research.rag.checks import check_generation
from research.runs.disk import require_space
from research.runs.layout import open_run_folder
from research.verbs import options

if TYPE_CHECKING:  # it imports torch
    from research.rag.answers import Answers, Question


SHOWN = 3  # answers, where a file has all of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group(options.INPUT)
    group.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="MODEL",
        help="run folder, model or adapter folder, hub id, or pkg:PACKAGE/PATH; once or more",
    )
    group.add_argument("--data", metavar="SOURCE", help="instruction data: FILE.jsonl | hf:NAME | builtin:stdlib")
    group.add_argument("--split", help="of a hub dataset, a folder or a builtin source; a slice, of a file too: train[:100]")
    group.add_argument("--columns", metavar="JSON", help='role → column, where the names do not say it: {"question": "ask"}')
    options.add_skipping(group)
    group.add_argument("--limit", type=int, help="so many examples, spread evenly")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt a line, each a user's turn")
    group.add_argument("--raw", action="store_true", help="--prompts as they stand, without the chat template")
    group = parser.add_argument_group(options.OUTPUT)
    group.add_argument("--out", type=Path, metavar="DIR", help="answers.jsonl and metrics.json; else all answers on stdout")
    group = parser.add_argument_group(options.CHOICES)
    group.add_argument("--max-new-tokens", type=int, default=64, help="the longest answer (64)")
    group.add_argument("--max-prompt-tokens", type=int, default=1024, help="longer prompts are left out, counted (1024)")
    group.add_argument("--temperature", type=float, default=0.0, help="0: the most likely token; above: draws (0)")
    group.add_argument("--top-p", type=float, default=1.0, help="of a draw (1)")
    group.add_argument("--seed", type=int, help="of the draws (0)")
    group = parser.add_argument_group(options.COMPUTATION)
    group.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the weights (fp32)")
    group.add_argument("--batch-size", type=int, default=16, help="prompts of equal length at a time (16)")
    add_device(group)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Answer, measure and print; the exit code."""
    _check(args)
    for name in args.model:
        check_name(name)
    columns = options.named_columns(args.columns) if args.data is not None else None

    # torch takes seconds to import: only once the command is known to be right
    from research.models.generate import Decoding
    from research.models.inference import use_device
    from research.rag.answers import Asking, answer_all, read_prompts, read_questions, write_answers

    use_device(args.device)
    if args.prompts is not None:
        questions = read_prompts(args.prompts, args.raw, args.limit)
    else:
        questions = read_questions(args.data, args.split, args.limit, args.skip_bad_rows, columns)
    if args.out is not None:
        require_space(open_run_folder(args.out), 2**20, "a run folder")
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.seed or 0)
    asking = Asking(decoding, args.precision, args.max_prompt_tokens, args.batch_size)
    by_model = answer_all(args.model, questions, asking)
    if args.out is not None:
        write_answers(args.out, args.data or str(args.prompts), args.split, questions, by_model, args.command)
    _print(args, questions, by_model)
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.data is None) == (args.prompts is None):
        given = "both --data and --prompts" if args.data is not None else "neither --data nor --prompts"
        raise UserError(f"{given}; expected one of them, the prompts to answer. Name one.")
    if args.prompts is not None and is_table(str(args.prompts)):
        raise UserError(
            f"--prompts {args.prompts} is a table; expected a text file, a prompt a line. Pass --data {args.prompts} for rows "
            "of prompts and completions, or write the prompts alone into a .txt file."
        )
    if args.split is not None and args.data is not None and Path(args.data).is_file() and "[" not in args.split:
        raise UserError(
            f"--split {args.split} of {args.data}, a file without splits; expected none, or a slice of its rows. "
            f"Leave it out, or pass --split '{args.split}[:100]'."
        )
    for names, needed in ((("split", "columns", "skip_bad_rows"), "data"), (("raw",), "prompts")):
        for name in names:
            if (value := getattr(args, name)) not in (None, False) and getattr(args, needed) is None:
                option = f"--{name.replace('_', '-')}"
                shown = option if value is True else f"{option} {value}"
                raise UserError(f"{shown} is for --{needed}; expected it with that. Leave {option} out, or name --{needed}.")
    check_generation(vars(args))


def _print(args: argparse.Namespace, questions: "list[Question]", by_model: "dict[str, Answers]") -> None:
    metrics = {label: answers.metrics for label, answers in by_model.items()}
    if args.json:
        result = {"metrics": list(metrics.values())[-1], "models": metrics, "out": args.out and str(args.out)}
        if args.out is None:
            result["answers"] = {label: [answers.text(i) for i in range(len(questions))] for label, answers in by_model.items()}
        print(json.dumps(result, ensure_ascii=False))
        return
    shown = questions[:SHOWN] if args.out is not None else questions
    for i, row in enumerate(shown):
        prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1].get("content") or ""
        print(f"» {' '.join(prompt.split())[:100]}")
        if row["reference"] is not None:
            print(f"  reference: {' '.join(row['reference'].split())[:100]}")
        for label, answers in by_model.items():
            text = " ".join((answers.text(i) or "").split())
            print(f"  {label}: {(text if args.out is None else text[:200]) or '(empty)'}")
    if len(shown) < len(questions):
        print(f"… and {len(questions) - len(shown):,} more in {args.out / 'answers.jsonl'}")
    if any(metrics.values()):
        print("\n" + scores.table(metrics))
    if args.out is not None:
        print(f"\nwritten to {args.out}")
