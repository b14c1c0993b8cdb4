"""`research report`: the numbers in its tables, what it refuses, and the page's text."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from research.cli import main
from research.errors import UserError
from research.report import explain, markdown, notes, numbers, row_notes, tables, training_words
from research.report.figures import of_latency
from research.report.page import examples, html
from research.report.systems import read_systems

# ndcg@10 of four queries; b is above a by .5 on three of them: mean difference (.5 + .5 + .5 + 0) / 4 = .375
A = {"q1": 0.0, "q2": 0.5, "q3": 0.5, "q4": 1.0}  # mean .5
B = {"q1": 0.5, "q2": 1.0, "q3": 1.0, "q4": 1.0}  # mean .875


def stage(values: dict[str, float], label: str, ms: float | None = 1.0, **facts) -> dict:
    timing = {} if ms is None else {"ms_per_query": ms, "seconds": ms}
    mean = sum(values.values()) / len(values)
    return {
        "metrics": {"ndcg@10": mean, "mrr@10": mean},
        "per_query": {"ndcg@10": values, "mrr@10": values},
        "facts": {"label": label, **timing, **facts},
    }


def run_folder(
    path: Path,
    stages: dict[str, dict],
    data: str = "d1",
    split: str = "test",
    top: dict | None = None,
    docs: dict | None = None,
    **more,
) -> Path:
    """A run folder as `research retrieve` leaves it; every query's relevant document is d-<query>."""
    path.mkdir(parents=True)
    facts = {"verb": "retrieve", "source": "beir:x", "split": split, "data": data}
    queries = {query: f"text of {query}" for query in next(iter(stages.values()))["per_query"]["ndcg@10"]}
    top = top or {name: {query: ["d-q1"] for query in queries} for name in stages}
    docs = docs or {f"d-{query}": {"title": "", "text": f"def {query}():\n    return 1"} for query in queries}
    provenance = facts | {
        "command": ["research", "retrieve", "--out", "a b"],
        "time": "2026-01-02T03:04:05+0000",
        "seconds": 2.0,
        "git_commit": "c0ffee",
        "git_dirty": False,
        "packages": {"numpy": "2"},
    }
    relevant = {query: [f"d-{query}"] for query in queries}
    files = {
        "provenance.json": provenance,
        "metrics.json": facts
        | {"queries": len(queries), "documents": 9, "unscorable": [], "notes": {}, "stages": stages}
        | more,
        "examples.json": {"queries": queries, "top": top, "relevant": relevant, "docs": docs},
    }
    for name, value in files.items():
        (path / name).write_text(json.dumps(value))
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    dense = stage(B, "Dense", 4.0, documents_per_second=4.5)
    return run_folder(tmp_path / "two", {"bm25": stage(A, "BM25", 0.25), "dense": dense})


def texts(table: tables.Table) -> list[list[str]]:
    return [[cell.text for cell in cells] for cells in table.body]


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_systems_table_holds_mean_difference_and_exact_p(two):
    runs = read_systems([two])
    lines = tables.measure(runs)
    table = tables.systems_table(lines, runs.metric)
    # three differences of .5 (and one of 0): of the 8 sign patterns 2 reach |1.5|, so p = 2/8
    assert texts(table) == [[".5000", "–", "–", "–", "0.25"], [".8750", "+.3750", ".250", "3 / 0", "4.00"]]
    assert [[cell.best for cell in cells] for cells in table.body] == [[False] * 4 + [True], [True] + [False] * 4]
    assert table.body[1][0].detail == f"[{numbers.share(lines[1].low)}, {numbers.share(lines[1].high)}]"
    assert 0.5 <= lines[1].low < 0.875 < lines[1].high <= 1


