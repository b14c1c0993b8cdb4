"""The exit codes, the one exception that means: the user's input is wrong (exit code 2, no traceback), and the nearest right
name for a wrong one."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

WRONG_INPUT, DIVERGED, PREEMPTED, INTERRUPTED = 2, 3, 85, 130
"""Exit codes that say more than 0 (done) and 1 (a bug, or a check that did not hold); 85: run the same command again."""
CHECKOUT = Path(__file__).parents[1]
"""Where configs/ and sweeps/ lie, if this is a checkout."""
ELSEWHERE = {
    "alpha": "lora_alpha",
    "batch": "batch_size",
    "dropout": "lora_dropout",
    "epochs": "max_epochs",
    "gpus": "devices",
    "gradient_accumulation_steps": "accumulate",
    "k": "top_k",
    "learning_rate": "lr",
    "lr_scheduler_type": "decay",
    "max_grad_norm": "clip",
    "max_seq_length": "max_length",
    "model_name_or_path": "model",
    "num_epochs": "max_epochs",
    "num_train_epochs": "max_epochs",
    "num_workers": "workers",
    "output": "out",
    "output_dir": "out",
    "per_device_train_batch_size": "batch_size",
    "rank": "r",
    "scheduler": "decay",
    "seed": "seed_everything",
    "steps": "max_steps",
    "targets": "target_modules",
    "tau": "temperature",
    "train_batch_size": "batch_size",
    "virtual_tokens": "num_virtual_tokens",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
}
"""What papers and other libraries call an option → its name here."""
LISTED = 20
"""Known names that a message lists."""


class UserError(ValueError):
    """The message names the value, what was expected, and the cure, in one paragraph."""


def suggest(name: str, known: Iterable[str], paths: bool = False) -> str:
    """`did you mean 'b'? known: a, b, c`: the cure for every unknown name.

    Args:
        name: not known.
        known: of option names with sections (`model.lr`) those of the same section are listed.
        paths: they are names of files, whose dots are no sections.
    """
    known = sorted(known)
    near = nearest(name, known, paths)
    section = _section(name)
    listed = [other for other in known if not paths and _section(other) == section] or known
    names = ", ".join(other if paths else other.removeprefix(f"{section}.") for other in listed[:LISTED]) + (
        f", … ({len(listed)} in all)" if len(listed) > LISTED else ""
    )
    return (f"did you mean {near!r}? " if near else "") + f"known: {names or 'none'}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """` Did you mean 'b'?` behind a message that lists the known names; "" where none is alike."""
    near = nearest(str(name), known)
    return f" Did you mean {near!r}?" if near else ""


def suggest_file(path: str | Path) -> str:
    """` Did you mean configs/lora.yaml?` for a path that does not exist: that of the repository, or the most alike."""
    return f" Did you mean {near}?" if (near := near_file(path)) else ""


def near_file(path: str | Path) -> Path | None:
    """The file or folder that was meant by a path that does not exist; None where none is alike."""
    path = Path(path)
    if not path.is_absolute() and (shipped := CHECKOUT / path).is_file():  # configs/sft.yaml, typed in a folder of one's own
        return shipped
    for folder, rest in ((path.parent, ()), (path.parent.parent, (path.name,))):
        missing = path.name if not rest else path.parent.name
        try:
            there = [entry.name for entry in folder.iterdir() if entry.joinpath(*rest).exists()]
        except OSError:  # there is no such folder, or it is not ours to read
            continue
        if near := nearest(missing, there, paths=True):
            return folder.joinpath(near, *rest)
    return None


def nearest(name: str, known: Iterable[str], paths: bool = False) -> str | None:
    """The known name that was meant: the same elsewhere in the tree, what another library calls so, or the most alike."""
    known = list(known)
    if paths:
        stems = {stem: other for other in sorted(known, reverse=True) if (stem := other.partition(".")[0])}
        for typed, among in ((name, {other: other for other in known}), (name.partition(".")[0], stems)):  # faq for faq.csv
            cutoff = 0.75 if len(typed) > 3 else 0.66  # one wrong letter of three
            if near := difflib.get_close_matches(typed, among, n=1, cutoff=cutoff):
                return among[near[0]]
        return None
    leaf = _leaf(name)
    for wanted in (leaf, ELSEWHERE.get(leaf)):
        if same := [other for other in known if _leaf(other) == wanted]:
            return max(same, key=lambda other: difflib.SequenceMatcher(None, name, other).ratio())
    section = [other for other in known if _section(other) == _section(name)]
    if len(begun := [other for other in section if leaf and _leaf(other).startswith(leaf)]) == 1:  # abbreviated
        return begun[0]
    for among, cutoff in ((section, 0.6), (known, 0.8)):
        by_leaf = {_leaf(other): other for other in among}
        if near := difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=cutoff):
            return by_leaf[near[0]]
    return None


def _leaf(name: str) -> str:
    """The last part, in one spelling: `--model.optimisation.lr` → lr, `--max-length` → max_length."""
    return name.lstrip("-").rpartition(".")[2].replace("-", "_").lower()


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def as_arguments(message: str, function: Callable) -> str:
    """The message, with a verb's options as arguments of a function that has them: `--top-k 0` → `top_k=0`."""
    names: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        keywords = (
            [kind.__annotations__ for kind in get_args(parameter.annotation)] if parameter.kind is parameter.VAR_KEYWORD else []
        )
        names |= {name, *(key for part in keywords for key in part)}

    def argument(match: re.Match) -> str:
        name = match[1].replace("-", "_")
        if name.startswith("no_") and name.removeprefix("no_") in names:
            return f"{name.removeprefix('no_')}=False"
        return f"{name}{'=' if match[2] else ''}" if name in names else match[0]

    return re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*)( (?=-?[\d.]))?", argument, message)
