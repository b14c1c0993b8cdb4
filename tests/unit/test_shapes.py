"""Training rows as people have them: each shape by an example and by random rows; what is damaged is refused with its place."""

import gzip
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.data.pairs import PairData
from research.data.rows import SKIPPING_IN_TRAINING, BadRows
from research.data.shapes.reading import read_training
from research.data.shapes.table import EXAMPLES
from research.data.shapes.texts import text_id
from research.errors import UserError
from research.types import Triplets

BEE, HONEY, FLOUR, CLOTH = "a bee", "bees make honey", "flour is ground", "cloth is woven"
Said = dict[str, tuple[set[str], set[str]]]


@pytest.fixture
def write(tmp_path):
    def write(content, name: str = "rows.jsonl") -> str:
        if not isinstance(content, str | bytes):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") and data[:2] != b"\x1f\x8b" else data)
        return str(tmp_path / name)

    return write


def read(source: str, *, skip: bool = False, **options) -> list[Triplets]:
    return read_training(source, None, BadRows(skip, SKIPPING_IN_TRAINING), **options)


def said(found: list[Triplets]) -> Said:
    """query → texts of its positives, of its negatives."""
    return {
        one.query: ({doc.content for doc in one.positives.values()}, {doc.content for doc in one.negatives.values()})
        for one in found
    }


# ---- by example -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([EXAMPLES[0]], {BEE: ({"Bees make honey"}, {FLOUR})}),
        ([EXAMPLES[2]], {BEE: ({HONEY}, {FLOUR})}),
        ([EXAMPLES[3]], {BEE: ({HONEY}, {FLOUR})}),
        ([EXAMPLES[4]], {BEE: ({"Bees make honey"}, set())}),
        ([EXAMPLES[5]], {BEE: ({HONEY}, {FLOUR})}),
        ([EXAMPLES[6]], {BEE: ({HONEY}, set())}),
        ([EXAMPLES[7]], {BEE: ({HONEY}, {FLOUR, CLOTH})}),
        ([EXAMPLES[8]], {BEE: ({"an insect"}, set())}),
        ([EXAMPLES[9]], {BEE: ({HONEY}, {FLOUR})}),
        ([{"query": BEE, "pos": [HONEY, CLOTH], "neg": []}], {BEE: ({HONEY, CLOTH}, set())}),
        ([{"query": BEE, "pos": [HONEY]}], {BEE: ({HONEY}, set())}),
        ([{"query": BEE, "pos": [HONEY], "neg": None}], {BEE: ({HONEY}, set())}),
        ([{"question": BEE, "answer": HONEY}, {"question": BEE, "answer": CLOTH}], {BEE: ({HONEY, CLOTH}, set())}),
        ([{"query": BEE, "positive": [HONEY, CLOTH], "negative": [FLOUR]}], {BEE: ({HONEY, CLOTH}, {FLOUR})}),
        (
            [{"sentence1": BEE, "sentence2": HONEY, "label": 1}, {"sentence1": BEE, "sentence2": FLOUR, "label": 0}],
            {BEE: ({HONEY}, {FLOUR})},
        ),
        ([{"sentence_A": BEE, "sentence_B": HONEY}], {BEE: ({HONEY}, set())}),
        (
            [
                {
                    "question": BEE,
                    "answers": ["x"],
                    "positive_ctxs": [{"title": "", "text": HONEY, "score": 9}],
                    "negative_ctxs": [{"title": None, "text": FLOUR}],
                    "hard_negative_ctxs": [{"text": CLOTH}],
                }
            ],
            {BEE: ({HONEY}, {CLOTH, FLOUR})},
        ),
        # sentence-transformers' embedding-training-data
        ([EXAMPLES[11]], {BEE: ({HONEY}, {FLOUR})}),
        ([[BEE, HONEY], [BEE, CLOTH, FLOUR, "a mill"]], {BEE: ({HONEY, CLOTH}, {FLOUR, "a mill"})}),
        (
            [{"set": [BEE, "an insect", HONEY, BEE]}],
            {BEE: ({"an insect", HONEY}, set()), "an insect": ({BEE, HONEY}, set()), HONEY: ({BEE, "an insect"}, set())},
        ),
        # as hubs have them: MS MARCO, Quora, SQuAD, SimCSE, and columns of longer names
        ([EXAMPLES[10] | {"answers": ["x"]}], {BEE: ({HONEY}, {FLOUR})}),
        (
            [
                {"question1": BEE, "question2": HONEY, "is_duplicate": True},
                {"question1": BEE, "question2": FLOUR, "is_duplicate": False},
            ],
            {BEE: ({HONEY}, {FLOUR})},
        ),
        (
            [{"id": "5", "title": "Bees", "question": BEE, "context": HONEY, "answers": {"text": ["honey"]}}],
            {BEE: ({HONEY}, set())},
        ),
        ([{"sent0": BEE, "sent1": HONEY, "hard_neg": FLOUR}], {BEE: ({HONEY}, {FLOUR})}),
        ([{"query": BEE, "positive_passages": [HONEY], "negative_passages": [FLOUR, CLOTH]}], {BEE: ({HONEY}, {FLOUR, CLOTH})}),
        ([{"query": BEE, "positive_document": HONEY, "negative_document_1": FLOUR}], {BEE: ({HONEY}, {FLOUR})}),
        (
            [{"sentence1": BEE, "sentence2": HONEY, "gold_label": 0}, {"sentence1": BEE, "sentence2": CLOTH, "gold_label": 1}],
            {BEE: ({CLOTH}, {HONEY})},
        ),
        # a positive of one row that another row has as a negative is a positive
        (
            [{"anchor": BEE, "positive": HONEY, "negative": CLOTH}, {"anchor": BEE, "positive": CLOTH, "negative": FLOUR}],
            {BEE: ({HONEY, CLOTH}, {FLOUR})},
        ),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json"])