def test_a_system_that_knows_the_queries_is_marked_wherever_its_numbers_stand(tmp_path):
    """On the page, in Markdown, CSV's sheet and LaTeX; what re-orders such a system leaks too, what is beside it does not."""
    stages = {
        "bm25": stage(A, "BM25", model="bm25 (lucene)"),
        "dense": stage(B, "Dense", model="runs/mine"),
        "reranked": stage(B, "Dense → R", model="runs/r"),
    }
    warning = "runs/mine was trained on beir:x split test: its numbers there are too high"
    made = run_folder(tmp_path / "leak", stages, warnings=[warning])
    runs = read_systems([made])
    lines = tables.measure(runs)
    assert [cells[0].mark for cells in tables.systems_table(lines, runs.metric).body] == ["", "‡", "‡"]
    assert explain.finding(lines, runs.metric).endswith("Dense was trained on some of these queries: its numbers are too high.")
    assert main(["report", str(made), "--out", str(tmp_path / "out")]) == 0
    page, text = ((tmp_path / "out" / name).read_text() for name in ("index.html", "report.md"))
    table = (tmp_path / "out/tables/systems.tex").read_text()
    assert ".8750‡" in text or ".8750**‡" in text
    assert "</strong>‡" in page
    assert table.count(r"$^{\ddagger}$") == 3  # two rows, and the note that says what it means
    for written in (page, text, table):
        assert "was trained on some of these queries" in " ".join(written.split())
    assert not row_notes.leak_notes(runs.rows[:1])


def test_encoders_that_read_different_lengths_and_rerankers_are_noted_wherever_they_are_compared(tmp_path):
    stages = {
        "dense": stage(A, "Long", model="long", max_length=256),
        "dense2": stage(B, "Short", model="short", max_length=128),
        "reranked": stage(B, "Short → R", model="r", max_length=512, depth=20, mix=0.7),
    }
    made = run_folder(tmp_path / "run", stages, mix={"mix": 0.7, "split": "dev"})
    rows = read_systems([made]).rows
    assert row_notes.reading_notes(rows) == [
        "The encoders read different numbers of a document's tokens (Long 256, Short 128): a difference may come from that.",
        "Short → R: the first 20 re-ordered, λ .7 chosen on dev.",
    ]
    assert row_notes.reading_notes(rows[:1]) == []
    assert main(["report", str(made), "--out", str(tmp_path / "out")]) == 0
    for name in ("index.html", "report.md", "tables/systems.tex", "tables/systems.md"):
        text = " ".join((tmp_path / "out" / name).read_text().replace("&#39;", "'").split())
        assert "different numbers of a document's tokens" in text, name


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("rows:/home/me/faq.csv,query=Question asked,positive=A/b", "rows:faq.csv"),
        ("rows:a/train.csv,a/test.csv", "rows:train.csv,test.csv"),
        ("beir:/data/scifact", "beir:scifact"),
        ("hf:BeIR/scifact", "hf:BeIR/scifact"),
    ],
)
def test_a_heading_names_the_data_and_not_its_path(source, short):
    assert training_words.source_name(source) == short


def test_cost_table_has_only_columns_that_some_row_fills(two, tmp_path):
    table = tables.cost_table(read_systems([two]).rows)
    assert table.columns == ["ms a query", "Encoding, documents/s"]
    assert texts(table) == [["0.25", "–"], ["4.00", "4.5"]]  # 9 documents in 2 s
    ann = stage(A, "HNSW", **{"ann_recall@100": 0.9979, "index_seconds": 0.44, "search_ms_per_query": 0.0175})
    table = tables.cost_table(read_systems([run_folder(tmp_path / "ann", {"dense": ann})]).rows)
    assert table.columns == ["ms a query", "of which search", "Index build, s", "ANN recall@100"]
    assert texts(table) == [["1.00", "0.018", "0.44", ".9979"]]


def test_a_metric_one_run_lacks_is_a_dash_not_a_zero(two, tmp_path):
    only = stage(A, "Other")
    del only["metrics"]["mrr@10"], only["per_query"]["mrr@10"]
    runs = read_systems([two, run_folder(tmp_path / "o", {"dense": only})])
    assert texts(tables.metrics_table(runs.rows))[2] == [".5000", "–"]


