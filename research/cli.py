"""`research <verb>`: finds the verb, turns errors into exit codes. Heavy imports happen inside a verb's run.

Exit codes: 0 done · 2 the user's input is wrong · 3 the training diverged · 1 a bug, or a check that did not hold ·
85 preempted, state saved, run me again · 130 interrupted.
"""

import argparse
import functools
import importlib
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from research import __version__
from research.errors import INTERRUPTED, WRONG_INPUT, UserError, suggest
from research.runs.disk import disk_error
from research.training.stop import Stopped, say_stopped

VERBS = {
    "fit": "train what a configuration says: dual encoder, cross-encoder, SFT, DPO",
    "validate": "a trained run's model on its validation data",
    "test": "a trained run's model on its test data",
    "encode": "texts of a data source → embedding store",
    "retrieve": "encode → index → search → fuse → evaluate, on a data source and split",
    "search": "passages of any corpus for own questions: no judgements needed",
    "mine": "hard negatives and candidate lists from any retriever",
    "evaluate": "TREC runs against judgements, with paired significance between them",
    "generate": "answers of language models, with any adapter, side by side",
    "tokenize": "text → ids → tensors → text of a language model, made visible",
    "export": "a trained model as a folder for sentence-transformers, transformers or PEFT, with a card",
    "sweep": "a W&B sweep YAML: compile it, check every point, run it, see where it stands",
    "report": "run folders → one self-contained HTML page",
    "quickstart": "the whole road on the embedded data and model",
}
"""verb → its line in the help; the code is research/verbs/<verb>.py."""

EPILOG = """research <verb> --help shows a verb's options. Results go to stdout, progress to stderr.
Exit codes: 0 done, 2 wrong input, 3 a training that diverged, 85 preempted (run it again), 130 interrupted, 1 anything else."""


class Help(argparse.RawDescriptionHelpFormatter):
    """argparse's help, with every default in brackets, and N and X for numbers in place of the option's name again."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default in (None, False, argparse.SUPPRESS) or default == []:
            return text
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        return text if re.search(rf"(?<![\w.]){re.escape(shown)}(?!\w)", text) else f"{text} ({shown})".strip()

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return {int: "N", float: "X"}.get(action.type) or super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors: one paragraph, with the cure."""

    def __init__(self, *args: object, **options: object):
        super().__init__(*args, **options)
        self.register("type", Path, _path)

    def parse_args(self, args, namespace=None):
        known = [option for action in self._actions for option in action.option_strings]
        for arg in args:
            option = arg.partition("=")[0]
            if arg == "--":
                break
            if arg.startswith("--") and option not in known:  # before argparse says that the right one is missing
                self.error(f"unknown option {option}; {suggest(option, known)}")
        return super().parse_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown choice {value!r}; {suggest(str(value), action.choices)}")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See `{self.prog} --help`.")


def _path(text: str) -> Path:
    if not text.strip():  # Path("") would be the folder that the user stands in
        raise argparse.ArgumentTypeError(f"{text!r} is empty; expected a path, for example ./out")
    return Path(text)


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        _check_encoding(argv)
        args = parse(argv)
        if args is None:
            return 0
        args.command = ["research", *argv]
        return args.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except Stopped as stopped:  # before fit had something to save
        return say_stopped(stopped)
    except KeyboardInterrupt:
        print("interrupted; finished parts are kept, the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our stdout (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # pathlib's, of Python 3.11 and 3.12
            raise
        print(
            f"error: {error}: the link points to itself; expected a file or folder. Remove it, or name another path.",
            file=sys.stderr,
        )
        return WRONG_INPUT
    except OSError as error:
        if not isinstance(disk_error(error, ""), UserError):
            raise
        print(
            f"error: cannot read or write {error.filename or 'a file'}: {error.strerror}; expected a path that this "
            "user may use, on a disk with room. Check the path, its permissions and the free space, then run the same "
            "command again.",
            file=sys.stderr,
        )
        return WRONG_INPUT


def _check_encoding(argv: list[str]) -> None:
    for arg in argv:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"argument {arg!r} is not UTF-8; expected text that files can record. Rename the file or mend the argument."
            ) from None


def parse(argv: list[str]) -> argparse.Namespace | None:
    """The options of one command line; None where it asks for what was printed, as the help."""
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        print("usage: research <verb> [options]\n\nTandem: retrieve, rerank, generate, and the ablations around it.\n\nverbs:")
        print("\n".join(f"  {verb:{width}}  {line}" for verb, line in VERBS.items()))
        print(f"\n{EPILOG}")
        return None
    if argv[0] == "--version":
        print(f"tandem {__version__}")
        return None
    if argv[0] not in VERBS:
        raise UserError(f"unknown verb {argv[0]!r}; {suggest(argv[0], VERBS)}. See `research --help`.")
    verb = importlib.import_module(f"research.verbs.{argv[0]}")
    parser = Parser(prog=f"research {argv[0]}", description=verb.__doc__, allow_abbrev=False, formatter_class=Help)
    verb.add_arguments(parser)
    others = {"sweep": {"main": main, "parse": parse}, "quickstart": {"main": main}}  # these run other verbs, and import none
    parser.set_defaults(run=functools.partial(verb.run, **others.get(argv[0], {})))
    if hasattr(verb, "parse"):  # its options come from the classes that its configuration names
        return verb.parse(parser, argv[1:])
    return parser.parse_args(argv[1:])


if __name__ == "__main__":  # `python -m research.cli`, which would else do nothing and say so by exit code 0
    entry()
