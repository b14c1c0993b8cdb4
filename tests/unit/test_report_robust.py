"""Reports of what people bring: names with control characters, formulas, Chinese, configurations without a bottom."""

import csv
import io
import json
import re
import shutil
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import UserError
from research.report import latex
from research.report.export import as_csv, inert, write_tidy
from research.report.factors import factors
from research.report.figures import of_study
from research.report.figures.render import can_draw, svg
from research.report.groups import make_study
from research.report.importance import importance
from research.report.sheets import Cell, Sheet
from research.runs.printable import LACKING, is_deep, printable, printed
from research.runs.table import read_runs
from tests.synthetic_runs import write_study
from tests.unit.test_study import grid

NAUGHTY = [
    "\u202eder",
    "a\u200bb",
    "\x1b[31mred",
    "\x07",
    "a\x00b",
    "\uffff",
    "a\u2028b",
    "a\u2029b",
    "\x85",
    "\ud800",
    "=1+1",
    "中文",
    "文中",
]


def deep(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@given(st.text(st.characters(exclude_categories=[])), st.text(st.characters(exclude_categories=[])))
@settings(derandomize=True, max_examples=200, deadline=None, database=None)
def test_printable_text_is_xml_utf_8_and_tells_apart(a, b):
    import xml.etree.ElementTree as tree

    assert printable(printable(a)) == printable(a)
    tree.fromstring(f"<a>{printable(a).replace('&', '').replace('<', '')}</a>".encode())
    assert (printable(a) == a) == (not LACKING.search(a))
    if not {"\\"} & {*a, *b}:
        assert (printable(a) == printable(b)) == (a == b)


@pytest.mark.skipif(not can_draw(), reason="vl-convert-python is not installed")
def test_figures_of_names_with_control_characters_are_drawn():
    """They ended the process, by SIGABRT; a line separator in a heatmap's factor ended in a traceback."""
    import xml.etree.ElementTree as tree

    runs = [
        one._replace(
            options=one.options | {"model.adapter.r": NAUGHTY[2 + i % 5], "data.limit": NAUGHTY[7 + i % 3]},
            name=f"{one.name}\x1b{i}",
        )
        for i, one in enumerate(grid())
    ]
    found = make_study(runs, "val/loss", factors(runs))
    drawn = of_study(found, lambda run: [], importance(found))
    assert drawn
    for figure in drawn:
        text = svg(figure)
        tree.fromstring(text)
        assert not LACKING.search(text)
    assert any("\\x1b" in svg(figure) for figure in drawn)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+A1", "'+A1"),
        ("-A1", "'-A1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("\t=1", "'\t=1"),
        ("＝1+1", "'＝1+1"),
        ("\u200b=1", "'\u200b=1"),
        ("-1.5", "-1.5"),
        ("+3e-4", "+3e-4"),
        (-1.5, -1.5),
        (True, True),
        ("a=b", "a=b"),
        ("", ""),
        ("\r=1", "'\n=1"),
        ("a\rb", "a\nb"),
    ],
)
def test_no_cell_of_a_csv_is_a_formula(value, expected, tmp_path):
    assert inert(value) == expected
    sheet = Sheet("s", "t", ["=head", "n"], [[Cell("x", value), Cell("1", 1)]], [])
    first, row = csv.reader(io.StringIO(as_csv(sheet), newline=""))
    assert first == ["'=head", "n"]
    assert row == [str(expected), "1"]


def test_the_tidy_table_has_no_formula_either(tmp_path):
    link = '=HYPERLINK("http://x","y")'
    runs = [one._replace(name=link, error="@x", options=one.options | {"model.model": link, "+o": "-1"}) for one in grid()[:2]]
    write_tidy(tmp_path, runs)
    with open(tmp_path / "runs.csv", newline="") as stream:
        first = next(csv.DictReader(stream))
    assert first["run"] == first["option.model.model"] == "'" + link
    assert (first["error"], first["option.+o"]) == ("'@x", "-1")


