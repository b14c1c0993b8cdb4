"""The paper's figures as a browser measures them: no text covers another, and none leaves its figure."""

import json
import re
import subprocess
from html import unescape

import pytest

from research.report.figures import render
from tests.e2e.test_report_page import CHROMIUM, FLAGS, needs_browser
from tests.unit.test_plots_factors import every_figure
from tests.unit.test_report import A, B, run_folder, stage

PAGE = """<!doctype html><meta charset="utf-8"><title>waiting</title><body>FIGURES<script>
const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
window.onload = () => { document.title = JSON.stringify([...document.querySelectorAll("svg")].map((svg) => ({
  frame: box(svg),
  texts: [...svg.querySelectorAll("text")].filter((t) => t.textContent.trim()).map((t) => [t.textContent, ...box(t)]),
}))); };
</script>"""
SLACK = 1.0  # px: a box is a font's, with room for accents; ink is less


def measure(drawings: list[str], place) -> list[dict]:
    """Frames and texts of each drawing, in px."""
    (place / "figures.html").write_text(PAGE.replace("FIGURES", "\n".join(f"<div>{one}</div>" for one in drawings)))
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={place / 'profile'}",
        "--window-size=1600,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (place / "figures.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert found, done.stderr
    assert found[1] != "waiting", "the page did not load"
    return json.loads(unescape(found[1]))


def clashes(seen: dict) -> list[tuple[str, str]]:
    """Pairs of texts that overlap; a white edge drawn below a text is that text."""
    texts = [(text, box) for text, *box in seen["texts"]]
    distinct = [one for i, one in enumerate(texts) if one not in texts[:i]]
    return [
        (a, b)
        for i, (a, p) in enumerate(distinct)
        for b, q in distinct[:i]
        if min(p[2], q[2]) - max(p[0], q[0]) > SLACK and min(p[3], q[3]) - max(p[1], q[1]) > SLACK
    ]


def outside(seen: dict) -> list[str]:
    left, top, right, bottom = seen["frame"]
    return [
        text
        for text, *box in seen["texts"]
        if box[0] < left - SLACK or box[1] < top - SLACK or box[2] > right + SLACK or box[3] > bottom + SLACK
    ]


@needs_browser
@pytest.mark.skipif(not render.can_draw(), reason="vl-convert-python is not installed")
def test_no_text_covers_another_or_leaves_its_figure(tmp_path):
    figures = every_figure()
    seen = measure([render.svg(figure) for _, figure in figures], tmp_path)
    assert len(seen) == len(figures)
    wrong = {f"{study}/{figure.name}": (clashes(one), outside(one)) for (study, figure), one in zip(figures, seen, strict=True)}
    assert {name: found for name, found in wrong.items() if found != ([], [])} == {}
    assert sum(len(one["texts"]) for one in seen) > 200


@needs_browser
def test_the_measure_sees_texts_that_overlap_or_leave(tmp_path):
    svg = (
        '<svg width="100" height="40" viewBox="0 0 100 40" xmlns="http://www.w3.org/2000/svg"><text x="5" y="20">one</text>'
        '<text x="{}" y="20">two</text></svg>'
    )
    apart, over, out = measure([svg.format(x) for x in (50, 15, 90)], tmp_path)
    assert (clashes(apart), outside(apart)) == ([], [])
    assert clashes(over) == [("two", "one")]
    assert outside(out) == ["two"]


@pytest.mark.skipif(not render.can_draw(), reason="vl-convert-python is not installed")
def test_a_report_of_retrievals_has_its_latency_as_a_file(tmp_path, research):
    """BM25 .5 at .25 ms, dense .875 at 4 ms, and one without a time: two points, both named."""
    stages = {"bm25": stage(A, "BM25", 0.25), "dense": stage(B, "Dense", 4.0), "old": stage(A, "Untimed", None)}
    folder = run_folder(tmp_path / "run", stages)
    files = []
    for _ in range(2):
        assert research("report", folder, "--out", tmp_path / "out").code == 0
        files.append({path.name: path.read_bytes() for path in (tmp_path / "out/figures").iterdir()})
    assert files[0] == files[1]
    names = ("latency", "latency-column")
    assert {*files[0]} == {f"{name}.{ending}" for name in names for ending in ("svg", "pdf", "vl.json")}
    rows = json.loads(files[0]["latency.vl.json"])["data"]["values"]
    assert [(row["label"], row["x"], row["mean"]) for row in rows] == [("BM25", 0.25, 0.5), ("Dense", 4.0, 0.875)]
    text = files[0]["latency.svg"].decode()
    assert ">BM25<" in text
    assert ">Dense<" in text
    assert "Untimed" not in text
    assert files[0]["latency.pdf"].startswith(b"%PDF")
    page = (tmp_path / "out/index.html").read_text()
    assert page.count(">milliseconds a query, log scale<") == 2  # for a wide page, and for a phone