def test_systems_metrics_and_cost_are_sheets_with_the_numbers_behind_them(two):
    runs = read_systems([two])
    lines = tables.measure(runs)
    systems, metrics, cost = tables.sheets(lines, runs.metric)
    assert [one.name for one in (systems, metrics, cost)] == ["systems", "metrics", "cost"]
    assert systems.columns == [
        "system",
        "nDCG@10",
        "95% interval",
        "difference",
        "its 95% interval",
        "p (Holm)",
        "better",
        "worse",
        "ms a query",
    ]
    row = systems.rows[1]
    assert [row[i].text for i in (0, 1, 3, 5, 6, 7, 8)] == ["Dense", ".8750", "+.3750", ".250", "3", "0", "4.00"]
    assert [row[i].value for i in (1, 3, 5, 6, 7, 8)] == [0.875, 0.375, 0.25, 3, 0, 4.0]
    assert row[2].value == [lines[1].low, lines[1].high]
    assert [[cell.rank for cell in row] for row in systems.rows] == [[0] * 8 + [1], [0, 1] + [0] * 7]
    assert [row[1].value for row in metrics.rows] == [0.5, 0.875]
    assert [cell.value for cell in cost.rows[1]] == ["Dense", 4.0, 4.5]
    assert "paired permutation test over queries" in systems.notes[1]
    (alone, _, _) = tables.sheets(lines[:1], runs.metric)  # nothing to compare
    assert alone.columns == ["system", "nDCG@10", "95% interval", "ms a query"]


def test_retrievals_alone_have_tables_too(two, tmp_path, capsys):
    write(two, tmp_path / "out", capsys)
    names = {path.name for path in (tmp_path / "out/tables").iterdir()}
    assert names == {f"{name}.{ending}" for name in ("systems", "metrics", "cost") for ending in ("tex", "csv", "md")}
    head = (tmp_path / "out/tables/systems.csv").read_text().splitlines()[0]
    assert head.startswith("system,nDCG@10,95% interval low,95% interval high,difference,")
    assert r"\textbf{.8750}" in (tmp_path / "out/tables/systems.tex").read_text()


def test_a_system_that_two_runs_hold_is_said_in_markdown_too(tmp_path, capsys):
    for name in ("bm1", "bm2"):
        run_folder(tmp_path / name, {"bm25": stage(A, "BM25")})
    assert main(["report", str(tmp_path / "bm1"), str(tmp_path / "bm2"), "--out", str(tmp_path / "out")]) == 0
    assert "BM25 of bm1/bm25 is the same in bm2/bm25." in (tmp_path / "out/report.md").read_text()
    assert "BM25 of bm1/bm25 is the same in bm2/bm25." in (tmp_path / "out/tables/systems.md").read_text()


@pytest.mark.parametrize(("p", "text"), [(0.0001, "p < .001"), (0.0324, "p = .032"), (1.0, "p > .999")])
def test_p_claims_no_more_than_three_decimals(p, text):
    assert numbers.p_phrase(p) == text


def test_signed_numbers_have_a_true_minus_and_no_sign_at_zero():
    assert [numbers.signed(value) for value in (0.12894, -0.0822, -1e-5, 1)] == ["+.1289", "−.0822", ".0000", "+1.0000"]


def test_equal_best_values_are_both_bold_and_a_column_of_one_value_has_none(two, tmp_path):
    rows = read_systems([two, run_folder(tmp_path / "t", {"dense": stage(B, "Third")})]).rows
    assert [cells[0].best for cells in tables.metrics_table(rows).body] == [False, True, True]
    assert [cells[0].best for cells in tables.metrics_table(rows[:1]).body] == [False]


def test_markdown_escapes_names_that_would_break_the_table(tmp_path):
    runs = read_systems([run_folder(tmp_path / "r", {"dense": stage(A, "a|b <i>")})])
    lines = tables.measure(runs)
    assert "| a\\|b &lt;i&gt; |" in markdown.render(tables.systems_table(lines, runs.metric), lines)


