"""A corpus and queries in the files that people have: what is read, how it is cut, what is refused and how to cure it."""

import json

import pytest

from research.data.passages import Cut, cut_passages
from research.data.unjudged import load_texts, load_unjudged, read_corpus, read_queries
from research.errors import UserError
from research.types import Document

ROWS = [{"_id": "d1", "title": "Bees", "text": "bees make honey"}, {"_id": "d2", "text": "flour is ground"}]
READ = {"d1": Document("Bees", "bees make honey"), "d2": Document("", "flour is ground")}


@pytest.fixture
def write(tmp_path):
    def to(name: str, content: str | list) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        return str(path)

    return to


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ROWS),
        ("a.jsonl", [{"id": r["_id"], "contents": r["text"], "title": r.get("title")} for r in ROWS]),
        ("a.json", json.dumps(ROWS)),
        ("a.csv", "id,title,text\nd1,Bees,bees make honey\nd2,,flour is ground\n"),
        ("a.tsv", "text\tdocid\ttitle\nbees make honey\td1\tBees\nflour is ground\td2\t\n"),
        ("a.tsv", "d1\tBees\tbees make honey\nd2\t\tflour is ground\n"),  # no header
    ],
)
def test_a_table_is_read_by_its_usual_names(write, name, content):
    assert read_corpus(write(name, content)) == READ


def test_parquet_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"title": None} | row for row in ROWS]).to_parquet(tmp_path / "a.parquet")
    assert read_corpus(tmp_path / "a.parquet") == READ


def test_rows_and_lines_without_an_id_are_known_by_file_and_number(write):
    assert [*read_corpus(write("my notes.csv", "text\na bee\na mill\n"))] == ["my_notes.csv#1", "my_notes.csv#2"]
    assert read_corpus(write("a.txt", "a bee\n\na mill\n")) == {
        "a.txt#1": Document("", "a bee"),
        "a.txt#3": Document("", "a mill"),
    }
    assert read_queries(write("q.txt", "who?\nwhat?\n")) == {"q.txt#1": "who?", "q.txt#2": "what?"}
    assert read_queries(write("q.tsv", "7\twho makes it?\n8\twhat is it?\n")) == {"7": "who makes it?", "8": "what is it?"}
    assert read_queries(write("q.jsonl", [{"query": "who?"}])) == {"q.jsonl#1": "who?"}


def test_columns_are_named_where_their_names_do_not_say_it(write):
    path = write("a.csv", "nr,head,body\nd1,Bees,bees make honey\nd2,,flour is ground\n")
    assert read_corpus(path, {"id": "nr", "title": "head", "text": "body"}) == READ
    assert read_queries(write("q.csv", "nr,ask\n1,who?\n"), {"id": "nr", "text": "ask"}) == {"1": "who?"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            [{"_id": "1", "body": "x"}],
            r"a\.jsonl:1: .*_id, body; .*'body' may be meant for 'text'.*\"text\": \"body\"",
        ),
        ("a.csv", "ID,text\n1,x\n", r"a\.csv:2: .*'ID' may be meant for '_id'.*\{\"id\": \"ID\", \"text\": \"text\"\}"),
        ("a.csv", "_id,Text\n1,x\n", "'Text' may be meant for 'text'"),
        ("a.jsonl", [{"_id": "1", "words": "x"}], r'"text": "COLUMN"'),
        ("a.jsonl", [*ROWS, {"_id": "d1", "text": "y"}], r"a\.jsonl:3: document id 'd1' was used before"),
        ("a.jsonl", [*ROWS, {"id": "d3", "text": "y"}], r"a\.jsonl:3: the row has no '_id', but id, text"),
        ("a.jsonl", '{"_id": "1", "text": "x"}\n{"_id": ', r"a\.jsonl:2: .* is not JSON"),
        ("a.tsv", "d1\tbees make honey\nd2\n", r"a\.tsv:2: the line has 1 cells, expected 2"),
        ("a.tsv", "nr\tbody1\nd2\tx y\n", r"a\.tsv:1: nr, body1 seem to name columns"),
        ("a.pdf", "x", r"a\.pdf is of no known format; expected \.jsonl.*\.md or a folder"),
        ("a.txt", "\n \n", "holds no text to search"),
        ("a.jsonl", [{"_id": "1", "text": " "}], "holds no text to search"),
        ("a.jsonl", "", "holds no text to search"),
        ("a.md", " \n", "holds no word"),
    ],
)
def test_a_wrong_corpus_is_refused_with_its_place_and_a_cure(write, name, content, message):
    with pytest.raises(UserError, match=message):
        read_corpus(write(name, content))


