"""The report page as a browser lays it out: real runs, a headless Chromium, a phone's width."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]  # fmt: skip
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium")

# The page in a frame of the width asked for (a headless window is never narrower than 500 px); what the frame measures
# becomes the outer page's title, which --dump-dom prints.
FRAME = """<!doctype html><title>waiting</title><iframe src="index.html" style="border:0;width:WIDTHpx;height:900px">
</iframe><script>
document.querySelector("iframe").onload = (event) => {
  const page = event.target.contentDocument;
  page.querySelectorAll("details").forEach((details) => { details.open = true; });
  const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const plots = [...page.querySelectorAll("svg.plot")].filter((e) => e.getBoundingClientRect().width > 0);
  document.title = JSON.stringify({
    width: page.documentElement.scrollWidth,
    outside: [...page.querySelectorAll("main *")].filter((e) => !e.closest(".scroll, pre, .cards thead")
      && e.getBoundingClientRect().right > WIDTH + 0.5).map((e) => e.tagName + "." + e.className),
    plots: plots.map((e) => e.classList[1]),
    frame: box(plots[0]),
    labels: [...plots[0].querySelectorAll(".label")].map(box),
    names: [...plots[0].querySelectorAll(".label")].map((e) => e.textContent),
    marks: [...plots[0].querySelectorAll(".mark")].map(box),
    bars: [...plots[0].querySelectorAll(".bar")].map(box),
    font: Math.min(...[...plots[0].querySelectorAll("text")].map((e) => e.getBoundingClientRect().height)),
  });
};
</script>"""


def research(*arguments: object) -> str:
    done = subprocess.run([sys.executable, "-m", "research", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A report on two BM25 runs that differ in k1 only: equal names, and points that nearly coincide."""
    folder = tmp_path_factory.mktemp("report")
    for name, k1 in (("usual", 1.2), ("flat", 0.4)):
        research("retrieve", "--data", "builtin:stdlib", "--split", "dev", "--retriever", "bm25", "--bm25-k1", k1,
                 "--wandb", "disabled", "--out", folder / name)  # fmt: skip
    out = json.loads(research("report", folder / "usual", folder / "flat", "--out", folder / "out", "--json"))
    assert out == {"out": str(folder / "out"), "page": str(folder / "out/index.html"), "rows": 2}
    return folder / "out"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


def browse(folder: Path, width: int, profile: Path) -> tuple[dict, str]:
    """Lay the page out at `width` px; returns the measurements and the browser's stderr (console messages)."""
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={max(width, 500)},1000",
                   "--virtual-time-budget=5000", "--dump-dom",
                   f"http://127.0.0.1:{server.server_port}/frame.html"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    (folder / "frame.html").unlink()
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert found, done.stderr
    assert found[1] != "waiting", "the page did not load"
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")), done.stderr


def meets(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@needs_browser
@pytest.mark.parametrize(("width", "layout"), [(1400, "wide"), (810, "wide"), (390, "narrow"), (320, "narrow")])
def test_nothing_overflows_and_labels_stand_free(report, tmp_path, width, layout):
    seen, console = browse(report, width, tmp_path)
    assert seen["width"] <= width
    assert seen["outside"] == []
    assert seen["plots"] == [layout]
    assert "CONSOLE" not in console
    assert len(seen["labels"]) == len(seen["marks"]) == 2
    left, top, right, bottom = seen["frame"]
    for i, label in enumerate(seen["labels"]):
        assert left <= label[0]
        assert label[2] <= right
        assert top <= label[1]
        assert label[3] <= bottom
        others = seen["labels"][:i] + seen["marks"] + seen["bars"]
        assert not [other for other in others if meets(label, other)], seen["names"][i]
    assert seen["font"] >= 10


@needs_browser
def test_the_check_sees_an_overflow_and_a_console_message(report, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    page = (report / "index.html").read_text(encoding="utf-8")
    page = page.replace("<main>", '<main><script>1</script><p style="width:600px">wide</p>')
    (broken / "index.html").write_text(page, encoding="utf-8")
    seen, console = browse(broken, 390, tmp_path / "profile")
    assert seen["outside"] == ["P."]
    assert seen["width"] > 390
    assert "CONSOLE" in console  # the page's own policy refuses any script


def test_two_settings_of_one_model_are_two_systems_named_after_their_runs(report):
    table = (report / "report.md").read_text(encoding="utf-8")
    assert "| 1 | BM25 · usual |" in table
    assert "| 2 | BM25 · flat |" in table


def test_the_report_does_not_wait_for_torch(report, tmp_path):
    code = ("import sys; from research.cli import main; main(sys.argv[1:]); "
            "print(sorted({'torch', 'transformers', 'lightning', 'datasets'} & sys.modules.keys()))")  # fmt: skip
    command = [sys.executable, "-c", code, "report", str(report.parent / "usual"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
