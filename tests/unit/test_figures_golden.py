"""What the figures of seeded studies show, compared with a file: data, marks, encodings, colours, shapes, sizes and words.

REWRITE_GOLDEN=1 python -m pytest tests/unit/test_figures_golden.py     writes the file anew, to be read in the diff
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tests.unit.test_plots_factors import every_figure

GOLDEN = Path(__file__).parent / "figures.golden.json"
WHOLE = ("grid", "usual")  # studies whose values are in the file; of others their hash


def rounded(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value


def channel(name: str, value: dict) -> str:
    """`x=mean:quantitative↓ val/loss[log]`"""
    if "field" not in value:
        return name
    scale = value.get("scale") or {}
    return f"{name}={value['field']}:{value.get('type', '')} {value.get('title') or ''} [{scale.get('type', '')}]"


def marks(spec: dict) -> list[str]:
    """A line for each layer: its mark and what its channels show; of layers that only differ in looks one."""
    lines = []
    for layer in spec["layer"]:
        channels = {**spec.get("encoding", {}), **layer.get("encoding", {})}
        filters = " ".join(one["filter"] for one in layer.get("transform", ()))
        lines.append(" ".join([layer["mark"]["type"], *sorted(channel(*one) for one in channels.items()), filters]).strip())
    return sorted({*lines})


def scales(spec: dict) -> dict[str, Any]:
    """Names, colours and shapes of categories."""
    found = {}
    for layer in spec["layer"]:
        for name, value in {**spec.get("encoding", {}), **layer.get("encoding", {})}.items():
            if name in ("color", "shape") and value.get("type") == "nominal":
                found[name] = {key: value["scale"][key] for key in ("domain", "range")}
    return found


def meaning(study: str, figure: Any) -> dict[str, Any]:
    rows = figure.spec["data"]["values"]
    names = list(dict.fromkeys(name for row in rows for name in row))
    data: Any = {name: [rounded(row.get(name)) for row in rows] for name in names}
    if study not in WHOLE:
        data = {"rows": len(rows), "sha256": hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]}
    size = {name: figure.spec.get(name) for name in ("width", "height")}
    words = {"title": figure.title, "caption": figure.caption}
    return {
        "study": study,
        "name": figure.name,
        **words,
        **size,
        "marks": marks(figure.spec),
        **scales(figure.spec),
        "data": data,
    }


def test_figures_show_what_they_showed():
    found = [meaning(*one) for one in every_figure()]
    if os.environ.get("REWRITE_GOLDEN"):
        text = ",\n".join(json.dumps(one, ensure_ascii=False) for one in found)
        GOLDEN.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert [(one["study"], one["name"]) for one in found] == [(one["study"], one["name"]) for one in known]
    for one, before in zip(json.loads(json.dumps(found)), known, strict=True):
        assert one == before, (one["study"], one["name"])
