"""What a command would compute, without computing it: for the plan of a sweep."""

import json
from typing import Any

from research.errors import UserError

SETS = ("target_modules", "exclude_modules", "modules_to_save")


def describe(argv: list[str], metric: str | None = None, shown: str | None = None, goal: str | None = None) -> dict[str, Any]:
    """What a command would compute, without computing it: its models are built without weights.

    Args:
        argv: the command.
        metric: that it must measure, for something depends on it while it runs.
        goal: of the metric, where the sweep states it.
        shown: a metric that it must measure if it is a training of ours.

    Raises:
        UserError: the command would end in one, does not measure the metric, or has no data to measure it on.
    """
    from research.runs.hashes import hash_json
    from research.runs.identity import LENGTH
    from research.sweeps.command import ours

    words = ours(argv)
    if words is None or words[:1] != ["fit"]:
        if metric is not None:
            raise UserError(
                f"{argv[0]}: bayes, early_terminate and metric.target need to see {metric} while the command runs; "
                "expected `research fit`. Leave them out, or leave them to W&B's agents."
            )
        return {"point": hash_json(argv)[:LENGTH]}  # somebody else's program: the command is all that is known
    from research import cli
    from research.models.folder import without_weights
    from research.runs.identity import ids_of
    from research.training import configuration
    from research.training.run import build

    args = cli._parse(words)
    with configuration.own_names():
        config, resolved = configuration.read(args)
        with without_weights():
            module, data = build(config)
    if (needed := metric or shown) is not None:
        _check_metric(needed, module, data, config.trainer)
        if metric is not None and goal is None and module.better(metric) == "higher":
            raise UserError(
                f"the sweep's metric {metric!r} has no goal, and W&B minimizes such a metric, of which the higher value is the "
                f"better one; expected metric: {{name: {metric}, goal: maximize}}. Add the goal."
            )
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained = sum(n for n, wanted in sizes if wanted)
    frozen = sum(n for n, wanted in sizes if not wanted)
    narrow = config.trainer.precision == "bf16-mixed" and frozen and hasattr(module, "language") and module.model.adapted
    facts = module.language.describe() if hasattr(module, "language") else {"trained_parameters": trained, "adapter_bytes": 0}
    inputs = data.describe()
    point, *former = ids_of(resolved, module.base_hash, inputs)
    return {
        "point": point,
        "former": former,
        "computes": hash_json([_canonical(resolved), module.base_hash, inputs])[:LENGTH],
        "trained_parameters": trained,
        "adapter_bytes": facts["adapter_bytes"],
        # weights, gradients and two moments; activations come on top
        "memory": trained * 16 + frozen * (2 if narrow else 4),
        "base_hash": module.base_hash,
        "data": inputs,
    }


def _check_metric(metric: str, module: Any, data: Any, trainer: Any) -> None:
    """
    Raises:
        UserError: no validation would give the metric.
    """
    known = [f"val/{name}" for name in module.metrics]
    if metric not in known:
        raise UserError(
            f"the sweep's metric {metric!r} is not computed; expected one of {', '.join(known)}. Correct it, or "
            "add it to model.metrics."
        )
    if "val" not in data.collections:
        raise UserError(
            f"the sweep's metric {metric!r} has nothing to be measured on: the training has no validation data; "
            "expected some. Set data.val or data.val_split, or leave the metric out of a grid or random "
            "sweep."
        )
    if getattr(trainer, "limit_val_batches", None) == 0:
        raise UserError(
            f"the sweep's metric {metric!r} is never measured: trainer.limit_val_batches is 0; expected 1 or more. "
            "Leave it out."
        )


def _canonical(resolved: dict) -> dict:
    """The configuration with LoRA's alpha and rsLoRA as the one number that they make, the scale of the update; names that
    have no order are in one."""
    from research.models.adapter_rules import LORA
    from research.models.adapters import effective_scale
    from research.runs.identity import what_is_computed

    values = what_is_computed(json.loads(json.dumps(resolved)))
    adapter = values["model"]["init_args"].get("adapter")
    inner = adapter.get("init_args") or {} if isinstance(adapter, dict) else {}
    inner |= {name: sorted(inner[name]) for name in SETS if isinstance(inner.get(name), list)}  # PEFT makes sets of them
    if isinstance(adapter, dict) and adapter.get("class_path") == "peft.LoraConfig":
        inner["scale"] = effective_scale({**inner, "peft_type": LORA})
        inner.pop("lora_alpha"), inner.pop("use_rslora", None)
    return values
