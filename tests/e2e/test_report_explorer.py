"""The page's explorer in a browser: what it shows is what the runs hold, by mouse, by keyboard and by link."""

import csv
import itertools
import json
import re
import statistics
from pathlib import Path

import pytest

from research.cli import main
from tests.e2e.browsing import Page, browser, needs_browser
from tests.synthetic_runs import write_study

pytestmark = needs_browser
EVIL = "</script><img src=x onerror=\"document.title='taken'\"><!--"


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A report of 60 points with outputs, of which one is missing, some failed or were pruned; one holds hostile text."""
    place = tmp_path_factory.mktemp("explored")
    write_study(place / "sweep", 60, outputs=30)
    done = [path for path in sorted((place / "sweep").iterdir()) if (path / "metrics.json").is_file()]
    for path in done[:20]:
        found = json.loads((path / "metrics.json").read_text())
        found["answers"]["3"] = {"prompt": EVIL, "reference": EVIL, "answer": f"{path.name} {EVIL}"}
        (path / "metrics.json").write_text(json.dumps(found))
    assert main(["report", str(place / "sweep"), "--out", str(place / "out")]) == 0
    return place / "out"


@pytest.fixture(scope="module")
def tidy(study) -> list[dict[str, str]]:
    return list(csv.DictReader((study / "runs.csv").read_text().splitlines()))


@pytest.fixture
def page(chromium, study):
    opened = Page(chromium, study / "index.html")
    yield opened
    assert opened.said == []  # no error, no warning
    assert all(url.startswith(("file://", "data:")) for url in opened.asked), opened.asked
    opened.close()


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def test_the_table_holds_every_run(page, tidy):
    assert page.status() == "60 of 60 runs"
    assert page.column("run") == [row["run"] for row in tidy]
    assert page.column("state") == [row["state"] for row in tidy]
    for text, row in zip(page.column("val/loss"), tidy, strict=True):
        assert text == ("–" if not row["val/loss"] else f"{float(row['val/loss']):.4f}")


@pytest.mark.parametrize(
    ("text", "meets"),
    [
        ("state=failed", lambda row: row["state"] == "failed"),
        ("state!=done", lambda row: row["state"] != "done"),
        ("r=4 val/loss<3", lambda row: row["option.model.adapter.r"] == "4" and row["val/loss"] and float(row["val/loss"]) < 3),
        ("seed>=1 lr<=0.0002", lambda row: row["seed"] in "12" and float(row["option.model.optimisation.lr"]) <= 2e-4),
        ("error~memory", lambda row: "memory" in row["error"]),
        ("pruned", lambda row: row["state"] == "pruned"),
    ],
)
def test_a_filter_keeps_the_runs_that_meet_it(page, tidy, text, meets):
    expected = [row["run"] for row in tidy if meets(row)]
    assert 0 < len(expected) < 60
    assert page.filter(text) == f"{len(expected)} of 60 runs"
    assert page.column("run") == expected


@pytest.mark.parametrize(
    ("text", "says"), [("ranks=4", "No column ranks"), ("r=four", "r holds numbers; four is none"), ("r=", "r= needs a value")]
)
def test_a_wrong_filter_says_so_and_hides_nothing(page, text, says):
    assert says in page.filter(text)
    assert len(page.lines()) == 60
    assert page.locator("#explorer-filter").get_attribute("aria-invalid") == "true"


def test_sorting_puts_the_best_first_and_the_unfinished_last(page, tidy):
    values = sorted(float(row["val/loss"]) for row in tidy if row["val/loss"])
    missing = ["–"] * (60 - len(values))
    head = page.locator('[data-sort="val/loss"]')
    head.focus()
    for order, state in ((values, "ascending"), (values[::-1], "descending")):
        page.keyboard.press("Enter")
        assert page.column("val/loss") == [f"{value:.4f}" for value in order] + missing
        assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == state
    page.keyboard.press("Enter")
    assert page.column("run") == [row["run"] for row in tidy]
    head = page.locator('[data-sort="val/token_accuracy"]')  # of which the highest is the best
    head.click()
    shown = [number(text) for text in page.column("val/token_accuracy") if text != "–"]
    assert shown == sorted(shown, reverse=True)


def test_groups_are_means_over_their_finished_runs(page, tidy):
    page.get_by_role("button", name="Group over seeds").click()
    settings: dict[tuple, list[dict]] = {}
    for row in tidy:
        key = tuple(
            row[f"option.model.{name}"]
            for name in ("adapter.r", "adapter.lora_alpha/r", "adapter.lora_dropout", "optimisation.lr")
        )
        settings.setdefault(key, []).append(row)
    assert page.status() == f"60 of 60 runs in {len(settings)} groups"
    for text, rows in zip(page.column("val/loss"), settings.values(), strict=True):
        values = [float(row["val/loss"]) for row in rows if row["val/loss"]]
        found = re.fullmatch(r"([\d.]+) ± ([\d.]+)( \(\d\))?", text)
        assert number(found[1]) == pytest.approx(statistics.mean(values), abs=6e-5)
        assert number(found[2]) == pytest.approx(statistics.stdev(values), abs=6e-5)
        assert (found[3] or "").strip(" ()") == (str(len(values)) if len(values) < len(rows) else "")
    first = page.locator(".group button").first
    first.click()
    assert page.locator(".group button").first.get_attribute("aria-expanded") == "true"
    assert page.locator(".within").count() == 3


def test_the_chart_has_a_sign_for_each_run_with_values(page, tidy):
    done = [row for row in tidy if row["val/loss"]]
    signs = page.locator("#explorer-chart .mark-symbol.role-mark path")
    assert signs.count() == len(done)
    note = page.locator("#explorer-chart-note").inner_text()
    assert f"{60 - len(done)} without a value above 0 are not drawn" in note
    page.select_option("#axis-x", "seconds")
    page.select_option("#axis-y", "val/rouge_l")
    page.select_option("#axis-colour", "")
    page.wait_for_selector("#explorer-chart[aria-label^='val/rouge_l against seconds']")
    assert page.locator("#explorer-chart .role-legend").count() == 0
    page.locator("#explorer-chart .mark-symbol.role-mark path").last.click()  # that lies on top
    assert page.locator("#explorer-run h3").get_attribute("title") in {row["run"] for row in done}


def test_a_pointer_wakes_the_paper_s_figures(page):
    figures = page.locator("[data-figure]")
    assert figures.count() >= 3
    for i in range(figures.count()):
        texts = figures.nth(i).locator("svg text").all_text_contents()
        figures.nth(i).hover()
        page.wait_for_function(f"document.querySelectorAll('[data-figure]')[{i}].querySelector('.vega-embed')")
        assert sorted(figures.nth(i).locator("svg text").all_text_contents()) == sorted(texts)  # the same drawing
    figure = page.locator("[data-figure='parameters'] .at-wide")
    sign = figure.locator(".mark-symbol.role-mark path").last
    sign.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "label" in page.locator("#vg-tooltip-element").inner_text()


def test_a_run_opens_with_its_options_values_curve_and_provenance(page, study, tidy):
    row = next(row for row in tidy if row["state"] == "pruned")
    button = page.locator(f'button[title="{row["run"]}"]')
    button.focus()
    page.keyboard.press("Enter")
    part = page.locator("#explorer-run")
    assert page.evaluate("document.activeElement.title") == row["run"]  # a screen reader goes on there
    text = part.inner_text()
    assert f"model.adapter.r\n{row['option.model.adapter.r']}" in re.sub(r"\n+", "\n", text)
    assert f"val/loss\n{float(row['val/loss']):.4f}" in re.sub(r"\n+", "\n", text)
    for summary in part.locator("summary").all():
        summary.click()
    text = re.sub(r"\n+", "\n", part.inner_text())
    assert f"--out runs/sweeps/sweep/{row['run']}" in text
    assert "Git commit" in text
    assert "trainer.max_epochs" in text
    page.wait_for_selector("#run-curves svg")
    page.select_option("#run-curve", "train/loss")
    page.wait_for_selector("#run-curves[aria-label^='train/loss']")
    part.get_by_role("button", name="Close").click()
    assert part.is_hidden()


def chosen(page, tidy) -> list[dict]:
    rows = [row for row in tidy if row["state"] == "done"]
    rows = [rows[0], rows[7], rows[-1]]
    for row in rows:
        page.locator(f'[data-pick="{row["run"]}"]').check()
    return rows


def test_chosen_runs_stand_side_by_side(page, study, tidy):
    rows = chosen(page, tidy)
    page.get_by_role("button", name="See the 3 chosen runs side by side").click()
    part = page.locator("#explorer-compare")
    table = part.locator("table").first.evaluate(
        "t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText.trim()))"
    )
    found = {line[0]: line[1:] for line in table}
    assert found["val/loss"] == [f"{float(row['val/loss']):.4f}" for row in rows]
    for name, label in (("option.model.adapter.r", "r"), ("option.model.optimisation.lr", "lr"), ("seed", "seed")):
        values = [row[name] for row in rows]
        assert (label in found) == (len(set(values)) > 1)  # only what differs
    assert "trainer.precision" not in found
    # which examples got better, which worse
    per_query = [
        json.loads((study.parent / "sweep" / row["run"] / "metrics.json").read_text())["per_query"]["loss"] for row in rows
    ]
    first, *others = [{i: float(f"{value:.4g}") for i, value in values.items()} for values in per_query]  # as the page has them
    counts = part.locator(".counts li").all_inner_texts()
    for text, other in zip(counts, others, strict=True):
        better, worse = (sum(compare(other[i], first[i]) for i in first) for compare in (float.__lt__, float.__gt__))
        assert f"on {better}, worse on {worse}, equal on {32 - better - worse} of 32" in text
    page.locator("#output-texts").uncheck()
    for order, key in (("better", lambda i: first[i] - others[-1][i]), ("worse", lambda i: others[-1][i] - first[i])):
        page.select_option("#output-order", order)
        ids = [text.removeprefix("val/") for text in part.locator(".outputs > li .id").all_inner_texts()]
        assert len(ids) == 20
        changes = [key(i) for i in ids]
        assert changes == pytest.approx(sorted(changes, reverse=True))
        assert max(map(key, first)) == changes[0]
    page.select_option("#output-order", "id")
    page.get_by_role("button", name="Show 12 more of 32 examples").click()
    answers = json.loads((study.parent / "sweep" / rows[1]["run"] / "metrics.json").read_text())["answers"]
    shown = part.locator(".outputs > li").nth(5)
    assert answers["5"]["reference"] in shown.inner_text()
    assert answers["5"]["answer"] in shown.inner_text()


def test_back_closes_the_run_that_was_opened_last(page, tidy):
    first, second = (row["run"] for row in tidy[:2])
    for name in (first, second):
        page.locator(f'button[title="{name}"]').click()
    page.go_back()
    assert page.locator("#explorer-run h3").get_attribute("title") == first
    page.go_back()
    assert page.locator("#explorer-run").is_hidden()


def test_a_filter_that_was_just_emptied_stays_empty(page):
    page.filter("r=4")
    page.fill("#explorer-filter", "")
    page.get_by_role("button", name="Group over seeds").click()  # before the filter's own timer
    assert page.input_value("#explorer-filter") == ""
    assert page.status().startswith("60 of 60 runs")


def test_text_of_the_data_is_never_markup(page, tidy):
    for row in [row for row in tidy if row["state"] == "done"][:20]:
        page.locator(f'[data-pick="{row["run"]}"]').check()
    page.select_option("#output-order", "id")
    assert EVIL in page.locator(".outputs").inner_text()
    assert page.title() != "taken"
    assert page.locator("img").count() == 0


def test_a_link_shows_the_same_view(page, chromium, study, tidy):
    page.get_by_role("button", name="Group over seeds").click()
    page.filter("r>=4 state=done")
    page.locator('[data-sort="val/loss"]').click()
    page.select_option("#axis-colour", "model.optimisation.lr")
    page.get_by_role("button", name="Group over seeds").click()
    rows = chosen(page, [row for row in tidy if row["option.model.adapter.r"] != "2"])
    page.locator(f'button[title="{rows[1]["run"]}"]').click()
    page.select_option("#run-curve", "val/perplexity")
    page.select_option("#output-order", "worse")
    link = page.page.url
    assert "#view?" in link
    again = Page(chromium, study / "index.html", view=link[link.index("#") :])
    for place in (
        "#explorer-said",
        "#explorer-table",
        "#explorer-chosen",
        "#explorer-chart-note",
        "#explorer-run",
        "#explorer-compare",
    ):
        assert again.locator(place).inner_text() == page.locator(place).inner_text(), place
    assert again.input_value("#explorer-filter") == "r>=4 state=done"
    again.get_by_role("button", name="Reset").click()
    assert "#" not in again.page.url
    assert again.status() == "60 of 60 runs"
    again.close()


def test_runs_have_names_and_not_hashes(page, tidy):
    shown = page.evaluate("[...document.querySelectorAll('.lines button.open')].map(button => button.innerText)")
    assert len({*shown}) == len(shown) == 60
    assert not any(re.search("[0-9a-f]{16}", name) for name in shown)
    assert shown[0] == "r=2 lora_alpha/r=1 lora_dropout=0 lr=0.0001 seed 0"


def test_letters_of_figures_are_legible_on_a_phone_and_wide_parts_show_that_they_go_on(chromium, study):
    page = Page(chromium, study / "index.html", width=390)
    sizes = page.evaluate("""() => [...document.querySelectorAll('figure svg text')]
      .filter((text) => text.getClientRects().length && text.textContent.trim())
      .map((text) => parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))""")
    assert len(sizes) > 50
    assert min(sizes) >= 11
    wide = page.evaluate("""() => [...document.querySelectorAll('.scroll, .at-wide, .at-narrow, .lines')]
      .filter((part) => part.scrollWidth > part.clientWidth + 1)
      .map((part) => getComputedStyle(part).backgroundImage.split('linear-gradient').length - 1)""")
    assert wide
    assert set(wide) == {4}  # two covers that move with the content, two shadows that stay
    page.close()


def test_a_value_keeps_its_colour_when_a_filter_hides_another(page):
    def colours() -> dict:
        signs = "[...document.querySelectorAll('#explorer-chart .mark-symbol.role-mark path')]"
        return {*page.evaluate(f"{signs}.map((sign) => sign.getAttribute('fill'))")}

    page.select_option("#axis-colour", "model.adapter.lora_dropout")
    page.wait_for_selector("#explorer-chart .role-legend")
    both = colours()
    page.locator("#explorer-filter").fill("lora_dropout=0.05")
    page.wait_for_timeout(1000)
    assert len(both) == 2
    assert colours() == {"var(--s1)"}


def test_a_link_of_another_report_says_what_is_not_here(page, chromium, study):
    again = Page(
        chromium, study / "index.html", view="#view?sort=val%2Fbleu&pick=0000000000000000&x=model.adapter.r&nonsense=1"
    )
    assert "val/bleu" in again.status()
    assert "0000000000000000" in again.status()
    assert "nonsense" in again.status()
    assert len(again.lines()) == 60
    again.close()


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (800, True), (390, False), (320, False)])
def test_nothing_leaves_the_window(chromium, study, tidy, width, dark):
    page = Page(chromium, study / "index.html", width=width, dark=dark)
    chosen(page, tidy)
    page.locator(".lines button.open").first.click()
    page.wait_for_selector("#compare-curves svg")
    page.locator("summary", has_text="Columns").click()
    outside = page.evaluate("""() => [...document.querySelectorAll('.explorer *')].filter((e) => {
      const { right, width } = e.getBoundingClientRect();
      return !e.closest('.scroll, .lines, pre, svg') && right > innerWidth + .5 && width > 1;
    }).map((e) => e.outerHTML.slice(0, 80))""")
    assert outside == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_keyboard_and_a_screen_reader_reach_everything(page):
    page.locator(".lines button.open").first.click()
    unnamed = page.evaluate("""() => {
      const wanted = '.explorer :is(button, input, select, table, [role=region], [role=img])';
      const named = (e) => (e.innerText || '').trim() || e.labels?.length || e.getAttribute('aria-label')
        || document.getElementById(e.getAttribute('aria-labelledby') || '');
      return [...document.querySelectorAll(wanted)].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80));
    }""")
    assert unnamed == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].filter(e => e.offsetParent).map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), levels  # no level is skipped
    page.locator("#explorer-filter").focus()
    reached = set()
    for _ in range(200):  # sixty lines have two each
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"Group over seeds", "Copy link", "Reset", "explorer-table", "axis-x", "axis-y", "axis-colour", "log-x"} <= reached
    # a tick in a menu, by keys alone
    summary = page.locator("summary", has_text="Columns")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    before = page.heads()
    page.keyboard.press("Space")
    assert page.heads() != before
    assert page.evaluate("document.activeElement.type") == "checkbox"


def test_the_policy_lets_no_other_script_run(study):
    text = (study / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy
    assert "script-src 'unsafe-inline'" not in policy
    assert EVIL not in text
    assert len(text.encode()) < 6_000_000