def test_shape_by_example(write, rows, expected, name):
    content = json.dumps(rows) if name == "rows.json" else rows
    assert said(read(write(content, name))) == expected


def test_columns_as_csv_and_parquet_have_them(write, tmp_path):
    csv = 'anchor,positive,negative\na bee,"bees, they ""make"" honey",flour is ground\na mill,flour is ground,\n'
    expected = {BEE: ({'bees, they "make" honey'}, {FLOUR}), "a mill": ({FLOUR}, set())}
    assert said(read(write(csv, "rows.csv"))) == expected
    assert said(read(write(csv.replace(",", "\t").replace("bees\t", "bees,"), "rows.tsv"))) == expected
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"sentence1": [BEE, BEE], "sentence2": [HONEY, FLOUR], "score": [1.0, 0.0]}), tmp_path / "a.parquet"
    )
    assert said(read(str(tmp_path / "a.parquet"))) == {BEE: ({HONEY}, {FLOUR})}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # GLUE's files quote nothing: what the rules of csv would refuse, or swallow a line by
        (['4.5\ta man said "hi\ta man', '5\t"hello he said\tyes'], {'a man said "hi': "a man", '"hello he said': "yes"}),
        (['4\ta\t"b', '5\tc\td"'], {"a": '"b', "c": 'd"'}),
        (['4\t"a ""b"""\tc', "5\td\te"], {'a "b"': "c", "d": "e"}),  # csv's own quotes
        (['4\t"a\tb"\tc', "5\td\te"], {"a\tb": "c", "d": "e"}),
    ],
)
def test_quotes_of_tsv_files(write, lines, expected):
    found = read(write("\n".join(["score\tsentence1\tsentence2", *lines]) + "\n", "sts.tsv"), positive_from=4)
    assert said(found) == {query: ({text}, set()) for query, text in expected.items()}


