"""What a message proposes exists: its options, verbs, dotted names and files."""

import argparse
import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import research
from research.cli import VERBS
from research.runs.defaults import KNOWN

PACKAGE = Path(research.__file__).parent
ROOT = PACKAGE.parent
CALLS = {"UserError", "say", "warn", "error"}
NOT_OURS = {
    "--no-deps",
    "--force-reinstall",
    "--ntasks",
    "--ntasks-per-node",
    "--requeue",
    "--signal",
    "--gres",
    "--array",
    "--verify",
    "--qos",
}
"""Options of pip, srun, sbatch and wandb that messages speak of."""


def messages(path: Path) -> list[tuple[str, str]]:
    """(place, text) of what is raised and said; what is filled in is a ·."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in CALLS or name.endswith("Error"):
            found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text_of(node.args[0])))
    return found


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        inner = [one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return " ".join(inner) if isinstance(node.value, ast.IfExp) else "·"
    return " ".join(text_of(child) for child in ast.iter_child_nodes(node))


MESSAGES = [message for path in sorted(PACKAGE.rglob("*.py")) for message in messages(path)]


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Of all verbs, and of configurations."""
    found = set(NOT_OURS)
    for verb in VERBS:
        parser = argparse.ArgumentParser(add_help=True)
        module = importlib.import_module(f"research.verbs.{verb}")
        module.add_arguments(parser)
        pages = [parser]
        if verb == "sweep":  # each of its steps has a page of its own
            for _, add_options in module.STEPS.values():
                pages.append(argparse.ArgumentParser())
                add_options(pages[-1])
        found |= {option for page in pages for action in page._actions for option in action.option_strings}
    from research.training.arguments import TOP

    return found | {f"--{name}" for name in TOP}


OF = {
    "dual_encoder": ("DualEncoderModule", "PairData"),
    "pairs": ("DualEncoderModule", "PairData"),
    "cross_encoder": ("CrossEncoderModule", "CandidateData"),
    "candidates": ("CrossEncoderModule", "CandidateData"),
    "sft": ("SFTModule", "InstructionData"),
    "instruction": ("SFTModule", "InstructionData"),
    "dpo": ("DPOModule", "PreferenceData"),
    "preference": ("DPOModule", "PreferenceData"),
}
"""How a file's name begins → the classes whose options its messages may name; elsewhere all of ours."""


@pytest.fixture(scope="module")
def dotted():
    """Place of a message → model.lr, data.limit, trainer.devices and so on, of the classes that it is about."""
    import lightning as L

    trainer = {f"trainer.{name}" for name in inspect.signature(L.Trainer.__init__).parameters}
    own: dict[str, set[str]] = {}
    for path, known in KNOWN.items():
        if path.startswith("research."):
            section = "data" if ".data." in path else "model"
            module, _, name = path.rpartition(".")
            now = inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters
            own[name] = {f"{section}.{one}" for one in (*now, *known)}

    def names(place: str) -> set[str]:
        room, file = Path(place.partition(":")[0]).parts[-2:]
        classes = next((OF[one] for one in OF if file.startswith(one)), ()) if room in ("data", "training") else ()
        return trainer.union(*(own[name] for name in classes or own))

    return names


def test_messages_are_found():
    assert len(MESSAGES) > 500
    assert sum("--" in text for _, text in MESSAGES) > 60


def test_options_that_messages_name_exist(options, dotted):
    wrong = []
    for place, text in MESSAGES:
        for option in re.findall(r"(?<![\w·-])--[a-z][\w.-]*[a-z0-9]", text):
            name = option.removeprefix("--")
            if (
                option not in options
                and name.replace(".init_args", "") not in dotted(place)
                and not name.startswith("model.adapter.")
            ):
                wrong.append(f"{place}: {option}")
    assert wrong == []


def test_dotted_names_that_messages_name_exist(dotted):
    wrong = []
    for place, text in MESSAGES:
        for name in re.findall(r"(?<![\w./·-])(?:model|data|trainer)\.[a-z_]+(?:\.[a-z_]+)*", text.replace(".init_args", "")):
            options = dotted(place)
            known = name in options or any(name.startswith(f"{one}.") for one in options)
            is_file = name.split(".")[1] in ("yaml", "class_path", "adapter", "safetensors", "csv", "metrics")
            if not (known or is_file or name.endswith("_")):  # the rest of it is filled in
                wrong.append(f"{place}: {name}")
    assert wrong == []


def test_verbs_that_messages_name_exist():
    wrong = []
    for place, text in MESSAGES:
        for verb in re.findall(r"`(?:python -m )?research (\w+)", text):
            if verb not in VERBS:
                wrong.append(f"{place}: research {verb}")
    assert wrong == []


def test_files_that_messages_name_are_there():
    wrong = []
    for place, text in MESSAGES:
        for name in re.findall(r"\b((?:configs|scripts|sweeps|docs)/[\w/.-]+\.\w+)", text):
            if not (ROOT / name).exists():
                wrong.append(f"{place}: {name}")
    assert wrong == []
