"""How far a newcomer walks: the files that one call passes through on the way to what it is about."""

import sys
from pathlib import Path
from types import FrameType

import fitting
import pytest

import research as package

PACKAGE = Path(package.__file__).parent


def callers(frame: FrameType | None) -> list[str]:
    """Files of this package on the way to a frame, first to last."""
    files: list[str] = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            files.append(path.relative_to(PACKAGE).as_posix())
        frame = frame.f_back
    return list(dict.fromkeys(reversed(files)))


@pytest.mark.parametrize("trainer", ["dual_encoder", "cross_encoder"])
def test_from_the_arguments_of_fit_to_its_module_one_enters_four_files(trainer, research, tiny_bert, tmp_path, monkeypatch):
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)
    if trainer == "cross_encoder":  # reads its data before its model
        for command in (fitting.MINE, fitting.RETRIEVE.format(split="dev", out="first")):
            assert research(*command.split()).code == 0
    module = str(PACKAGE / f"training/{trainer}.py")
    walks = []

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "__init__" and frame.f_code.co_filename == module:
            walks.append(callers(frame))
            sys.setprofile(None)
            raise KeyboardInterrupt  # it is built: what follows is the training

    sys.setprofile(profile)
    try:
        result = research("fit", "-c", "dual.yaml" if trainer == "dual_encoder" else "cross.yaml", "--wandb", "disabled")
    finally:
        sys.setprofile(None)
    assert result.code == 130
    assert walks == [["cli.py", "verbs/fit.py", "training/run.py", f"training/{trainer}.py"]]