def test_pairs_of_llama_index(write):
    row = {
        "queries": {"1": BEE, "2": "a mill", "3": "unused"},
        "corpus": {"a": HONEY, "b": FLOUR, "c": CLOTH},
        "relevant_docs": {"1": ["a", "c"], "2": ["b"]},
        "mode": "text",
    }
    expected = {BEE: ({HONEY, CLOTH}, set()), "a mill": ({FLOUR}, set())}
    assert said(read(write(json.dumps(row, indent=4), "pairs.json"))) == expected
    assert said(read(write([row], "pairs.jsonl"))) == expected
    with pytest.raises(UserError, match=r"pairs.json:1: corpus has no text for 'x', which relevant_docs names"):
        read(write(json.dumps(row | {"relevant_docs": {"1": ["a", "x"]}}, indent=4), "pairs.json"))
    with pytest.raises(UserError, match=r"queries is .*expected an object by ids"):
        read(write([row | {"queries": [BEE]}], "pairs.jsonl"))


def test_lines_of_arrays_under_any_name(write):
    lines = json.dumps([BEE, HONEY]) + "\n" + json.dumps([BEE, CLOTH, FLOUR]) + "\n"
    for name in ("rows.json", "rows.json.gz", "rows.jsonl.gz"):
        assert said(read(write(lines, name))) == {BEE: ({HONEY, CLOTH}, {FLOUR})}


@pytest.mark.parametrize("name", ["triples.train.small.tsv", "triples.tsv.gz"])
def test_triples_of_ms_marco_as_texts(write, name):
    text = f'{BEE}\t{HONEY}\t"flour" is ground\n{BEE}\t{HONEY}\t{CLOTH}\na mill\t{FLOUR}\t{CLOTH}\n'
    assert said(read(write(text, name))) == {BEE: ({HONEY}, {'"flour" is ground', CLOTH}), "a mill": ({FLOUR}, {CLOTH})}


def test_header_of_unknown_names_is_no_triple_and_the_cures_read_it(write):
    source = write("left\tright\na bee\tmakes honey\n", "t.tsv")
    with pytest.raises(UserError, match=r"left, right seem to name columns.*--data.columns '\{query: left, positive: right\}'"):
        read(source)
    assert said(read(source, columns={"query": "left", "positive": "right"})) == {BEE: ({"makes honey"}, set())}
    source = write("frage\tantwort\tfalsch\na bee\tmakes honey\tgrinds flour\n", "t.tsv")
    with pytest.raises(UserError, match=r"Name their roles: --data.columns '(.*)'; or") as caught:
        read(source)
    cure = yaml.safe_load(re.search(r"--data.columns '(.*)'; or", str(caught.value))[1])
    assert said(read(source, columns=cure)) == {BEE: ({"makes honey"}, {"grinds flour"})}
    assert said(read(write("query\tpositive\nleft\tright\n", "t.tsv"))) == {"left": ({"right"}, set())}
    with pytest.raises(UserError, match=r"t.tsv:1: the negative is 0.7, expected a text.*names the columns, such as sentence1"):
        read(write("a bee\tan insect\t0.7\n", "t.tsv"))
    assert said(read(write("sentence1\tsentence2\tscore\na bee\tan insect\t1\n", "t.tsv"))) == {BEE: ({"an insect"}, set())}


def test_triples_and_rows_of_ids_take_their_texts_from_files(write):
    triples = write("11\t1\t2\n11\t1\t3\n12\t2\t1\n", "qidpidtriples.train.tsv")
    collection = write(f"1\t{HONEY}\n2\t{FLOUR}\n3\t{CLOTH}\n4\tnever named\n", "collection.tsv")
    queries = write(f"11\t{BEE}\n12\ta mill\n", "queries.tsv")
    expected = {BEE: ({HONEY}, {FLOUR, CLOTH}), "a mill": ({FLOUR}, {HONEY})}
    with pytest.raises(UserError, match=r"name documents by id.*--data.corpus_file collection.tsv"):
        read(triples)
    with pytest.raises(UserError, match=r"name queries by id.*--data.queries_file queries.tsv"):
        read(triples, corpus_file=collection)
    assert said(read(triples, corpus_file=collection, queries_file=queries)) == expected
    rows = [
        {"query_id": "a", "query_text": BEE, "query_image": None, "positive_document_ids": [1], "negative_document_ids": ["3"]}
    ]
    corpus = write(
        [{"docid": "1", "text": HONEY}, {"docid": "3", "title": "On cloth", "text": "it is woven"}], "corpus.jsonl.gz"
    )
    assert said(read(write(rows), corpus_file=corpus)) == {BEE: ({HONEY}, {"On cloth it is woven"})}
    with pytest.raises(UserError, match="has no text for the id '3'"):
        read(write(rows), corpus_file=write(f"1\t{HONEY}\n", "c.tsv"))
    with pytest.raises(UserError, match=r"corpus_file=.* hold their texts"):
        read(write([EXAMPLES[3]]), corpus_file=corpus)