# letters and signs that OT1 and TS1 have, in LaTeX since 2020
KNOWN = {*map(chr, range(0x20, 0x7F)), *map(chr, range(0xA1, 0x100))} - {*"þÞðÐ«»\xad"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(derandomize=True, max_examples=300, deadline=None, database=None)
def test_latex_holds_nothing_that_pdflatex_has_no_glyph_for(text):
    assert {*latex.escape(text)} <= KNOWN


def test_latex_tells_labels_apart_that_it_has_no_letters_for():
    names = ["中文", "文中", "ключ", "plain", "ð", "dh", "caf\u00e9", unicodedata.normalize("NFD", "naïve"), "a\x1bb", "a\x00b"]
    sheet = Sheet("s", "t", ["name", "n"], [[Cell(name), Cell("1")] for name in names], [])
    text = latex.render(sheet)
    rows = re.findall(r"^(.*) & 1 \\\\$", text, re.M)
    assert len({*rows}) == len(names)
    assert rows[0] == "U+4E2DU+6587"
    assert "????" in rows  # alone of its kind: as before
    assert {"plain", "dh", "café", "naïve"} <= {*rows}


@pytest.mark.parametrize("levels", [150, 5_000])
def test_a_nested_configuration_costs_its_own_run_alone(levels, tmp_path):
    from research.runs.wandb.log import read_log
    from research.runs.wandb.records import read_wandb
    from tests.wandb_log import run_records, write_log

    rows = [{"_step": step, "loss": 3.0 - step} for step in range(3)]
    text = '{"a":' * levels + "1" + "}" * levels
    for name in ("good", "bad"):
        records = run_records(name, {"lr": 0.1}, rows)
        if name == "bad":
            for record in records:
                for item in record.run.config.update if record.WhichOneof("record_type") == "run" else record.config.update:
                    item.value_json = text
        write_log(tmp_path / f"run-{name}.wandb", records)
    assert "JSON" in read_log(tmp_path / "run-bad.wandb").damage
    states = {run.point: (run.state, run.options) for run in read_wandb([tmp_path])}
    assert states["good"] == ("done", {"lr": 0.1})
    assert states["bad"] == ("half-written", {})


def test_what_is_deep():
    assert not is_deep(deep(90))
    assert is_deep(deep(150))
    assert is_deep(json.loads("[" * 150 + "]" * 150))
    assert not is_deep("x")
    assert printed({"a\x1b": ["b\x00", 1, {"c": "\u2028"}]}) == {"a\\x1b": ["b\\x00", 1, {"c": "\\u2028"}]}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A study of four settings, three seeds each."""
    folder = tmp_path_factory.mktemp("brought") / "s"
    write_study(folder, points=12, outputs=2)
    return folder


def damaged(study_folder, tmp_path, **files):
    """A copy of a study whose first runs have other files: name → what becomes of its JSON, or its new text."""
    shutil.copytree(study_folder, tmp_path / "s")
    runs = sorted(path.parent for path in (tmp_path / "s").glob("*/metrics.json"))
    for run, (name, change) in zip(runs, files.items(), strict=False):
        path = run / name.replace("_", ".")
        path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    return tmp_path / "s", runs


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("metrics_json", {"metrics": {"loss": 10**400}}, "metrics.loss is 1000"),
        ("metrics_json", {"answers": {"0": "x"}}, 'answers.0 is "x"'),
        ("metrics_json", {"answers": {"0": {"prompt": ["x"]}}}, "answers.0 is {"),
        ("provenance_json", {"fingerprint": [3]}, "fingerprint is"),
        ("provenance_json", {"earlier_fingerprints": "abc"}, 'earlier_fingerprints is "abc"'),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_name(name, change, says, synthetic, tmp_path):
    folder, runs = damaged(synthetic, tmp_path, **{name: change})
    with pytest.raises(UserError) as error:
        read_runs([folder])
    assert str(runs[0] / name.replace("_", ".")) in str(error.value)
    assert says in str(error.value)
    assert "Make the run again, or leave it out" in str(error.value)


def test_a_report_of_odd_files_is_made(synthetic, tmp_path, research):
    """Sets and lists where mappings stand, a ledger's line of other types, a title that is written from right to left."""
    config = next(synthetic.glob("*/config.yaml")).read_text()
    folder, runs = damaged(
        synthetic,
        tmp_path,
        metrics_json={"trained": None},
        config_yaml=(
            config.replace("workers: 0", "workers: 0\n    odd: !!set {a, b}\n    day: [2026-01-01, {at: 2026-01-01}]")
        ),
        provenance_json={"earlier_fingerprints": None},
    )
    (runs[3] / "config.yaml").write_text("model: {class_path: x, init_args: [1]}\nseed_everything: 7\n")
    (folder / "sweep.json").write_text("[1]")
    (runs[4] / "metrics.json").unlink()
    with open(folder / "ledger.jsonl", "a") as stream:
        stream.write(f'{{"point": "{runs[4].name}", "state": ["x"], "error": {{}}}}\n{{"point": ["x"], "state": "done"}}\n')
    (tmp_path / "spec.yaml").write_text('title: "a\\u202eb\\u200bc"\n')
    result = research("report", folder, "--out", tmp_path / "out", "--spec", tmp_path / "spec.yaml", "--json")
    assert result.code == 0, result.err
    assert not LACKING.search((tmp_path / "out" / "report.md").read_text())
    assert "a\\\\u202eb\\\\u200bc" in (tmp_path / "out" / "report.md").read_text()
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text(), newline="")))) == 12


def test_a_link_to_itself_is_named(synthetic, tmp_path, research):
    shutil.copytree(synthetic, tmp_path / "s")
    run = next((tmp_path / "s").glob("*/metrics.json")).parent
    shutil.rmtree(run)
    run.symlink_to(run.name)
    result = research("report", tmp_path / "s", "--out", tmp_path / "out")
    assert (result.code, "Traceback" in result.err) == (2, False)
    assert run.name in result.err
    run.unlink()  # the cure: the point counts as missing
    assert [one.state for one in read_runs([tmp_path / "s"]) if one.point == run.name] == ["missing"]


@pytest.mark.parametrize("value", [1e308, -1e308, 1e200, float("inf"), float("nan")])
def test_a_value_without_a_finite_square_is_in_no_mean(value):
    runs = grid()
    runs[0] = runs[0]._replace(metrics={"val/loss": value})
    found = make_study(runs, "val/loss", factors(runs))
    assert value not in [one for group in found.groups for one in group.values.values()]
    assert sum(len(group.values) for group in found.groups) == len(runs) - 1
