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

from tests.unit.test_report_training import fit_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-logging=stderr",
]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium")

# The page in a frame of the width asked for (a headless window is never narrower than 500 px); what the frame measures
# becomes the outer page's title, which --dump-dom prints.
FRAME = """<!doctype html><title>waiting</title><iframe src="index.html" style="border:0;width:WIDTHpx;height:900px">
</iframe><script>
document.querySelector("iframe").onload = (event) => {
  const page = event.target.contentDocument;
  page.querySelectorAll("details").forEach((details) => { details.open = true; });
  const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const plots = [...page.querySelectorAll(".drawn svg")].filter((e) => e.getBoundingClientRect().width > 0);
  document.title = JSON.stringify({
    width: page.documentElement.scrollWidth,
    outside: [...page.querySelectorAll("main *")].filter((e) => !e.closest(".scroll, .lines, pre, .cards thead")
      && e.getBoundingClientRect().right > WIDTH + 0.5).map((e) => e.tagName + "." + e.className),
    plots: plots.map((e) => ({
      layout: e.closest(".drawn").classList[1], frame: box(e),
      texts: [...e.querySelectorAll("text")].filter((t) => t.textContent.trim()).map((t) => [t.textContent, ...box(t)]),
      signs: [...e.querySelectorAll(".mark-symbol.role-mark path")].map(box),
    })),
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
        research(
            "retrieve",
            "--data",
            "builtin:stdlib",
            "--split",
            "dev",
            "--retriever",
            "bm25",
            "--bm25-k1",
            k1,
            "--wandb",
            "disabled",
            "--out",
            folder / name,
        )
    out = json.loads(research("report", folder / "usual", folder / "flat", "--out", folder / "out", "--json"))
    assert out == {"out": str(folder / "out"), "page": str(folder / "out/index.html"), "rows": 2, "trainings": 0}
    return folder / "out"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


def browse(folder: Path, width: int, profile: Path) -> tuple[dict, str]:
    """Lay the page out at `width` px; returns the measurements and the browser's stderr (console messages)."""
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={max(width, 500)},1000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            f"http://127.0.0.1:{server.server_port}/frame.html",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    (folder / "frame.html").unlink()
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert found, done.stderr
    assert found[1] != "waiting", "the page did not load"
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")), done.stderr


def meets(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.sample(1)
@needs_browser
@pytest.mark.parametrize(("width", "layout"), [(1400, "wide"), (810, "wide"), (390, "narrow"), (320, "narrow")])
def test_nothing_overflows_and_labels_stand_free(report, tmp_path, width, layout):
    seen, console = browse(report, width, tmp_path)
    assert seen["width"] <= width
    assert seen["outside"] == []
    assert [plot["layout"] for plot in seen["plots"]] == [layout]
    assert "CONSOLE" not in console
    (plot,) = seen["plots"]
    assert len(plot["signs"]) == 2
    assert {"BM25 · usual", "BM25 · flat"} <= {text for text, *_ in plot["texts"]}
    stand_free(plot)


def stand_free(plot: dict) -> None:
    """Texts are legible, none leaves its figure, covers another, or lies on a sign."""
    left, top, right, bottom = plot["frame"]
    for i, (text, *box) in enumerate(plot["texts"]):
        assert left - 1 <= box[0] < box[2] <= right + 1, text
        assert top - 1 <= box[1] < box[3] <= bottom + 1, text
        assert box[3] - box[1] > 9.9, text  # 10, as single precision has it at this place of the page
        assert not [other for other, *place in plot["texts"][:i] if meets(box, place)], text
        assert not [sign for sign in plot["signs"] if meets(box, sign)], text


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_bert) -> Path:
    """A page of a real training of four steps, and of others by hand: a long one, a harmful one, a young one."""
    folder = tmp_path_factory.mktemp("trained")
    config = {
        "out": str(folder / "real"),
        "wandb": "disabled",
        "model": {
            "class_path": "research.training.dual_encoder.DualEncoderModule",
            "init_args": {"model": str(tiny_bert), "query_max_length": 16, "doc_max_length": 16},
        },
        "data": {
            "class_path": "research.data.pairs.PairData",
            "init_args": {"train": "builtin:stdlib", "batch_size": 8, "limit": 32},
        },
        "trainer": {"max_steps": 4, "accelerator": "cpu", "devices": 1, "val_check_interval": 2},
    }
    (folder / "tiny.yaml").write_text(json.dumps(config))  # JSON is YAML
    research("fit", "-c", folder / "tiny.yaml")
    long, falling = {50 * i: 0.7 - 0.6 * 0.9**i for i in range(41)}, [20 / (1 + i) for i in range(2000)]
    paths = [
        folder / "real",
        fit_folder(folder / "long_name_without_any_space_that_goes_on_and_on_and_on", falling, long),
        fit_folder(folder / "harm", [0.5, 0.4, 0.6, 0.2], {0: 0.7, 1: 0.6, 2: 0.62, 3: 0.55, 4: 0.5}),
        fit_folder(folder / "flat", [12345.0], {0: 0.7, 1: 0.7}),
        fit_folder(folder / "young", [0.5, 0.4], {0: 0.7}, finished=False),
        fit_folder(folder / "blind", [0.5, 0.4], {}),
    ]
    research("report", *paths, "--out", folder / "out")
    return folder / "out"


@pytest.mark.sample(1)
@needs_browser
@pytest.mark.parametrize("width", [1400, 810, 390, 320])
def test_trainings_figures_are_legible_and_nothing_in_them_overlaps(trained, tmp_path, width):
    seen, console = browse(trained, width, tmp_path)
    assert seen["width"] <= width
    assert seen["outside"] == []
    assert "CONSOLE" not in console
    assert [plot["layout"] for plot in seen["plots"]] == ["curve"] * 11  # two each, one of what was not validated
    for plot in seen["plots"]:
        stand_free(plot)
    labels = [text for plot in seen["plots"] for text, *_ in plot["texts"]]
    assert {"best .6911", "untrained .1000", "best .6200", "untrained .7000"} <= {*labels}  # .7 − .6 · .9^40 = .6911


def test_a_real_training_is_told_as_its_folder_has_it(trained):
    metrics = json.loads((trained.parent / "real/metrics.json").read_text())
    (first, *_) = json.loads((trained / "report.json").read_text())["trainings"]
    assert (first["best"], first["step"]) == (metrics["metrics"]["mrr@10"], metrics["step"])
    assert first["untrained"] == pytest.approx(metrics["untrained"]["mrr@10"], abs=1e-9)
    page = (trained / "index.html").read_text(encoding="utf-8")
    assert "on builtin:stdlib train, 32 examples\u00a0· 4 steps of 8 examples" in page
    assert "temperature .05\u00a0· seed 0" in page


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
    code = (
        "import sys; from research.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers', 'lightning', 'datasets'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "report", str(report.parent / "usual"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