def test_teacher_scores_are_kept_and_said(write, capsys):
    (one,) = read(write([EXAMPLES[3]]))
    assert one.scores == {text_id(HONEY): 0.9, text_id(FLOUR): 0.1}
    assert "2 passages have a score of another model, which is kept and not trained on" in capsys.readouterr().err


def test_column_that_is_not_read_is_named(write, capsys):
    read(write([EXAMPLES[3] | {"type": "normal"}, EXAMPLES[3] | {"query": "other", "type": "x", "url": 5}]))
    err = capsys.readouterr().err
    assert "columns that are not read: type (2 rows), url (1 rows)" in err


def test_mapping_of_columns(write):
    row = {"Frage": BEE, "Antwort": HONEY, "falsch": FLOUR, "auch falsch": [CLOTH], "nr": 7}
    mapping = {"query": "Frage", "positive": "Antwort", "negative": ["falsch", "auch falsch"], "query_id": "nr"}
    (one,) = read(write([row]), columns=mapping)
    assert (one.query_id, said([one])) == ("7", {BEE: ({HONEY}, {FLOUR, CLOTH})})
    graded = write("text_a\ttext_b\ty\na bee\tan insect\t0.7\na bee\ta mill\t.2\n", "m.tsv")
    mapping = {"query": "text_a", "positive": "text_b", "label": "y"}
    assert said(read(graded, positive_from=0.5, columns=mapping)) == {BEE: ({"an insect"}, {"a mill"})}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"query": "q", "positiv": "p"}, "did you mean 'positive'"),
        ({"query": "q"}, "no column for positive"),
        ({"query": "q", "positive": "p"}, "no column 'q'; known: anchor, positive. Correct data.columns"),
        # what nothing would read
        ({"query": ["anchor", "q"], "positive": "positive"}, "columns.query is .*expected the name of one column. Correct"),
        ({"query": "anchor", "positive": "positive", "query_id": ["a", "b"]}, "columns.query_id is .*one column. Correct"),
        ({"query": "anchor", "positive": ["positive", "b"], "label": "y"}, "columns.positive is .*a label belongs to one"),
        ({"query": "anchor", "positive": "positive", "label": ["y"]}, "columns.label is .*one column. Correct"),
        ({"query": "anchor", "positive": "positive", "negative": "n", "label": "y"}, "label .y. and negative .n.*Leave one"),
        ({"query": "anchor", "positive": "positive", "negative": []}, "columns.negative is .*or a list of them"),
        ({"query": "anchor", "positive": 3}, "columns.positive is 3; expected the name of one column, or a list of them"),
        ({"query": "anchor", "positive": "positive", "negative": "negativ"}, "no row of .*rows.jsonl has the column 'negativ'"),
    ],
)
def test_wrong_mapping_is_refused(write, columns, says):
    source = write([{"anchor": BEE, "positive": HONEY}])
    with pytest.raises(UserError, match=says):
        PairData(source, val_split=None, test_split=None, batch_size=2, columns=columns)