# ---- which runs meet on a page --------------------------------------------------------------------------------------


def test_the_same_stage_of_two_runs_is_one_row(two, tmp_path):
    again = run_folder(tmp_path / "again", {"dense": stage(B, "Dense", 5.0, documents_per_second=3.0)})
    rows = read_systems([two, again]).rows
    assert [(row.label, row.also) for row in rows] == [("BM25", ()), ("Dense", ("again/dense",))]
    assert rows[1].facts["ms_per_query"] == 4.0  # the first run's


@pytest.mark.parametrize("change", [{"model_hash": "other"}, {"ef": 400}, {"ann_recall@100": 0.9}])
def test_equal_values_with_another_setting_are_two_rows_named_after_their_runs(tmp_path, change):
    base = {"model_hash": "one", "ef": 200, "ann_recall@100": 0.99}
    paths = [
        run_folder(tmp_path / "x", {"dense": stage(A, "Dense", **base)}),
        run_folder(tmp_path / "y", {"dense": stage(A, "Dense", **base | change)}),
    ]
    assert [row.label for row in read_systems(paths).rows] == ["Dense · x", "Dense · y"]


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    paths = [run_folder(tmp_path / name / "run", {"dense": stage(A, name)}) for name in "xy"]
    assert [folder.name for folder in read_systems(paths).folders] == ["x/run", "y/run"]


@pytest.mark.parametrize("other", [{"data": "d2"}, {"split": "dev"}])
def test_different_data_or_split_is_refused_with_who_holds_what(two, tmp_path, other):
    path = run_folder(tmp_path / "other", {"dense": stage(B, "Dense")}, **other)
    with pytest.raises(UserError, match=r"two: beir:x split test \(data d1\).*other: beir:x split (test|dev)"):
        read_systems([two, path])


def test_the_same_folder_twice_is_refused_also_through_a_link(two, tmp_path):
    (tmp_path / "link").symlink_to(two)
    with pytest.raises(UserError, match="given 2 times"):
        read_systems([two, tmp_path / "link"])


