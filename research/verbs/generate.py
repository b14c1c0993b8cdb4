"""Answers of causal language models, with any adapter or several side by side on the same prompts.

  research generate --model runs/sft --data builtin:stdlib --split test --limit 100 --out runs/answers
  research generate --model BASE --model runs/lora --model runs/prefix --prompts questions.txt

With --data the answers are measured against the completions (exact match, token F1, ROUGE-L), and models are compared on
the same prompts. Decoding is greedy unless --temperature says otherwise, and the same for every model.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.metrics import scores
from research.progress import say
from research.verbs.options import named_columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="MODEL",
        help="run folder, model or adapter folder, hub id, or pkg:PACKAGE/PATH; once or more",
    )
    parser.add_argument("--data", metavar="SOURCE", help="instruction data: FILE.jsonl | hf:NAME | builtin:stdlib")
    parser.add_argument("--split", help="of a hub dataset, a folder or a builtin source; a slice, of a file too: train[:100]")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt a line, each a user's turn")
    parser.add_argument("--raw", action="store_true", help="--prompts as they stand, without the chat template")
    parser.add_argument("--limit", type=int, help="so many examples, spread evenly")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="the longest answer (64)")
    parser.add_argument("--max-prompt-tokens", type=int, default=1024, help="longer prompts are left out, counted (1024)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the most likely token; above: draws (0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="of a draw (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts of equal length at a time (16)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the weights (fp32)")
    parser.add_argument("--columns", metavar="JSON", help='role → column, where the names do not say it: {"question": "ask"}')
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave malformed rows out, counted")
    parser.add_argument("--out", type=Path, metavar="DIR", help="answers.jsonl and metrics.json")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def run(args: argparse.Namespace) -> int:
    from research.models.sources import check_name
    from research.runs.disk import require_space
    from research.runs.layout import open_run_folder
    from research.runs.writers import write_metrics, write_provenance

    _check(args)
    for name in args.model:
        check_name(name)
    examples = _examples(args)
    if args.out is not None:
        require_space(open_run_folder(args.out), 2**20, "a run folder")

    from research.metrics import generation

    references = {str(i): [row["reference"]] for i, row in enumerate(examples) if row["reference"] is not None}
    found: dict[str, dict[str, Any]] = {}
    for name in args.model:
        answers, facts = _answer(args, name, examples)
        per_example = generation.evaluate({i: a["text"] for i, a in answers.items()}, references)
        means = {metric: sum(values.values()) / len(values) for metric, values in per_example.items() if values}
        found[_label(name, found)] = {"metrics": means, "per_query": per_example, "answers": answers, "facts": facts}
    if args.out is not None:
        # the marker first: a folder of other files without it would be taken for somebody else's
        write_provenance(args.out, args.command, models={n: o["facts"]["hash"] for n, o in found.items()})
        _write_answers(args.out, examples, found)
        write_metrics(
            args.out,
            {
                "kind": "generate",
                "source": args.data or str(args.prompts),
                "split": args.split,
                "examples": len(examples),
                "models": {label: {key: one[key] for key in ("metrics", "per_query", "facts")} for label, one in found.items()},
            },
        )
    _print(args, examples, found)
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.data is None) == (args.prompts is None):
        given = "both --data and --prompts" if args.data is not None else "neither --data nor --prompts"
        raise UserError(f"{given}; expected one of them, the prompts to answer. Name one.")
    if args.split is not None and args.data is not None and Path(args.data).is_file() and "[" not in args.split:
        raise UserError(
            f"--split {args.split} of {args.data}, a file without splits; expected none, or a slice of its rows. "
            f"Leave it out, or pass --split '{args.split}[:100]'."
        )
    least = {"limit": 1, "max_new_tokens": 1, "max_prompt_tokens": 1, "batch_size": 1}
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and value < low:
            raise UserError(f"--{name.replace('_', '-')} {value}; expected {low} or more. Correct it.")
    if not 0 <= args.temperature < 100:
        raise UserError(f"--temperature {args.temperature}; expected 0 (no draws) to below 100. Correct it.")
    if not 0 < args.top_p <= 1:
        raise UserError(f"--top-p {args.top_p}; expected above 0 to 1. Correct it.")
    if args.top_p < 1 and not args.temperature:
        raise UserError(
            f"--top-p {args.top_p} without --temperature: nothing is drawn; expected both, or neither. Pass "
            "--temperature 1, say."
        )


def _examples(args: argparse.Namespace) -> list[dict]:
    """{"prompt": text or messages, "reference": text or None} of every example."""
    from research import prompts
    from research.data.instructions import check_columns_used, read_examples, reference
    from research.data.rows import SKIPPING, read_lines
    from research.data.training import spread

    if args.prompts is not None:
        rows = [
            {"prompt": line if args.raw else [prompts.user(line)], "reference": None} for _, line in read_lines(args.prompts)
        ]
        if not rows:
            raise UserError(f"{args.prompts} has no line; expected one prompt a line. Add some.")
        return rows if args.limit is None else spread(rows, args.limit)
    columns = named_columns(args.columns)
    check_columns_used(columns, args.data, option="--columns")
    found = read_examples(args.data, args.split, args.limit, args.skip_bad_rows, columns, SKIPPING).rows
    if "prompt" not in found[0]:
        raise UserError(
            f"rows of {args.data} have no prompt ({', '.join(found[0])}); expected prompt and completion, or "
            "instruction and response. Name other data, or write the prompts into a file for "
            "--prompts."
        )
    # a completion that is a call of a tool has no text to compare with
    return [{"prompt": prompts.asked(row), "reference": reference(row) or None} for row in found]


def _answer(args: argparse.Namespace, name: str, examples: list[dict]) -> tuple[dict[str, dict], dict]:
    """{example: {text, tokens, ended}}, and facts about the model."""
    from research.models.inference import best_device
    from research.models.policy import load_policy
    from research.models.sources import hash_model, resolve
    from research.prompts import prompt_ids
    from research.retrieval.generate import Decoding, generate

    policy = load_policy(name, args.precision)
    model = policy.model.to(best_device()).eval()
    ids = [prompt_ids(model.tokenizer, row["prompt"], name) for row in examples]
    room = min(args.max_prompt_tokens, model.positions - model.virtual_tokens - args.max_new_tokens)
    kept = [i for i, row in enumerate(ids) if 0 < len(row) <= room]
    if not kept:
        raise UserError(
            f"no prompt fits: the shortest has {min(map(len, ids))} tokens and {name} has room for {room}; "
            "expected one or more. Raise --max-prompt-tokens, or lower --max-new-tokens."
        )
    if len(kept) < len(ids):
        say(
            f"{name}: {len(ids) - len(kept)} of {len(ids)} prompts have more than {room} tokens and are left out; they count "
            "as empty answers"
        )
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.seed)
    started = time.perf_counter()
    answers = generate(model, [ids[i] for i in kept], decoding, args.batch_size)
    seconds = time.perf_counter() - started
    made = sum(answer.tokens for answer in answers)
    facts = {
        "model": name,
        "base": policy.base,
        "hash": hash_model(resolve(name)),
        "virtual_tokens": model.virtual_tokens,
        "precision": args.precision,
        **decoding._asdict(),
        "left_out": len(ids) - len(kept),
        "tokens": made,
        "seconds": round(seconds, 3),
    }
    empty = sum(not answer.text for answer in answers)
    say(
        f"{name}: {len(answers):,} answers of {made / len(answers):.1f} tokens, {made / seconds:.1f} tokens/s"
        + (f"; {empty} are empty: it ends at once on these prompts" if empty else "")
    )
    return {str(i): answer._asdict() for i, answer in zip(kept, answers, strict=True)}, facts


def _label(name: str, taken: dict) -> str:
    """A short name of a model, told apart from those before."""
    path = Path(name.rstrip("/"))
    short = path.parent.name if path.name == "model" and path.parent.name else path.name
    return short if short not in taken else f"{short}#{len(taken) + 1}"


def _write_answers(out: Path, examples: list[dict], found: dict[str, dict]) -> None:
    from research.runs.files import atomic_write

    with atomic_write(out / "answers.jsonl") as stream:
        for i, row in enumerate(examples):
            answers = {label: one["answers"].get(str(i), {}).get("text") for label, one in found.items()}
            stream.write(json.dumps({"id": str(i), **row, "answers": answers}, ensure_ascii=False) + "\n")


def _print(args: argparse.Namespace, examples: list[dict], found: dict[str, dict]) -> None:
    if args.json:
        models = {label: one["metrics"] for label, one in found.items()}
        print(json.dumps({"metrics": list(models.values())[-1], "models": models, "out": args.out and str(args.out)}))
        return
    for i, row in enumerate(examples[:3]):
        prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1].get("content") or ""
        print(f"» {' '.join(prompt.split())[:100]}")
        if row["reference"] is not None:
            print(f"  reference: {' '.join(row['reference'].split())[:100]}")
        for label, one in found.items():
            text = " ".join(one["answers"].get(str(i), {}).get("text", "").split())
            print(f"  {label}: {text[:200] or '(empty)'}")
    if any(one["metrics"] for one in found.values()):
        print("\n" + scores.table({label: one["metrics"] for label, one in found.items()}))
    if args.out is not None:
        print(f"\nwritten to {args.out}")