def test_misspelt_column_is_refused_whichever_role_it_has(write):
    rows = [{"q": BEE, "p": HONEY, "n1": FLOUR, "n2": CLOTH, "nr": 1}, {"q": "a mill", "p": FLOUR, "n2": None, "nr": 2}]
    mapping = {"query": "q", "positive": "p", "negative": ["n1", "n2"], "query_id": "nr"}
    expected = {BEE: ({HONEY}, {FLOUR, CLOTH}), "a mill": ({FLOUR}, set())}
    assert said(read(write(rows), columns=mapping)) == expected  # one row or another has each of them
    for role, wrong in (("negative", ["n1", "n_2"]), ("negative", "n_2"), ("query_id", "n_2"), ("positive", "n_2")):
        with pytest.raises(UserError, match="column 'n_2'"):
            read(write(rows), columns=mapping | {role: wrong})
        with pytest.raises(UserError, match=r"data.columns: no row of .*has the column 'n_2'; .*Correct it, or leave"):
            read(write(rows), columns=mapping | {role: wrong}, skip=True)
    assert said(read(write(rows), columns=mapping | {"negative": "n1"}))[BEE] == ({HONEY}, {FLOUR})  # the cure


def test_positive_from_counts_a_score_or_is_refused(write):
    scored = [{"anchor": BEE, "positive": HONEY, "score": 0.9}, {"anchor": BEE, "positive": FLOUR, "score": 0.0}]
    assert said(read(write(scored))) == {BEE: ({HONEY, FLOUR}, set())}  # as ever: nothing asks for the score
    assert said(read(write(scored), positive_from=0.5)) == {BEE: ({HONEY}, {FLOUR})}
    names = {"query": "anchor", "positive": "positive"}
    assert said(read(write(scored), positive_from=0.5, columns=names | {"label": "score"})) == {BEE: ({HONEY}, {FLOUR})}
    for rows, columns in [
        (scored, names),
        ([EXAMPLES[3]], None),
        ([EXAMPLES[5]], None),
        ([EXAMPLES[5] | {"score": 0.9}], None),
        ([EXAMPLES[0]], None),
        ([EXAMPLES[4]], None),
    ]:
        with pytest.raises(UserError, match=r"positive_from=0.5, but no label .* is read.*Leave it out, or name the column"):
            read(write(rows), positive_from=0.5, columns=columns)
    with pytest.raises(UserError, match=r"positive_from=0.5, but no label"):
        read(write(f"{BEE}\t{HONEY}\n", "t.tsv"), positive_from=0.5)


def test_queries_file_is_read_or_refused(write):
    row = {"query_id": "q1", "query_text": BEE, "positive_document_ids": ["1"]}
    corpus, queries = write(f"1\t{HONEY}\n", "collection.tsv"), write("q1\ta mill\n", "queries.tsv")
    for name in (queries, "/nonexistent"):
        with pytest.raises(UserError, match=f"queries_file={name}, but the rows of .* hold the texts of their queries.*Leave"):
            read(write([row]), corpus_file=corpus, queries_file=name)
    without = [{name: value for name, value in row.items() if name != "query_text"}]
    assert said(read(write(without), corpus_file=corpus, queries_file=queries)) == {"a mill": ({HONEY}, set())}
    with pytest.raises(UserError, match=r"name queries by id.*Pass --data.queries_file"):
        read(write(without), corpus_file=corpus)


@pytest.mark.parametrize("name", ["m.tsv", "M.TSV.gz", "ids.tsv"])
def test_slice_of_triples_is_that_of_rows(write, name):
    roles = {"query": "1", "positive": "2", "negative": "3"}
    rows = [{role: f"{at}{i}" if name == "ids.tsv" else f"{role} no. {i}" for role, at in roles.items()} for i in range(10)]
    source = write("".join("\t".join(row.values()) + "\n" for row in rows), name)
    table = write(rows, "m.jsonl")
    options = {
        "corpus_file": write("".join(f"{a}{i}\tdoc {a}{i}\n" for a in (2, 3) for i in range(10)), "c.tsv"),
        "queries_file": write("".join(f"1{i}\task {i}\n" for i in range(10)), "q.tsv"),
    }
    for split in (None, "train", "train[:2]", "train[50%:]", "dev[-1:]", "train[:1]+train[3:5]"):
        found = read_training(source, split, BadRows(), **(options if name == "ids.tsv" else {}))
        others = read_training(table, split, BadRows())
        if name == "ids.tsv":
            assert [one.query_id for one in found] == [one.query for one in others], split
        else:
            assert found == others, split
    assert (
        len(
            PairData(
                source, "train[:2]", val_split=None, test_split=None, batch_size=2, **(options if name == "ids.tsv" else {})
            ).queries
        )
        == 2
    )


