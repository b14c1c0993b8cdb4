"""What a training computes, as one name: the same configuration on the same data and base model has the same point id."""

import functools
from pathlib import Path
from typing import Any

from research.runfolder import hash_json, hash_strings

HOW = ("out", "wandb", "save_every", "data.init_args.workers")
"""Parts of a configuration that say how, not what: a run goes on with others."""
PLACE = "{point}"  # in --out: becomes the point id
LENGTH = 16  # hexadecimal digits
PATHS = ("model.init_args.model", "data.init_args.train", "data.init_args.val", "data.init_args.test",
         "data.init_args.other", "data.init_args.val_run", "data.init_args.test_run", "trainer.default_root_dir")  # fmt: skip
"""Where things lie, for which the hashes of what is there stand in."""


def point_of(resolved: dict, base_hash: str, data: dict) -> str:
    """The point id of a training.

    Args:
        resolved: the configuration with every default.
        base_hash: of the model that is trained.
        data: the DataModule's describe(): fingerprints and counts of what is read.
    """
    return hash_json([what_is_computed(resolved), base_hash, data])[:LENGTH]


@functools.cache
def code_fingerprint() -> str:
    """Hash of this package's code: a finished point of other code is stale."""
    root = Path(__file__).parents[1]
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js"))
    return hash_strings(f"{path.relative_to(root)}\n{path.read_text(encoding='utf-8')}" for path in files)[:LENGTH]


def what_is_computed(value: Any, name: str = "") -> Any:
    """Without what says where or how."""
    if isinstance(value, dict):
        return {
            key: what_is_computed(inner, f"{name}{key}.")
            for key, inner in value.items()
            if f"{name}{key}" not in (*HOW, *PATHS)
        }
    return value
