"""Tables as people keep them: the same rows from each format, each row with its own keys; damage is refused with its place."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.rows import BadRows
from research.data.tables import is_table, read_table, splits_of
from research.errors import UserError

CALLS = [{"x": 1}, {"city": "Paris"}, {"x": 2}]
ROWS = [
    {"n": i, "m": [{"role": "assistant", "content": f"no. {i}", "tool_calls": [{"function": {"arguments": call}}]}]}
    for i, call in enumerate(CALLS)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CHEAP = settings(derandomize=True, max_examples=30, deadline=None, database=None)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows_of(source, split=None, bad=None) -> list[dict]:
    return [row for _, row in read_table(source, split, bad)]


def test_every_format_gives_the_same_rows_with_their_own_keys():
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    assert table[0]["m"][0]["tool_calls"][0]["function"]["arguments"] == {"x": 1, "city": None}  # what Arrow makes of them
    table.to_parquet("a.parquet")
    table.save_to_disk("saved")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk("splits")
    Path("lines.jsonl").write_text(LINES)
    Path("lines.json").write_text(LINES)  # as common under this ending
    Path("bom.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).encode())
    Path("array.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    Path("lines.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    Path("folder").mkdir()
    Path("folder/b.jsonl").write_text(json.dumps(ROWS[2]))
    Path("folder/a.json").write_text(json.dumps(ROWS[:2]))
    Path("named").mkdir()
    Path("named/train-0.jsonl").write_text(LINES)
    Path("named/test-0.jsonl").write_text(json.dumps(ROWS[1]))
    for source in (
        "lines.jsonl",
        "lines.json",
        "bom.json",
        "array.json.gz",
        "lines.jsonl.gz",
        "a.parquet",
        "saved",
        "folder",
        "folder/*",
        ["folder/a.json", "folder/b.jsonl"],
        "folder/a.json, folder/b.jsonl",
    ):
        assert rows_of(source) == rows_of(source, "train") == ROWS, source
    for source in ("splits", "named", "hf:named"):
        assert rows_of(source, "train") == ROWS, source
        assert rows_of(source, "test") == ROWS[1:2], source
        assert rows_of(source, "train[1:]+test") == [*ROWS[1:], ROWS[1]], source
    assert {*splits_of("splits")} == {*splits_of("named")} == {"train", "test"}
    assert splits_of("folder") == splits_of("saved") == splits_of("lines.jsonl") == []


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train[:2]", [0, 1]), ("train[50%:]", [2]), ("train[-1:]", [2]), ("dev[:34%]", [0]), ("train[:1]+train[2:]", [0, 2])],
)
def test_a_slice_is_that_of_datasets(split, expected):
    from datasets import load_dataset

    Path("rows.jsonl").write_text("".join(json.dumps({"n": i}) + "\n" for i in range(3)))
    assert [row["n"] for row in rows_of("rows.jsonl", split)] == expected
    if split.startswith("train"):
        table = load_dataset("json", data_files="rows.jsonl", split=split, cache_dir="cache")
        assert [row["n"] for row in table] == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"n": 1},\n {"n": 2} {"n": 3}]', r"a\.json:2 \(row 2\): .*expected a comma.*Mend the file"),
        ("a.json", '[{"n": 1},\n {"n": 2]', r"a\.json:2 \(row 2\): .*not JSON.*expected an array of objects"),
        ("a.json", '[{"n": 1},\n 2]', r"a\.json:2 \(row 2\): '2' is a JSON int, expected an object"),
        ("a.json", '[{"n": 1}] x', r"a\.json: 'x' stands after the array's end"),
        ("a.json", '[{"n": 1}', r"a\.json:1 \(row 1\): '' stands after the row"),
        ("a.json", b'[{"n": "\xff"}]', r"a\.json:1: not UTF-8"),
        ("a.jsonl", '{"n": 1}\n[2]', r"a\.jsonl:2: .*expected an object"),
        ("a.csv", "n,m\n1,2\n3\n", r"a\.csv:3: the row has 1 cells, expected 2: n, m"),
        ("a.csv", "n,n\n1,2\n", r"a\.csv:1: the header names 'n' twice"),
        ("a.csv", 'n,m\n1,"2\n', r"a\.csv:2: not ','-separated"),
        ("a.tsv", 'n\tm\n1\t"a"b\n2\n', r"a\.tsv:2: not '\\t'-separated"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-20], r"a\.jsonl\.gz: damaged .*whole gzip"),
        ("a.json.gz", b"no gzip", r"a\.json\.gz: damaged .*whole gzip"),
        ("a.parquet", b"PAR1 no", r"a\.parquet cannot be read after row 0 .*Make the file again"),
        ("a.parquet.gz", b"", r"of no known format"),
        ("a.txt", "", "of no known format"),
    ],
)
def test_damage_is_refused_with_its_place(name, content, message):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"(?s){message}"):
        rows_of(name)


def test_what_is_not_there_is_refused_by_name():
    Path("empty").mkdir()
    Path("mixed").mkdir()
    Path("mixed/train.jsonl").write_text(LINES)
    Path("mixed/more.jsonl").write_text(LINES)
    Path("two").mkdir()
    Path("two/train.jsonl").write_text(LINES)
    Path("two/test.jsonl").write_text(LINES)
    for source, split, message in [
        ("nope.csv", None, "does not exist"),
        ("empty", None, "holds no table"),
        ([], None, "no file"),
        ("*.jsonl", None, "matches no file"),
        ("two", None, "2 splits and none is named"),
        ("two", "dev", "no split 'dev'; known: test, train"),
        ("mixed", "train", "more.jsonl is not"),
        ("two", "train[x]", "cannot be taken"),
    ]:
        with pytest.raises(UserError, match=message):
            rows_of(source, split)
    assert len(rows_of("mixed/train.jsonl,mixed/more.jsonl")) == 6  # the cure of the message
    Path("repository/data").mkdir(parents=True)
    Path("repository/data/train-0.jsonl").write_text(LINES)
    with pytest.raises(UserError, match="or hf:repository where it is a repository"):
        rows_of("repository")
    assert rows_of("hf:repository", "train") == ROWS


def test_several_sources_are_read_each_by_its_split():
    import datasets

    for name, text in (("train", "T"), ("test", "X")):
        Path("folder").mkdir(exist_ok=True)
        Path(f"folder/{name}.jsonl").write_text(json.dumps({"n": text}) + "\n")
    Path("a.jsonl").write_text('{"n": "a"}\n{"n": "b"}\n')
    datasets.Dataset.from_list([{"n": "saved"}]).save_to_disk("saved")
    datasets.DatasetDict(
        {"train": datasets.Dataset.from_list([{"n": "s"}]), "test": datasets.Dataset.from_list([{"n": "x"}])}
    ).save_to_disk("both")
    for source, split, expected in [
        (["folder"], "train", "T"),
        (["folder"], "test", "X"),
        ("a.jsonl,folder", "train", "abT"),
        ("a.jsonl, folder", "train[1:]", "bT"),
        (["folder", "both"], "test", "Xx"),
        ("folder,both", "train[1:]+test[:1]", "sX"),
        (["saved", "a.jsonl"], None, ["saved", "a", "b"]),
        (["saved", "folder"], "train", ["saved", "T"]),
        ("fol*", "train", "T"),
        (["a.jsonl", "hf:folder"], "train", "abT"),
    ]:
        assert [row["n"] for row in rows_of(source, split)] == list(expected), (source, split)
        assert is_table(source)
    assert splits_of(["folder", "both"]) == ["test", "train"]
    assert splits_of("folder,a.jsonl") == []
    for source, split, message in [
        ("folder,a.jsonl", None, "folder has 2 splits and none is named"),
        (["folder"], "dev", "folder has no split 'dev'"),
        ("folder,a.jsonl", "train[:1]+test[:1]", "a.jsonl has no splits"),
        (",", None, "no file is named"),
        ("a.jsonl,gone.jsonl", None, "gone.jsonl does not exist"),
    ]:
        with pytest.raises(UserError, match=message):
            rows_of(source, split)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train.jsonl", "Test.jsonl"),
        ("trainset.jsonl", "testset.jsonl"),
        ("squadTrainData.JSONL", "squadEvalData.JSONL"),
        ("TRAIN_1.json.GZ", "TEST.json"),
        ("train_split.csv", "test-split.csv"),
    ],
)
def test_files_named_after_splits_in_any_spelling_are_told_apart(train, test):
    for name, text in ((train, "T"), (test, "X")):
        Path("folder").mkdir(exist_ok=True)
        content = (f"n\n{text}\n" if name.endswith("csv") else json.dumps({"n": text})).encode()
        Path("folder", name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    assert rows_of("folder", "train") == [{"n": "T"}]
    assert rows_of("folder", "test") == [{"n": "X"}]
    with pytest.raises(UserError, match="no split 'nosuch'; known: "):
        rows_of("folder", "nosuch")


def test_split_of_a_file_goes_by_every_word_for_it():
    for name in ("train.jsonl", "dev.jsonl"):
        Path("folder").mkdir(exist_ok=True)
        Path("folder", name).write_text('{"n": 1}\n{"n": 2}\n' if "dev" in name else '{"n": 0}\n')
    for split in ("dev", "validation", "val", "valid"):
        assert rows_of("folder", split) == [{"n": 1}, {"n": 2}]
        assert rows_of(["folder"], f"{split}[1:]+training") == [{"n": 2}, {"n": 0}]
    with pytest.raises(UserError, match=r"no split 'test'; .*known: train, validation"):
        rows_of("folder", "test")


def test_folder_without_splits_is_whole_under_usual_names_alone():
    import datasets

    Path("folder").mkdir()
    for name, text in (
        ("a.jsonl", "a"),
        ("b.JSONL", "b"),
        ("c.Json.Gz", "c"),
        (".hidden.jsonl", "no"),
        ("dataset_info.json", "no"),
    ):
        content = json.dumps({"n": text}).encode()
        Path("folder", name).write_bytes(gzip.compress(content) if name.endswith("Gz") else content)
    datasets.Dataset.from_list([{"n": one} for one in "abc"]).save_to_disk("saved")
    for source in ("folder", "saved"):
        for split in (None, "train", "validation", "dev", "test"):
            assert [row["n"] for row in rows_of(source, split)] == ["a", "b", "c"]
        assert [row["n"] for row in rows_of(source, "dev[1:]")] == ["b", "c"]
        for split in ("nosuch", "nosuch[:1]"):
            with pytest.raises(UserError, match=f"{source} has no split 'nosuch'.*expected train, validation, test"):
                rows_of(source, split)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv"])
def test_gzip_is_known_by_its_bytes_and_its_name_in_any_case(ending):
    content = {"jsonl": '{"n": "1"}\n', "json": '[{"n": "1"}]', "csv": "n\n1\n", "tsv": "n\n1\n"}[ending].encode()
    for name in (f"a.{ending}", f"UP.{ending.upper()}.GZ", f"b.{ending}.gz"):
        Path(name).write_bytes(gzip.compress(content))
        assert rows_of(name) == [{"n": "1"}], name
    Path(f"plain.{ending.upper()}.GZ").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged .*expected a whole gzip file"):
        rows_of(f"plain.{ending.upper()}.GZ")


def test_a_configuration_is_named_or_asked_for():
    Path("hub/en").mkdir(parents=True)
    Path("hub/fr").mkdir()
    parts = "".join(
        f"- config_name: {name}\n  data_files:\n  - {{split: train, path: {name}/a.jsonl}}\n" for name in ("fr", "en")
    )
    Path("hub/README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    for name in ("en", "fr"):
        Path(f"hub/{name}/a.jsonl").write_text(json.dumps({"prompt": name}))
    assert rows_of("hf:hub:en", "train") == [{"prompt": "en"}]
    assert rows_of("hf:hub:fr") == [{"prompt": "fr"}]
    for name in ("hf:hub", "hf:hub:de"):
        with pytest.raises(UserError, match=r"known: en, fr.*Name one: hf:hub:fr"):
            rows_of(name, "train")
    Path("hub/README.md").write_text(f"---\nconfigs:\n{parts}  default: true\n---\n")
    assert rows_of("hf:hub", "train") == [{"prompt": "en"}]


def test_bad_rows_are_skipped_and_counted():
    Path("a.json").write_text('[{"n": 1}, 2, {"n": 3}]')
    Path("a.csv").write_text("n,m\n1,2\n3\n4,5\n")
    bad = BadRows(skip=True)
    assert rows_of("a.json", bad=bad) == [{"n": 1}, {"n": 3}]
    assert rows_of("a.csv", bad=bad) == [{"n": "1", "m": "2"}, {"n": "4", "m": "5"}]
    assert bad.counts == {"not an object": 1, "wrong number of cells": 1}


def test_text_formats_need_no_datasets(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    Path("a.json").write_text(json.dumps(ROWS))
    Path("a.parquet").write_bytes(b"PAR1")
    assert rows_of("a.json") == ROWS
    for source in ("a.parquet", "hf:somebody/something"):
        with pytest.raises(UserError, match="read by the package datasets, which is not installed"):
            rows_of(source)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TABLE = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=5)


@CHEAP
@given(TABLE, st.sampled_from([None, 1]))
def test_json_rows_round_trip(rows, indent):
    Path("r.json").write_text(json.dumps(rows, indent=indent))
    Path("r.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=bool(indent), default=str) + "\n" for row in rows), errors="surrogatepass"
    )
    assert rows_of("r.json") == rows_of("r.jsonl") == rows


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@CHEAP
@given(st.lists(CELLS, min_size=1, max_size=3, unique=True), st.data(), st.sampled_from(["csv", "tsv"]))
def test_cells_round_trip(header, data, ending):
    rows = data.draw(st.lists(st.fixed_dictionaries({name: CELLS for name in header}), max_size=4))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=",\t"[ending == "tsv"], quoting=csv.QUOTE_ALL)
    writer.writerows([header, *([row[name] for name in header] for row in rows)])
    Path(f"r.{ending}").write_bytes(stream.getvalue().encode())
    assert rows_of(f"r.{ending}") == rows


@CHEAP
@given(TABLE, st.data())
def test_random_damage_is_refused_or_harmless(rows, data):
    """A byte lost or changed: either a refusal that names file and place, or rows that plain json gives too."""
    text = json.dumps(rows).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.binary(max_size=2)) + text[at + 1 :]
    Path("r.json").write_bytes(damaged)
    try:
        found = rows_of("r.json")
    except UserError as error:
        assert "r.json" in str(error) and "xpected" in str(error)  # noqa: PT017, PT018
        return
    try:
        expected = json.loads(damaged.decode("utf-8-sig"))
    except ValueError:
        expected = [json.loads(line) for line in damaged.decode("utf-8-sig").splitlines() if line.strip()]
    assert repr(found) == repr(expected if isinstance(expected, list) else [expected])