def test_scores_need_to_be_told_from_where_on_a_pair_is_positive(write):
    source = write([{"sentence1": BEE, "sentence2": HONEY, "score": 0.8}, {"sentence1": BEE, "sentence2": FLOUR, "score": 0.3}])
    with pytest.raises(
        UserError, match=r"score is 0.8.*Pass --data.positive_from 0.5.*--data.columns '{query: sentence1, positive"
    ):
        read(source)
    assert said(read(source, positive_from=0.5)) == {BEE: ({HONEY}, {FLOUR})}
    assert said(read(source, columns={"query": "sentence1", "positive": "sentence2"})) == {BEE: ({HONEY, FLOUR}, set())}


def test_exact_repeat_is_taken_once_and_a_second_row_of_an_id_is_refused(write):
    bad = BadRows()
    assert len(read_training(write([EXAMPLES[0], EXAMPLES[0]]), None, bad)) == 1
    assert bad.kept == {"repeats of a row": 1}
    other = EXAMPLES[0] | {"negative_passages": []}
    with pytest.raises(UserError, match=r"rows.jsonl:2: query id 'q1' was used before.*in one row"):
        read(write([EXAMPLES[0], other]))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"query": BEE, "pos": [HONEY], "neg": [HONEY]}, "is both positive and negative"),
        ({"query": BEE, "pos": [], "neg": [FLOUR]}, "pos is empty"),
        ({"query": " ", "pos": [HONEY]}, "query is blank"),
        ({"query": None, "pos": [HONEY]}, "no shape of training rows"),
        ({"query": BEE, "pos": "x", "neg": 5}, "neg is '5', expected a text or a list of texts"),
        ({"query": BEE, "pos": [HONEY], "neg": [""]}, "neg holds a blank text"),
        ({"query": BEE, "pos": [HONEY], "pos_scores": [1.0, 2.0]}, "expected 1 finite numbers"),
        ({"query": BEE, "pos": [HONEY], "pos_scores": [float("nan")]}, "expected 1 finite numbers"),
        ({"query": BEE, "pos": [HONEY], "prompt": "Find: "}, "prompt is 'Find: '.*set model.query_prompt"),
        ({"query": [101, 7], "positives": [[101, 8]], "negatives": []}, "ids of some tokenizer"),
        ({"query": BEE, "positives": [[101, 8]], "negatives": []}, "ids of some tokenizer"),
        ({"question": BEE, "positive_ctxs": []}, "positive_ctxs is empty"),
        ({"question": BEE, "positive_ctxs": [{"title": 5, "text": "x"}]}, "title of positive_ctxs is '5'"),
        ({"question": BEE, "positive_ctxs": [{"title": "x"}]}, "text is 'None'"),
        ({"sentence1": BEE, "sentence2": HONEY, "score": "high"}, "score is \"'high'\", expected a finite number"),
        ({"query": BEE, "documents": [HONEY, FLOUR], "labels": [1]}, "labels has 1 numbers, expected 2"),
        ({"title": BEE, "body": HONEY}, "has the columns title, body, which are no shape"),
        ({"query": BEE, "pos": ["\ud800"]}, "surrogate"),
        ({"query": BEE, "pos": "['a', 'b']"}, "a list that was written as text; expected a list"),
        ({"sentence1": BEE, "sentence2": HONEY, "gold_label": "entailment"}, "gold_label is .*entailment.*Write 1 where"),
        ({"query": BEE, "passages": {"passage_text": [HONEY], "is_selected": []}}, "expected 1 finite numbers"),
        ({"set": [BEE, BEE]}, "expected two texts or more"),
        ([BEE, HONEY, 0.7], "expected a query, a positive and any negatives, all of them texts"),
        ([BEE], "expected a query, a positive and any negatives"),
    ],
)
def test_bad_row_is_refused_with_its_place_or_skipped(write, row, says):
    source = write(json.dumps(row) + "\n" + json.dumps({"query": "a mill", "pos": [FLOUR]}) + "\n")
    with pytest.raises(UserError, match=f"rows.jsonl:1: .*{says}.*--data.skip_bad_rows true"):
        read(source)
    if "shape" in says or {"query", "pos"} <= {*row}:  # the rows after it are of the shape of the first
        assert said(read(source, skip=True)) == {"a mill": ({FLOUR}, set())}