def test_a_missing_file_and_a_missing_column_are_refused(write, tmp_path):
    write("passages.jsonl", ROWS)
    with pytest.raises(UserError, match=r"pasages\.jsonl.*did you mean 'passages\.jsonl'"):
        read_corpus(tmp_path / "pasages.jsonl")
    with pytest.raises(UserError, match=r"passages\.jsnl does not exist; expected .* Did you mean \S*/passages\.jsonl\?"):
        read_corpus(tmp_path / "passages.jsnl")
    with pytest.raises(UserError, match=r"passages\.jsonl:1: the row has no 'body', but _id, title, text"):
        read_corpus(tmp_path / "passages.jsonl", {"id": "_id", "text": "body"})
    with pytest.raises(UserError, match="role 'txt', which is not known; did you mean 'text'"):
        read_corpus(tmp_path / "passages.jsonl", {"txt": "text"})
    with pytest.raises(UserError, match="holds no query"):
        read_queries(write("q.txt", "\n"))


@pytest.mark.parametrize(
    ("name", "content", "offered"),
    [
        ("a.csv", "_id,body\nd1,x\n", False),  # every row has the columns of the header
        ("a.jsonl", [{"_id": "d1", "body": "x"}, {"_id": "d2", "body": "y"}], False),
        ("a.jsonl", [{"_id": "d1", "body": "x"}, {"_id": "d2", "text": "y"}], True),
        ("a.jsonl", [{"_id": "d1", "text": "x"}, {"_id": "d2", "body": "y"}], True),
    ],
)
def test_skipping_is_offered_only_where_it_leaves_rows(write, name, content, offered):
    columns = {"id": "_id", "text": "text"}
    with pytest.raises(UserError, match=r"the row has no 'text', but _id, body\. Correct the column") as caught:
        read_corpus(path := write(name, content), columns)
    assert ("--skip-bad-rows" in str(caught.value)) == offered
    if offered:
        assert len(read_corpus(path, columns, skip_bad_rows=True)) == 1


def test_bad_rows_are_left_out_where_that_is_asked_for(write, capsys):
    path = write("a.jsonl", [*ROWS, {"id": "d3", "text": "y"}, {"_id": "d 4", "text": "y"}])
    assert read_corpus(path, skip_bad_rows=True) == READ
    assert "1 missing column, 1 bad id" in capsys.readouterr().err


def test_documents_of_one_text_are_counted(write, capsys):
    path = write("a.jsonl", [{"_id": "a", "text": "bees"}, {"_id": "b", "text": "bees"}, {"_id": "c", "text": "looms"}])
    assert len(read_corpus(path)) == 3
    assert "1 of 3 documents repeat another's text; a search ranks each of them" in capsys.readouterr().err


def test_a_folder_of_texts_is_cut_to_passages(write, tmp_path, capsys):
    write("notes/bees.md", "intro\n\n# About bees #\n\nbees make honey")
    write("notes/deep/a b.txt", "one two three four five")
    write("notes/.hidden.md", "secret")
    write("notes/empty.txt", " ")
    write("notes/x.pdf", "no text")
    assert read_corpus(tmp_path / "notes", cut=Cut(3, 1)) == {
        "bees.md#1": Document("About bees", "intro\n\n# About"),
        "bees.md#2": Document("About bees", "About bees #"),
        "bees.md#3": Document("About bees", "#\n\nbees make"),
        "bees.md#4": Document("About bees", "bees make honey"),
        "deep/a_b.txt#1": Document("a b", "one two three"),
        "deep/a_b.txt#2": Document("a b", "three four five"),
    }
    err = capsys.readouterr().err
    assert "6 passages of up to 3 words (overlap 1, more in a file's last one) from 2 files" in err
    assert "hold no word and are left out, empty.txt for example" in err
    assert "1 files of other kinds are left out (.pdf); .txt and .md are read" in err


def test_linked_folders_are_read_once_and_never_in_a_circle(write, tmp_path):
    write("notes/a/one.md", "one")
    write("elsewhere/two.md", "two")
    for link, to in (("linked", "elsewhere"), ("again", "elsewhere"), ("circle", "notes"), ("a/up", "notes/a")):
        (tmp_path / "notes" / link).symlink_to(tmp_path / to, target_is_directory=True)
    assert [*read_corpus(tmp_path / "notes")] == ["a/one.md#1", "again/two.md#1"]


