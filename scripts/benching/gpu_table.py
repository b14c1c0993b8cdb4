"""What gpu_check.sh has measured, as Markdown."""

import json
from pathlib import Path

COLUMNS = ("case", "ours", "peer", "ratio", "share of peak", "GiB", "peer's GiB", "waiting for data", "launches", "syncs")


def table(folder: Path, parts: list[str]) -> str:
    """A line of what was measured where, a row a case, and what is missing with its reason.

    Args:
        parts: in their order.
    """
    files = {name: json.loads((folder / f"{name}.json").read_text()) for name in parts if (folder / f"{name}.json").exists()}
    if not files:
        return f"no GPU yet ({folder} holds no result of scripts/gpu_check.sh)"
    place = next(iter(files.values()))["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in place["packages"].items() if version)
    lines = [
        f"{place.get('card', 'CPU, dry run')}, driver {place.get('driver', '–')}, CUDA {place.get('cuda', '–')}, Python "
        f"{place['python']}; {versions}; commit {(place['git_commit'] or 'unknown')[:7]}."
    ]
    limits = files.get("device", {}).get("cases", {}).get("limits", {})
    if "error" not in limits and limits:
        peaks = [
            f"{name} {limits[f'peak_tflops_{name}']:,.3g} TFLOP/s"
            for name in ("bf16", "fp16", "tf32", "fp32")
            if f"peak_tflops_{name}" in limits
        ]
        lines += ["", f"Fastest products: {', '.join(peaks)}; a copy moves {limits.get('copy_gb_per_second', 0):,.4g} GB/s."]
    tested = [case for case in files.get("tests", {}).get("cases", {}).values() if "passed" in case]
    if tested:
        ended = ", ".join(f"{sum(case[how] for case in tested)} {how}" for how in ("passed", "failed", "skipped"))
        lines += ["", f"Tests on the device: {ended}."]
        lines += [f"- {name}: {why}" for case in tested for name, why in case["reasons"].items()]
    rows = [row for name in ("training", "language") for row in sided(files.get(name))]
    rows += inferred(files.get("inference"))
    if rows:
        lines += ["", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS), *(f"| {' | '.join(row)} |" for row in rows)]
    for name, facts in files.items():
        for case, values in facts["cases"].items():
            if name == "packing":
                gains = {key.removeprefix("gain_"): value for key, value in values.items() if key.startswith("gain_")}
                shown = ", ".join(f"{count}: {gain}x" for count, gain in gains.items())
                lines += ["", f"Trainings at once on one device ({case}): {shown}"]
            if "loss_difference" in values and "sides" not in values:
                lines += ["", f"{case}: {values['loss_difference']}"]
            if "error" in values:
                lines += ["", f"{case}: {values['error']}"]
        lines += [f"- left out, {name}: {case}: {why}" for case, why in facts["left_out"].items()]
    missing = [name for name in parts if not files.get(name, {}).get("done")]
    return "\n".join(lines + ([f"- not done: {', '.join(missing)}"] if missing else []))


def sided(facts: dict | None) -> list[list[str]]:
    """Rows of the cases that sides trained in turns."""
    rows = []
    for case, values in (facts or {"cases": {}})["cases"].items():
        if "sides" not in values:
            continue
        ours, peer = values["sides"].get("ours", {}), values["sides"].get(values["peer"], {})
        rate = "pairs_per_second" if "pairs_per_second" in {**ours, **peer} else "tokens_per_second"
        shown = [speed(side.get(rate), side.get("error")) for side in (ours, peer)]
        shown[1] += f" ({values['peer'] or 'none'})"
        rows.append(
            [
                case,
                *shown,
                text(values.get("ratio")),
                text(ours.get("peak_share")),
                text(ours.get("gib")),
                text(peer.get("gib")),
                text(ours.get("loader_share")),
                text(ours.get("launches")),
                text(ours.get("syncs")),
            ]
        )
    return rows


def inferred(facts: dict | None) -> list[list[str]]:
    """Rows of encoding and reranking."""
    rows = []
    for case, values in (facts or {"cases": {}})["cases"].items():
        if "error" in values:
            continue
        verb, _, precision = case.split()
        unit = "texts" if verb == "encode" else "pairs"
        counted = next((value for name, value in values.items() if name.startswith(f"counts_{verb}")), {})
        rows.append(
            [
                case,
                speed(values[f"{unit}_per_second_{precision}"]),
                speed(values[f"peer_{unit}_per_second_{precision}"]),
                text(values.get(f"ratio_{verb}_{precision}")),
                text(values[f"peak_share_{verb}_{precision}"]),
                text(values.get(f"gib_{verb}_{precision}")),
                text(values.get(f"peer_gib_{verb}_{precision}")),
                text(values.get(f"tokenizing_share_{verb}_{precision}")),
                text(counted.get("launches")),
                text(counted.get("syncs")),
            ]
        )
    return rows


def speed(value: float | None, error: str | None = None) -> str:
    return error or (f"{value:,.0f}/s" if value is not None else "–")


def text(value: object) -> str:
    return "–" if value is None else f"{value:,.3g}" if isinstance(value, float) else str(value)
