"""Which options tell a study's runs apart, and how settings are called by them."""

from collections.abc import Iterable, Mapping, Sequence

from research.runs.options import SEED, as_key, scaled, short_names
from research.runs.record import RunRecord
from research.runs.table import option_keys
from research.types import Json

KINDS = {
    "LoraConfig": "LoRA",
    "PromptTuningConfig": "prompt tuning",
    "PrefixTuningConfig": "prefix tuning",
    "PromptEncoderConfig": "P-tuning",
}
"""PEFT's classes as papers call the methods."""
ABSENT = as_key(None)  # an option that a run lacks is one without a value


def factors(runs: Iterable[RunRecord]) -> list[str]:
    """List options that differ between the runs, but for the seed, in the order of the first configuration that has each.

    An option that only follows from another kind of class (r of LoRA beside num_virtual_tokens of a prompt) differs too: it
    has a value here and none there.
    """
    runs = [run for run in runs if run.options]
    keys, begun = option_keys(runs), [any(run.made_of) for run in runs]
    complete = keys[begun] if any(begun) else keys  # a point that was never begun has only the options of its sweep
    differ = (complete.fillna(ABSENT).nunique() > 1) | (keys.nunique() > 1)
    return [name for name in keys if differ[name] and name != SEED]


def with_scale(runs: list[RunRecord], names: list[str]) -> tuple[list[RunRecord], list[str]]:
    """Replace LoRA's alpha by alpha / r, where the runs tie the two: the axes of such a sweep are r and the scale.

    Args:
        runs: of a study.
        names: its factors.
    """
    options, names = scaled([run.options for run in runs], names)
    return [run._replace(options=one) for run, one in zip(runs, options, strict=True)], names


# ---- names ----------------------------------------------------------------------------------------------------------


def named(names: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Map each option to its name in tables: the spec's label, else its short name."""
    return {name: labels.get(name, short) for name, short in short_names(names).items()}


def shown(value: Json) -> str:
    """Write a factor's value as a table has it."""
    if isinstance(value, str):
        return KINDS.get(value, value)
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_kind(value: Json) -> bool:
    return isinstance(value, str) and value in KINDS


def distinguishing(firsts: list[RunRecord], factors: Sequence[str]) -> list[str]:
    """Choose few options that tell all settings apart: classes first, then the option that splits most."""
    chosen: list[str] = []
    keys = option_keys(firsts).reindex(columns=list(factors)).fillna(ABSENT)

    def parts(names: list[str]) -> int:
        return len(keys[names].drop_duplicates()) if names else 1

    wanted = parts(list(factors))
    classes = [name for name in factors if any(_is_kind(run.options.get(name)) for run in firsts)]
    chosen += [name for name in classes if parts([*chosen, name]) > max(1, parts(chosen))]
    while parts(chosen) < wanted:
        rest = [name for name in factors if name not in chosen]
        chosen.append(max(rest, key=lambda name: (parts([*chosen, name]), -factors.index(name))))
    return [name for name in factors if name in chosen]


def setting_labels(split: list[list[RunRecord]], chosen: list[str], short: Mapping[str, str]) -> list[str]:
    """Label each setting by its values of the chosen options; no two settings share a label.

    Args:
        split: runs of each setting.
        chosen: options that the label shows.
        short: option → its name in the label.
    """
    between, texts = (", " if any(" " in short[name] for name in chosen) else " "), []
    for runs in split:
        values = []
        for name in chosen:
            value = runs[0].options.get(name)
            if value is None:
                continue
            values.append(shown(value) if name.endswith("adapter") else f"{short[name]}={shown(value)}")
        absent = [f"no {short[name]}" for name in chosen if runs[0].options.get(name) is None]
        texts.append(between.join(values) or ", ".join(absent[:1]) or "all runs")
    for i, label in enumerate(texts):
        if texts.count(label) > 1:  # other data or code
            code = split[i][0].made_of[1][:6] or "not begun"
            texts[i] = f"{label} · {code}" if f"{label} · {code}" not in texts else f"{label} · {split[i][0].name}"
    return texts


def some(names: list[str], most: int = 3) -> str:
    """List the first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