def test_a_folder_without_texts_says_what_is_read_and_how_to_convert(write, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no file; expected \.txt and \.md files, or one table"):
        read_corpus(tmp_path / "empty")
    write("papers/a.pdf", "x")
    write("papers/deep/b.pdf", "x")
    with pytest.raises(UserError, match=r"papers holds 2 files, none of a kind that is read \(\.pdf\); .*pdftotext FILE\.pdf"):
        read_corpus(tmp_path / "papers")
    write("site/a.html", "x")
    with pytest.raises(UserError, match=r"\(\.html\); expected \.txt and \.md .*pandoc -t plain"):
        read_corpus(tmp_path / "site")


@pytest.mark.parametrize(
    ("text", "title", "passage"),
    [
        ("# Bees\n", "a", "# Bees"),  # the heading is all there is: it stays the text, and the file gives the title
        ("# Bees\nmake honey", "Bees", "# Bees\nmake honey"),
    ],
)
def test_a_heading_is_the_title_of_what_follows_it(write, text, title, passage):
    assert read_corpus(write("a.md", text)) == {"a.md#1": Document(title, passage)}


def test_the_file_of_a_passage_is_known(write, tmp_path):
    write("notes/deep/a b.txt", "one two")
    assert read_corpus(tmp_path / "notes").files == {"deep/a_b.txt#1": "deep/a b.txt"}
    assert read_corpus(write("lines.txt", "one\ntwo\n")).files == {"lines.txt#1": "lines.txt", "lines.txt#2": "lines.txt"}


@pytest.mark.parametrize(
    ("text", "cut", "passages"),
    [
        ("a b c d e", Cut(2, 0), ["a b", "c d", "d e"]),
        ("a b c d e", Cut(3, 2), ["a b c", "b c d", "c d e"]),
        ("a b c d", Cut(3, 1), ["a b c", "b c d"]),
        ("a b", Cut(2, 1), ["a b"]),
        ("a", Cut(9, 2), ["a"]),
        (" \n", Cut(9, 2), []),
        ("蜜蜂酿蜜", Cut(2, 0), ["蜜蜂", "酿蜜"]),
        ("a  b\n\nc", Cut(2, 1), ["a  b", "b\n\nc"]),
        ("a " + "x" * 100 + " b", Cut(2, 0), ["a " + "x" * 100, "x" * 100 + " b"]),  # as long as a word may be
        ("0123456789" * 12, Cut(1, 0), [*["0123456789"] * 2, "0123456789" * 10]),  # 2 pieces, and what a word may be
    ],
)
def test_passages_overlap_and_lose_no_word(text, cut, passages):
    assert cut_passages(text, cut) == passages


def test_what_cannot_be_a_folder_of_passages_is_refused(write, tmp_path):
    write("notes/a.md", "x")
    write("notes/b.jsonl", ROWS)
    with pytest.raises(UserError, match=r"holds text files and tables \(b.jsonl\).*Name the file that is meant"):
        read_corpus(tmp_path / "notes")
    write("two/a b.md", "x")
    write("two/a_b.md", "x")
    with pytest.raises(UserError, match="expected names that differ"):
        read_corpus(tmp_path / "two")
    write("bad/a.md", "x")
    (tmp_path / "bad/b.md").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"b\.md:1: not UTF-8.*iconv -f latin1 -t utf-8 \S*b\.md.*--skip-bad-rows to leave"):
        read_corpus(tmp_path / "bad")
    for name in ("alone.md", "alone.txt", "alone.csv"):  # nothing would be left of them
        (tmp_path / name).write_bytes(b"text\n\xff")
        for skip in (False, True):
            with pytest.raises(UserError, match=rf"{name}:2: not UTF-8.*iconv -f latin1 -t utf-8 ") as refused:
                read_corpus(tmp_path / name, skip_bad_rows=skip)
            assert "skip-bad-rows" not in str(refused.value)
    assert [*read_corpus(tmp_path / "bad", skip_bad_rows=True)] == ["a.md#1"]
    for cut, message in ((Cut(0, 0), "--passage-words 0"), (Cut(5, 5), "expected 0 to 4")):
        with pytest.raises(UserError, match=message):
            read_corpus(tmp_path / "two", cut=cut)


def test_a_source_is_read_without_judgements(collection):
    judged = load_unjudged(f"beir:{collection}", "test", queries=True)
    assert [*judged[1]] == ["q0", "q2", "q4", "q6"]
    for file in (collection / "qrels").iterdir():
        file.unlink()
    corpus, queries = load_unjudged(f"beir:{collection}", None, queries=True)
    assert (corpus, len(queries)) == (judged[0], 8)
    (collection / "queries.jsonl").unlink()
    assert load_unjudged(f"beir:{collection}", None) == (corpus, {})
    assert load_texts(f"beir:{collection}", "doc", None)[0] == [*corpus]
    with pytest.raises(UserError, match=r"queries\.jsonl does not exist"):
        load_unjudged(f"beir:{collection}", None, queries=True)
