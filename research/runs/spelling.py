"""One form for options that say how a training is computed and not what: devices, names of precisions, faster parts."""

import json

from research.runs.class_source import is_ours
from research.types import Json

HOW = ("out", "wandb", "save_every", "keep_checkpoints", "data.init_args.workers")
"""Options that may change when a run is resumed, and that were never part of an id; see `how`."""
ONE_SPELLING: dict[str, Json] = {
    "trainer.deterministic": None,
    "trainer.benchmark": None,
    "trainer.inference_mode": True,
    "trainer.profiler": None,
    "trainer.detect_anomaly": False,
    "trainer.sync_batchnorm": False,
    "model.init_args.fast": True,
    "data.init_args.chunk_overhead": 512,
    "data.init_args.share_prompt": None,
}
"""Options that change speed, memory or rounding alone → the value that stands for all of theirs; of classes of ours."""
DOCUMENTED: dict[str, Json] = {
    "trainer.precision": "32-true",
    "trainer.limit_train_batches": 1.0,
    "trainer.limit_val_batches": 1.0,
    "trainer.limit_test_batches": 1.0,
    "trainer.limit_predict_batches": 1.0,
    "trainer.val_check_interval": 1.0,
}
"""What Lightning makes of its own default, None; 1.0 is all of the batches, and 1 is one of them."""
BATCH = "data.init_args.batch_size"


def how(resolved: Json) -> tuple[str, ...]:
    """List the options of this configuration that say how and not what: those of HOW, but none of a foreign class."""
    return tuple(name for name in HOW if _is_ours(resolved, name))


def _is_ours(resolved: Json, name: str) -> bool:
    """Return whether an option is the run's, Lightning's, or of a class of ours or one that inherits it."""
    section, _, option = name.partition(".init_args.")
    path = value_at(resolved, f"{section}.class_path") if option else None
    return not isinstance(path, str) or is_ours(path)


def one_spelling(resolved: dict, documented: dict[str, Json] = DOCUMENTED, processes: bool = True) -> dict:
    """Return the configuration with one spelling of what says how, and not what, is computed.

    Args:
        resolved: configuration.
        documented: values of the Trainer that are its defaults by its documentation.
        processes: whether devices that share a batch are among what says how.
    """
    out = json.loads(json.dumps(resolved, default=str))
    for name, value in documented.items():
        section, _, option = name.rpartition(".")
        if (part := _section(out, section)) is not None and repr(part.get(option)) == repr(value):
            part[option] = None
    for name, value in ONE_SPELLING.items():
        section, _, option = name.rpartition(".")
        if (part := _section(out, section)) is not None and option in part and _is_ours(out, name):
            part[option] = value
    trainer, data, model = (_section(out, name) for name in ("trainer", "data.init_args", "model.init_args"))
    count = _processes(trainer) if trainer is not None and "devices" in trainer else None
    if count is None or (count > 1 and not processes):  # None: known on the machine alone
        return out
    if count > 1:
        size = (data or {}).get("batch_size")
        if not isinstance(size, int) or (model or {}).get("gather") is False:
            return out  # what a process computes depends on how many there are
        data["batch_size"] = size * count
    trainer |= {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    return out


def _section(value: Json, name: str) -> dict | None:
    """Return a section by its dotted name; None where a configuration of elsewhere has none."""
    section = value_at(value, name)
    return section if isinstance(section, dict) else None


def value_at(value: Json, name: str) -> Json:
    """Return the value of a dotted name; None where it is absent."""
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _processes(trainer: dict) -> int | None:
    """Count the processes that train, where the configuration alone says it."""
    devices, nodes = trainer["devices"], trainer.get("num_nodes", 1)
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices == "auto" and trainer.get("accelerator") == "cpu":
        devices = 1
    if isinstance(devices, str) and "," in devices:
        devices = [device for device in devices.split(",") if device.strip()]
    if isinstance(devices, list):
        devices = len(devices)
    known = isinstance(devices, int) and not isinstance(devices, bool) and devices > 0 and isinstance(nodes, int)
    return devices * nodes if known else None


def without(value: Json, names: tuple[str, ...], name: str = "") -> Json:
    """Return the configuration without the options of these dotted names."""
    if not isinstance(value, dict):
        return value
    return {key: without(inner, names, f"{name}{key}.") for key, inner in value.items() if f"{name}{key}" not in names}