def test_rows_in_no_shape_are_told_of_the_shapes_and_the_proposed_mapping_reads_them(write):
    source = write([{"title": BEE, "body": HONEY}])
    with pytest.raises(UserError) as caught:
        read(source)
    assert "query+pos" in str(caught.value)
    assert "--data.columns '{query: QUESTION, positive: ANSWER, negative: OTHER}'" in str(caught.value)
    assert said(read(source, columns={"query": "title", "positive": "body"})) == {BEE: ({HONEY}, set())}


def test_label_of_rows_in_no_shape_is_in_the_proposed_mapping(write):
    """NLI's rows: to read them without their label would make contradictions positives."""
    rows = [{"premise": BEE, "hypothesis": HONEY, "label": 1}, {"premise": BEE, "hypothesis": FLOUR, "label": 0}]
    with pytest.raises(UserError, match=r"--data.columns '\{query: QUESTION, positive: ANSWER, label: label\}'"):
        read(write(rows))
    mapping = {"query": "premise", "positive": "hypothesis", "label": "label"}
    assert said(read(write(rows), columns=mapping)) == {BEE: ({HONEY}, {FLOUR})}
    with pytest.raises(UserError, match=r"label is .*entailment.*expected a finite number"):
        read(write([rows[0] | {"label": "entailment"}]), columns=mapping)


