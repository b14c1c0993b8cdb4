"""Tables as LaTeX: they fit a page of article, whatever is in them, and two reports can stand in one paper."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from research.report import latex, study_sheets
from research.report.claims import check, parse
from research.report.claims import sheet as claims_sheet
from research.report.export import write_sheets
from research.report.factor_sheets import by_factor, factorial, shares
from research.report.factors import factors, with_scale
from research.report.groups import make_study
from research.report.importance import importance
from research.report.sheets import Cell, Sheet
from tests.unit.test_study import grid

METRICS = ("perplexity", "token_accuracy", "exact_match", "token_f1", "rouge_l", "other_loss", "seconds_per_step")
# says how wide each table is before it is shrunk
PREAMBLE = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\newlength{\naturally}\let\shrunk\resizebox
\renewcommand{\resizebox}[3]{\settowidth{\naturally}{#3}\typeout{NATURAL \the\naturally}\shrunk{#1}{#2}{#3}}
\begin{document}
"""
LINE = 345.0  # pt, of article
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")


def typeset(sheets: list[Sheet], place: Path, prefix: str = "s") -> tuple[str, list[float]]:
    """The log, and the natural width of every table."""
    body = "\n\n".join(latex.render(sheet, prefix) for sheet in sheets)
    (place / "t.tex").write_text(f"{PREAMBLE}{body}\n\\end{{document}}\n", encoding="utf-8")
    for _ in range(2):  # the second knows the labels
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
            cwd=place,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:]
    log = (place / "t.log").read_text(errors="replace")
    return log, [float(one) for one in re.findall(r"NATURAL ([\d.]+)pt", log)]


def overfull(log: str) -> list[str]:
    """Boxes that leave the line, and floats that leave the page, by more than a point."""
    found = re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)[^\n]*", log)
    return [one for one in found if float(one) > 1] + re.findall(r"Float too large[^\n]*", log)


def sheets() -> list[Sheet]:
    runs = [
        one._replace(name=f"a922b27080325d{i:02}", metrics=one.metrics | {f"val/{name}": 1000.5 + i for name in METRICS})
        for i, one in enumerate(grid())
    ]
    runs, names = with_scale(runs, factors(runs))
    found = make_study(runs, "val/loss", names)
    text = "r=8 and lora_alpha/r=2 beats r=4 and lora_alpha/r=1 on val/loss by .01, p < .01"
    claims = [parse(one, "val/loss", "f") for one in (text, "r=8 is equivalent to r=4 within .005")]
    made = [
        study_sheets.results(found),
        study_sheets.grid(found),
        *(by_factor(found, one) for one in names),
        factorial(found),
        shares(importance(found), "val/loss"),
        claims_sheet(check(claims, {"val/loss": found})),
        study_sheets.every_run(found),
    ]
    return [one for one in made if one is not None]


def wide(rows: int, columns: int) -> Sheet:
    heads = ["run", *(f"val/metric_{i}" for i in range(columns))]
    body = [[Cell(f"a922b27080325d{i:03}"), *(Cell(f"{i}.1234 ± 0.1234", rank=1) for _ in range(columns))] for i in range(rows)]
    return Sheet("runs", "Every run", heads, body, ["One note. " * 40], 1)


@needs_latex
def test_every_sheet_of_a_study_fits_the_line_and_stays_legible(tmp_path):
    made = sheets()
    log, widths = typeset(made, tmp_path)
    assert overfull(log) == []
    assert len(widths) == len(made) == 8
    assert max(widths) <= LINE / 0.6


@needs_latex
@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (3, 14), (36, 2), (120, 9)])
def test_many_columns_are_broken_into_blocks_and_many_rows_into_tables(rows, columns, tmp_path):
    sheet = wide(rows, columns)
    log, widths = typeset([sheet], tmp_path)
    assert overfull(log) == []
    assert max(widths) <= LINE / 0.6
    text = latex.render(sheet)
    for i in range(rows):  # every row, once in each block
        assert text.count(f"a922b27080325d{i:03}") == text.count("a922b27080325d000")
    assert text.count(r"\label") == 1
    assert text.count("One note.") == 40


@needs_latex
def test_sentences_and_long_names_wrap_and_do_not_shrink_the_table(tmp_path):
    name = "checkpoints/" + "a" * 64 + "/lora_target_modules=[q_proj,k_proj,v_proj,o_proj,gate_proj]"
    row = [Cell(name), Cell("failed"), Cell("CUDA out of memory. Tried to allocate 2.00 GiB. " * 6)]
    sheet = Sheet(
        "runs",
        f"Runs of {name}",
        ["run", "state", "error"],
        [row, [Cell("[q]"), Cell("done"), Cell("–")]],
        [f"Difference from {name}."],
        3,
    )
    log, (width,) = typeset([sheet], tmp_path)
    assert overfull(log) == []
    assert width <= LINE + 1


def test_a_table_that_fits_is_left_as_it_is():
    text = latex.render(Sheet("grid", "Grid", ["r", "loss"], [[Cell("4"), Cell("1.5")]], []))
    assert text.splitlines()[0] == r"% needs \usepackage{booktabs,graphicx}"
    assert r"\begin{tabular}{lr}" in text
    assert r"p{" not in text


def test_long_words_may_break_after_a_sign_and_no_number_does():
    sheet = Sheet("grid", "lora_dropout=0.15,lr=1", ["r"], [[Cell("4")]], ["short=0.1"])
    text = latex.render(sheet).replace(r"\allowbreak{}", "~")
    assert r"\caption{lora\_~dropout=~0.15,lr=~1}" in text.replace(",~", ",")
    assert "short=0.1" in text


@needs_latex
def test_two_reports_in_one_paper_have_labels_of_their_own(tmp_path):
    sheet = Sheet("by_r", "Title", ["r", "loss"], [[Cell("4"), Cell("1.5")]], [])
    texts = []
    for title in ("lora_r_alpha-quick", "Another: study, of é"):
        write_sheets(tmp_path / title, [sheet], title)
        texts.append((tmp_path / title / "tables/by-r.tex").read_text())
    assert [re.findall(r"\\label\{(.*)\}", text) for text in texts] == [
        ["tab:lora-r-alpha-quick-by-r"],
        ["tab:another-study-of-by-r"],
    ]
    body = PREAMBLE + "\n".join(texts) + r"\end{document}"
    (tmp_path / "t.tex").write_text(body, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert b"multiply defined" not in done.stdout
