"""What a training computes, as one name: the same configuration on the same data and base model has the same point id.

The id is the hash of the resolved configuration, the base model's hash and the data's facts, in a form that stays:

- an option at its default is no part of it. The options in known_options.json were there before this rule: they are always
  spelled, so that earlier ids stay. A default that changes is then named (SINCE keeps the first one);
- what says how a thing is computed (devices at an equal global batch, the faster parts of a CPU, chunks) has one spelling;
- where things lie is left out: the hashes of what is there stand in.

`ids_of` also gives the names by which earlier versions knew the same point: what was done under one of them is done.
"""

from research.runs.changes import COUNTED, has_router_loss
from research.runs.defaults import spelled
from research.runs.hashes import hash_json
from research.runs.spelling import BATCH, how, one_spelling, value_at, without
from research.types import Json

PLACE = "{point}"  # in --out: becomes the point id
LENGTH = 16  # hexadecimal digits
PATHS = (
    "model.init_args.model",
    "data.init_args.train",
    "data.init_args.val",
    "data.init_args.test",
    "data.init_args.other",
    "data.init_args.val_run",
    "data.init_args.test_run",
    "data.init_args.corpus_file",
    "data.init_args.queries_file",
    "trainer.default_root_dir",
)
"""Options that are paths: an id has the hash of the content instead."""
KNOWN_FACTS = ("train", "queries", "examples", "pairs", "val", "test", "other", "val_run", "test_run")
"""Facts of data that are always part of an id; other facts only where they are not empty."""


def ids_of(resolved: dict, base_hash: str, data: dict) -> tuple[str, ...]:
    """Compute the point id of a training, and after it the ids that earlier versions gave it.

    Args:
        resolved: the configuration with every default.
        base_hash: of the model that is trained.
        data: the DataModule's describe(): fingerprints and counts of what is read.
    """
    before = without(spelled(resolved, everything=True), (*how(resolved), *PATHS))
    trainer = before.get("trainer")
    typed = [before | {"trainer": variant} for variant in _as_typed(trainer)] if isinstance(trainer, dict) else [before]
    documented = without(one_spelling(spelled(resolved), {}, _are_free(resolved)), (*how(resolved), *PATHS))  # as typed once
    forms = (what_is_computed(resolved), documented, *typed)
    facts = known_facts(data)
    uncounted = {name: value for name, value in facts.items() if name not in COUNTED}  # as before each was counted
    ids = (hash_json([form, base_hash, variant])[:LENGTH] for variant in (facts, uncounted) for form in forms)
    return tuple(dict.fromkeys(ids))


def _as_typed(trainer: dict) -> list[dict]:
    """Return the trainer section now, and with devices and precision in the forms that earlier ids had for typed values."""
    devices, precision = trainer.get("devices"), trainer.get("precision")
    bits = str(precision).removesuffix("-true")
    counts = [devices, str(devices)] if isinstance(devices, int) else [devices]
    widths = [precision, int(bits), bits] if bits in ("32", "64") else [precision]
    return [trainer | {"devices": count, "precision": width} for count in counts for width in widths]


def what_is_computed(resolved: dict) -> dict:
    """Return a configuration without what says where or how, and without options at their defaults."""
    return without(one_spelling(spelled(resolved), processes=_are_free(resolved)), (*how(resolved), *PATHS))


def _are_free(resolved: dict) -> bool:
    """Return whether any number of processes that share a batch computes the same; a router's loss is of one process."""
    return not has_router_loss(resolved)


def differences(a: dict, b: dict) -> dict[str, tuple]:
    """Map dotted names to (value in a, value in b), where two configurations differ in what is computed; in PATHS too."""
    changed = _differences(*(without(one_spelling(spelled(config)), how(config)) for config in (a, b)))
    if BATCH in changed:  # of all processes together: named is what the user has changed
        typed = {
            name: tuple(value_at(config, name) for config in (a, b)) for name in (BATCH, "trainer.devices", "trainer.num_nodes")
        }
        changed = {name: pair for name, pair in changed.items() if name != BATCH} | {
            name: pair for name, pair in typed.items() if pair[0] != pair[1]
        }
    return changed


def _differences(a: Json, b: Json, name: str = "") -> dict[str, tuple]:
    if isinstance(a, dict) and isinstance(b, dict):
        changed = {}
        for key in sorted({*a, *b}):
            changed |= _differences(a.get(key), b.get(key), f"{name}{key}.")
        return changed
    return {} if a == b else {name.rstrip("."): (a, b)}


def known_facts(data: dict) -> dict:
    """Return the data's facts without later ones that are empty."""
    return {name: value for name, value in data.items() if name in KNOWN_FACTS or value}