def test_missing_foreign_and_half_written_folders_are_refused(two, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_systems([tmp_path / "nowhere"])
    (tmp_path / "foreign").mkdir()
    with pytest.raises(UserError, match="not a run folder"):
        read_systems([tmp_path / "foreign"])
    (two / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"two is half-written.*Finish it: research retrieve --out 'a b'"):
        read_systems([two])


def test_an_earlier_commands_metrics_are_not_taken_for_an_unfinished_ones(two):
    path = two / "provenance.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}))
    with pytest.raises(UserError, match="did not finish"):
        read_systems([two])


@pytest.mark.parametrize("text", ["[]", "{}", '{"stages": {}}', "not json"])
def test_damaged_metrics_are_refused(two, text):
    (two / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json"):
        read_systems([two])


def test_values_of_different_queries_are_never_compared(two, tmp_path):
    path = run_folder(tmp_path / "o", {"dense": stage(B | {"q9": 1.0}, "Dense")})
    with pytest.raises(UserError, match="covers different queries"):
        read_systems([two, path])


def test_leaks_skipped_rows_and_unscorable_queries_are_told(tmp_path):
    leaks = {"train": {"query_ids": 0, "query_texts": 2, "documents": 5}, "dev": {"query_ids": 0, "query_texts": 0}}
    path = run_folder(
        tmp_path / "r",
        {"dense": stage(A, "Dense")},
        unscorable=["q7"],
        warnings=["runs/a was trained on 4 of these 4 queries (mine.csv): its numbers are too high"],
        notes={"leaks": leaks, "skipped_rows": {"empty text": 3}},
    )
    said = " ".join(notes.notes(read_systems([path]).folders, []))
    assert said.startswith("Leak: runs/a was trained on 4 of these 4 queries (mine.csv): its numbers are too high.")
    for part in (
        "1 query of 4 without any relevant document",
        "q7",
        "shares 0 query ids and 2 query texts with train",
        "5 documents relevant",
        "No query of test occurs in the",
        "3 rows",
        "3 empty text",
    ):
        assert part in said


# ---- examples and figure --------------------------------------------------------------------------------------------


def test_examples_are_three_that_differ_by_new_patterns_first_then_one_none_one_all():
    hits = {
        "a": (True, True),
        "b": (True, False),
        "c": (True, False),
        "d": (False, False),
        "e": (False, True),
        "f": (True, False),
        "g": (False, False),
        "h": (True, True),
    }
    assert examples.choose(hits) == ["b", "e", "c", "d", "a"]


def test_examples_fill_up_when_a_kind_is_missing():
    assert examples.choose({query: (False,) for query in "abcdefg"}) == list("abcde")
    assert examples.choose({"a": (True,)}) == ["a"]


def test_documents_that_several_systems_rank_first_are_shown_once(two):
    shown, _ = examples.examples(read_systems([two]))
    first = next(example for example in shown if example.query_id == "q2")
    assert [(found.doc, found.relevant, found.systems) for found in first.found] == [
        ("d-q1", False, [(0, "first relevant at rank 2"), (1, "first relevant at rank 1")])
    ]
    assert [found.doc for found in first.missed] == ["d-q2"]


def test_rows_without_a_time_are_named_not_drawn(two, tmp_path):
    runs = read_systems([two, run_folder(tmp_path / "o", {"dense": stage(A, "Timeless", None)})])
    lines = tables.measure(runs)
    for figure in of_latency(lines, runs.metric):
        assert "Timeless" not in json.dumps(figure.spec)
    assert "Without a time, so not drawn: Timeless" in html.page(runs, lines, "Two systems", "None was faster.")


# ---- the page -------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """What a browser would see: tags, and whatever could reach outside the file."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[tuple] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.outside += [(tag, *pair) for pair in attrs if pair[0] in ("src", "href", "srcset", "data", "action")]


def write(path: Path, out: Path, capsys) -> str:
    assert main(["report", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'index.html'}\n"
    return (out / "index.html").read_text(encoding="utf-8")


def test_markup_in_documents_labels_and_queries_stays_text(tmp_path, capsys):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    docs = {f"d-{query}": {"title": evil, "text": f"{evil}\n\tx < y"} for query in A}
    page = write(run_folder(tmp_path / "r", {"dense": stage(A, evil)}, docs=docs), tmp_path / "out", capsys)
    tags = Tags(page)
    assert "script" not in tags.tags
    assert "img" not in tags.tags
    assert tags.outside == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;\n\tx &lt; y</pre>" in page


def test_code_keeps_its_lines(two, tmp_path, capsys):
    assert ">def q1():\n    return 1</pre>" in write(two, tmp_path / "out", capsys)


def test_the_same_runs_give_the_same_bytes(two, tmp_path, capsys, monkeypatch):
    write(two, tmp_path / "out", capsys)
    monkeypatch.chdir(tmp_path)
    write(Path("two"), Path("again"), capsys)
    for name in ("index.html", "report.md", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_json_is_one_line_with_the_page(two, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["report", str(two), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"out": str(out), "page": str(out / "index.html"), "rows": 2, "trainings": 0}


def test_an_earlier_report_is_written_over_and_other_folders_are_not(two, tmp_path, capsys):
    write(two, tmp_path / "out", capsys)
    write(two, tmp_path / "out", capsys)
    assert main(["report", str(two), "--out", str(two)]) == 2
    assert "no report.json of a report; nothing was touched" in capsys.readouterr().err
    assert not (two / "index.html").exists()


def test_a_missing_jinja2_is_named_with_its_cure(two, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["report", str(two), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'tandem-research[report]'" in capsys.readouterr().err
