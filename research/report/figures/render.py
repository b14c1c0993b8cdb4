"""Vega-Lite specifications → SVG and PDF, the same bytes each time, without a browser and without a network."""

import importlib.util
import json
import re
from pathlib import Path

from research.report.figures.theme import Figure
from research.report.sheets import slug
from research.runs.files import atomic_write
from research.runs.printable import printed

MISSING = "no figures: vl-convert-python is not installed (pip install 'tandem-research[report]')"
VERSION = "6.4"  # of Vega-Lite: the newest that vl-convert carries, and what Altair 6 writes


def can_draw() -> bool:
    """Return whether what writes and what draws figures is installed."""
    return all(importlib.util.find_spec(name) for name in ("vl_convert", "altair"))


def svg(figure: Figure) -> str:
    """Draw the figure as SVG; ids that the renderer counts up from call to call are counted from 0, with the figure's name."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(printed(figure.spec), vl_version=VERSION)
    ids = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)))
    for i, old_id in enumerate(ids):
        text = re.sub(rf'(id="|#){re.escape(old_id)}\b', rf"\g<1>{slug(figure.name)}-{i}", text)
    return text


def pdf(drawing: str) -> bytes:
    """Convert an SVG to PDF, without the time of its making."""
    import vl_convert

    content = vl_convert.svg_to_pdf(drawing)
    # entries of a dictionary come in any order; sorted they take as many bytes, so that the table of offsets stays right
    content = re.sub(
        rb"(?:^ +/\w+ \d+ 0 R\n){2,}", lambda match: b"".join(sorted(match[0].splitlines(True))), content, flags=re.M
    )
    content = re.sub(rb"(/(?:CreationDate|ModDate) ?\(D:)\d{14}", rb"\g<1>20000101000000", content)
    # of the same length: the table at the end counts bytes
    return re.sub(rb"(/ID ?\[)(.*?)\]", lambda match: match[1] + b"<00><00>".ljust(len(match[2])) + b"]", content, flags=re.S)


def png(drawing: str) -> bytes:
    """Convert an SVG to PNG, twice as large: for screens."""
    import vl_convert

    return vl_convert.svg_to_png(drawing, scale=2)


def write_figures(out: Path, drawn: list[tuple[Figure, str]]) -> None:
    """Write figures/NAME.svg, .pdf and .vl.json, of figures and their SVG."""
    for figure, drawing in drawn:
        path = out / "figures" / slug(figure.name)
        with atomic_write(path.with_suffix(".svg")) as stream:
            stream.write(drawing)
        with atomic_write(path.with_suffix(".pdf"), "wb") as stream:
            stream.write(pdf(drawing))
        with atomic_write(path.with_suffix(".vl.json")) as stream:
            json.dump(printed(figure.spec), stream, indent=1, ensure_ascii=False)