# ---- by random rows -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12).filter(
    str.strip
)
CHECKS = settings(
    derandomize=True, max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def queries(draw) -> Said:
    """Query → positives, negatives, which share nothing."""
    found = {}
    for query in draw(st.lists(TEXT, min_size=1, max_size=4, unique=True)):
        texts = draw(st.lists(TEXT, min_size=1, max_size=5, unique=True))
        cut = draw(st.integers(1, len(texts)))
        found[query] = ({*texts[:cut]}, {*texts[cut:]})
    return found


def passages(texts):
    return [{"docid": text_id(text), "title": "", "text": text} for text in sorted(texts)]


WRITERS = {
    "tevatron": lambda q, p, n: [
        {"query_id": text_id(q), "query": q, "positive_passages": passages(p), "negative_passages": passages(n)}
    ],
    "tevatron, texts": lambda q, p, n: [{"query": q, "positives": sorted(p), "negatives": sorted(n)}],
    "FlagEmbedding": lambda q, p, n: [{"query": q, "pos": sorted(p), "neg": sorted(n), "pos_scores": [0.5] * len(p)}],
    "DPR": lambda q, p, n: [
        {
            "question": q,
            "positive_ctxs": [{"title": "", "text": t} for t in sorted(p)],
            "hard_negative_ctxs": [{"title": "", "text": t} for t in sorted(n)],
        }
    ],
    "columns": lambda q, p, n: [{"anchor": q, "positive": sorted(p), "negative": sorted(n)}],
    "pairs": lambda q, p, n: [
        {"query": q, "answer": t} | {f"negative_{i}": o for i, o in enumerate(sorted(n))} for t in sorted(p)
    ],
    "graded": lambda q, p, n: [{"sentence1": q, "sentence2": t, "score": float(t in p)} for t in sorted(p | n)],
    "arrays": lambda q, p, n: [[q, t, *sorted(n)] for t in sorted(p)],
    "MS MARCO": lambda q, p, n: [
        {"query": q, "passages": {"passage_text": sorted(p | n), "is_selected": [int(t in p) for t in sorted(p | n)]}}
    ],
    "lists": lambda q, p, n: [{"query": q, "documents": sorted(p | n), "labels": [int(t in p) for t in sorted(p | n)]}],
}


@pytest.mark.parametrize("shape", WRITERS)
@CHECKS
@given(expected=queries())
def test_random_rows_come_back_as_they_were_written(write, shape, expected):
    rows = [row for query, (positives, negatives) in expected.items() for row in WRITERS[shape](query, positives, negatives)]
    assert said(read(write(rows))) == expected


@CHECKS
@given(expected=queries())
def test_random_triples_come_back_as_they_were_written(write, expected):
    """Each cell begins with `so: `, since a first row with a column's name ("response") is a header."""
    triples = {
        f"so: {query}": tuple({f"so: {text}" for text in texts} for texts in both)
        for query, both in expected.items()
        if both[1]
    }
    lines = [f"{q}\t{p}\t{n}" for q, (positives, negatives) in triples.items() for p in positives for n in negatives]
    if lines:
        assert said(read(write("\n".join(lines), "t.tsv"))) == triples


PASSAGE = st.dictionaries(st.sampled_from(["docid", "text", "title", "x"]), st.one_of(TEXT, st.integers()), max_size=2)
LIST = st.lists(st.one_of(st.none(), st.integers(), TEXT, st.just({}), PASSAGE), max_size=3)
DAMAGE = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), TEXT, st.just(""), PASSAGE, LIST)


@pytest.mark.parametrize("shape", sorted(WRITERS.keys() - {"arrays"}))  # in one order for every worker
@CHECKS
@given(expected=queries(), data=st.data())
def test_random_damage_is_refused_by_name_or_changes_no_other_query(write, shape, expected, data):
    """One value of one row becomes anything: the place, a value and a cure are told, or the row reads as something sound."""
    rows = [row for query, (positives, negatives) in expected.items() for row in WRITERS[shape](query, positives, negatives)]
    place = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(sorted(rows[place])))
    query = next(q for q, both in expected.items() if rows[place] in WRITERS[shape](q, *both))
    rows[place] = rows[place] | {column: data.draw(DAMAGE)}
    source = write("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found, message = said(read(source)), None
    except UserError as error:
        found, message = {}, str(error)
    if message is not None:
        # of two rows the second differs, or one row has become the second of its query
        assert re.search(r"rows\.jsonl:\d+: ", message) or "is neither 0 nor 1" in message
        assert message.endswith(".")
        assert "xpected" in message or "was used before" in message
        return
    asked = next(name for name in ("query", "anchor", "question", "sentence1") if name in rows[place])
    for one, both in expected.items():  # the row may have become one of another query, and that query's
        if one not in (query, rows[place][asked]):
            assert found[one] == both


@CHECKS
@given(cut=st.integers(0, 400), junk=st.binary(min_size=0, max_size=6))
def test_file_that_is_cut_or_holds_junk_is_refused_or_read(write, cut, junk):
    data = "".join(json.dumps(row) + "\n" for row in EXAMPLES[3:4] * 3).encode()
    for name, content in (("rows.jsonl", data[:cut] + junk), ("rows.jsonl.gz", gzip.compress(data)[:cut] + junk)):
        path = Path(write("", name="x")).with_name(name)
        path.write_bytes(content)
        try:
            found, message = said(read(str(path))), name
        except UserError as error:
            found, message = {}, str(error)
        assert found in ({}, {BEE: ({HONEY}, {FLOUR})})
        assert name in message
