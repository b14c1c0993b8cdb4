"""A trained model as a folder that plain sentence-transformers, transformers or PEFT loads, with a model card.

research export runs/mine --out exported/retriever
research export runs/sft --out exported/adapter              # a PEFT folder
research export runs/sft --merge --out exported/model        # LoRA as part of the weights
"""

import argparse
import json
import re
from pathlib import Path

from research.errors import UserError
from research.models.sources import check_name
from research.progress import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="run folder, model or adapter folder, hub id, or pkg:PACKAGE/PATH")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--merge", action="store_true", help="a LoRA adapter as part of its base's weights")
    parser.add_argument("--license", metavar="ID", help="of the card: apache-2.0, mit, … (that of the base's card)")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def run(args: argparse.Namespace) -> int:
    """Export a model; the exit code, 1 if the export is another model."""
    check_name(args.model)
    if args.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", args.license):
        raise UserError(
            f"--license {args.license!r}; expected the hub's id of a licence, in small letters, such as apache-2.0, mit or "
            "other. Correct it."
        )
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"--out {args.out} exists and is not an empty folder; expected a new one. Name another, or delete it.")

    # torch takes seconds to import: only once the command is known to be right
    from research.models.export import Differs, export

    try:
        exported = export(args.model, args.out, args.merge, args.license)
    except Differs as error:
        say(f"error: {error}")
        return 1
    for sentence in exported.sentences:
        say(sentence)
    if exported.difference is not None and not exported.sentences:
        library = "PEFT" if exported.kind == "adapter" else "transformers"
        say(f"loaded again by plain {library}: logits differ by {exported.difference:.2g}")
    if args.json:
        print(json.dumps({"out": str(args.out), **exported._asdict()}))
    else:
        print(f"written to {args.out} ({exported.kind}; README.md says how it is loaded)")
    return 0
