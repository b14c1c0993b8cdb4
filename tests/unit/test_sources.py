"""Data sources: the standard library, BEIR folders, Hugging Face datasets (from a local folder)."""

import json

import pytest

from research.data import stdlib
from research.data.rows import BadRows
from research.data.sources import Source, check_split, leaks, load, load_source
from research.data.unjudged import load_texts, load_unjudged
from research.errors import UserError
from research.types import Document


@pytest.fixture(scope="module")
def standard_library():
    return load_source("builtin:stdlib", BadRows())


def test_stdlib_has_thousands_of_pairs_and_three_splits(standard_library):
    corpus, queries, qrels = standard_library
    assert 2500 < len(corpus) < 4500
    assert len(queries) == len(corpus)
    sizes = {split: len(rows) / len(corpus) for split, rows in qrels.items()}
    about = {"train": 0.6, "dev": 0.1, "test": 0.3}
    assert sizes == pytest.approx(about, abs=0.08)


def test_no_module_is_in_two_splits(standard_library):
    modules = {
        split: {query.removeprefix("q:").split(":")[0] for query in rows} for split, rows in standard_library.qrels.items()
    }
    assert not modules["train"] & modules["test"]
    assert not modules["train"] & modules["dev"]
    assert not modules["dev"] & modules["test"]


def test_answer_is_not_in_its_own_document(standard_library):
    """The docstring is taken out of the function whole."""
    corpus, queries, _ = standard_library
    held = [query for query, text in queries.items() if stdlib.normalise(text) in stdlib.normalise(corpus[query[2:]].text)]
    assert len(held) / len(queries) < 0.005  # a few functions repeat their docstring in an error message


def test_stdlib_is_the_same_twice():
    assert load("builtin:stdlib", "dev").fingerprint == load("builtin:stdlib", "dev").fingerprint


def test_small_stdlib_is_half_of_the_functions_under_a_name_and_fingerprint_of_its_own(standard_library):
    small = load_source("builtin:stdlib-small", BadRows())
    assert small.corpus.items() < standard_library.corpus.items()
    assert len(small.corpus) / len(standard_library.corpus) == pytest.approx(1 / 2, abs=0.03)
    for split, rows in small.qrels.items():
        assert rows.items() < standard_library.qrels[split].items()
    assert load("builtin:stdlib-small", "dev").fingerprint != load("builtin:stdlib", "dev").fingerprint


def test_cut_takes_the_first_paragraph_and_leaves_the_docstring_out(tmp_path):
    (tmp_path / "shop.py").write_text(
        'class Till:\n    def add(self, price):\n        """Add a price to the\n        running total.\n\n        More."""\n'
        "        self.total += price\n        return self.total\n\n"
        'def short():\n    """Too short."""\n    x = 1\n    return x\n\n'
        'def one_line(a):\n    """Give back whatever was given."""\n    return a\n'
    )
    (pair,) = stdlib.cut(tmp_path)
    assert (pair.id, pair.query) == ("shop:Till.add", "Add a price to the running total.")
    assert pair.code == "def add(self, price):\n    self.total += price\n    return self.total"


def test_functions_with_equal_queries_are_dropped_with_all_their_copies(tmp_path):
    def function(name, body):
        return f'def {name}(x):\n    """Compute what is asked for."""\n    {body}\n    return x\n'

    (tmp_path / "a.py").write_text(function("one", "x += 1"))
    assert len(stdlib.cut(tmp_path)) == 1
    (tmp_path / "b.py").write_text(function("two", "x += 2"))
    assert stdlib.cut(tmp_path) == []


def test_beir_folder(collection):
    data = load(f"beir:{collection}", "test")
    assert list(data.queries) == ["q0", "q2", "q4", "q6"]
    assert len(data.corpus) == 30
    assert data.notes["leaks"] == {"dev": {"query_ids": 0, "query_texts": 0, "documents": 0}}


def test_fingerprint_follows_the_content(collection):
    before = load(f"beir:{collection}", "test").fingerprint
    path = collection / "qrels/test.tsv"
    path.write_text(path.read_text().replace("q0\td0\t1", "q0\td0\t2"))
    assert load(f"beir:{collection}", "test").fingerprint != before


def test_skipped_rows_are_counted_in_the_notes(collection, capsys):
    with open(collection / "corpus.jsonl", "a") as stream:
        stream.write('{"_id": "d0", "text": "again"}\n{"_id": "e"}\n{"_id": "f"}\n')
    with pytest.raises(UserError, match="d0"):
        load(f"beir:{collection}", "test")
    notes = load(f"beir:{collection}", "test", skip_bad_rows=True).notes
    assert notes["skipped_rows"] == {"duplicate document id": 1, "empty document": 2}
    assert "2 empty document" in capsys.readouterr().err


def test_what_archives_hide_beside_the_judgements_is_no_split(collection):
    expected = load(f"beir:{collection}", "test").fingerprint
    for name in ("._test.tsv", ".~lock.test.tsv"):
        (collection / "qrels" / name).write_bytes(b"\0\x05\x16\xff")
    assert load(f"beir:{collection}", "test").fingerprint == expected


def test_leaks_count_query_ids_normalised_texts_and_documents():
    source = Source(
        corpus={d: Document("", d) for d in "abc"},
        queries={"q1": "What is it?", "q2": "what, is IT", "q3": "other"},
        qrels={"train": {"q1": {"a": 1}, "q3": {"b": 1}}, "test": {"q2": {"a": 1, "c": 0}, "q3": {"c": 1}}},
    )
    assert leaks(source, "test") == {"train": {"query_ids": 1, "query_texts": 2, "documents": 1}}


def test_leak_is_said_aloud(collection, capsys):
    (collection / "qrels/train.tsv").write_text((collection / "qrels/test.tsv").read_text())
    load(f"beir:{collection}", "test")
    assert "share 4 query ids" in capsys.readouterr().err


def test_texts_to_encode(collection):
    ids, texts = load_texts(f"beir:{collection}", "doc", None)
    assert (len(ids), texts[0].split()[0]) == (30, "the")
    assert load_texts(f"beir:{collection}", "query", "dev")[0] == ["q1", "q3", "q5", "q7"]


@pytest.mark.parametrize("name", ["", "stdlib", "builtin:", "builtin:stdlb", "beir:/nowhere", "csv:x"])
def test_unknown_source_is_refused(name):
    with pytest.raises(UserError, match=r"builtin|BEIR folder"):
        check_split(name, "test")


def test_missing_split_lists_the_splits_there(collection):
    with pytest.raises(UserError, match=r"did you mean 'test'.*known: dev, test"):
        check_split(f"beir:{collection}", "tset")


# ---- hf: ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A dataset repository as BEIR publishes them, in a local folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repo"
    (folder / "qrels").mkdir(parents=True)
    rows = {
        "corpus.jsonl": [{"_id": "1", "title": "T", "text": "apple"}, {"_id": "2", "title": "", "text": "pear"}],
        "queries.jsonl": [{"_id": "10", "text": "which apple"}, {"_id": "11", "text": "which pear"}],
        "qrels/test.jsonl": [{"query-id": 10, "corpus-id": 1, "score": 1}],  # the hub's copies have numbers here
        "qrels/train.jsonl": [{"query-id": 11, "corpus-id": 2, "score": 2}],
    }
    for name, lines in rows.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: corpus\n  data_files:\n  - split: corpus\n    path: corpus.jsonl\n"
        "- config_name: queries\n  data_files:\n  - split: queries\n    path: queries.jsonl\n"
        "- config_name: default\n  data_files:\n  - split: train\n    path: qrels/train.jsonl\n"
        "  - split: test\n    path: qrels/test.jsonl\n---\n"
    )
    return folder


def test_hub_dataset(hub_folder):
    data = load(f"hf:{hub_folder}", "test")
    assert data.corpus == {"1": Document("T", "apple"), "2": Document("", "pear")}
    assert (data.queries, data.qrels) == ({"10": "which apple"}, {"10": {"1": 1}})


def test_hub_dataset_without_judgements_can_be_searched(hub_folder):
    readme = hub_folder / "README.md"
    readme.write_text(readme.read_text().partition("- config_name: default")[0] + "---\n")
    corpus, queries = load_unjudged(f"hf:{hub_folder}", None, queries=True)
    assert (corpus["1"], queries) == (Document("T", "apple"), {"10": "which apple", "11": "which pear"})
    assert load_unjudged(f"hf:{hub_folder}", None) == (corpus, {})


def test_signs_of_a_hub_name_may_be_those_of_a_folder(hub_folder):
    for name in ("set@v2", "set:v2", "a@b:c@d,e"):
        hub_folder = hub_folder.rename(hub_folder.with_name(name))
        assert load(f"hf:{hub_folder}", "test").qrels == {"10": {"1": 1}}, name
    with pytest.raises(UserError, match=r"hf:nobody/set:v2@main names the configuration 'v2'.*Write hf:nobody/set@main"):
        load("hf:nobody/set:v2@main", "test")


def test_hub_grades_may_be_floats_and_ids_zero(hub_folder):
    (hub_folder / "corpus.jsonl").write_text('{"_id": "0", "title": "", "text": "quince"}\n')
    (hub_folder / "qrels/test.jsonl").write_text('{"query-id": 10, "corpus-id": 0, "score": 1.0}\n')
    (hub_folder / "qrels/train.jsonl").write_text('{"query-id": 11, "corpus-id": 0, "score": 2.0}\n')
    assert load(f"hf:{hub_folder}", "test").qrels == {"10": {"0": 1}}


def test_hub_corpus_in_two_splits_is_refused_not_halved(hub_folder):
    readme = hub_folder / "README.md"
    more = "    path: corpus.jsonl\n  - split: more\n    path: corpus.jsonl\n"
    readme.write_text(readme.read_text().replace("    path: corpus.jsonl\n", more))
    with pytest.raises(UserError, match="corpus in the splits corpus, more"):
        load(f"hf:{hub_folder}", "test")


def test_judgements_in_a_dataset_of_their_own_with_a_revision_of_their_own(hub_folder, monkeypatch):
    """BeIR/NAME and BeIR/NAME-qrels, as the hub holds them, each pinned."""
    import datasets

    asked = []
    real = datasets.load_dataset

    def hub(repo, config=None, revision=None, **kwargs):
        asked.append((repo.removeprefix(str(hub_folder)), config, revision))
        return real(str(hub_folder), config or "default", **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda repo, revision=None: ["corpus", "queries"])
    assert load(f"hf:{hub_folder}@abc,def", "test").qrels == {"10": {"1": 1}}
    assert asked == [("-qrels", None, "def"), ("", "corpus", "abc"), ("", "queries", "abc")]


def test_hub_dataset_without_the_split_lists_those_there(hub_folder):
    with pytest.raises(UserError, match="known: test, train"):
        load(f"hf:{hub_folder}", "dev")


def test_hub_dataset_with_an_unknown_id_is_refused(hub_folder):
    (hub_folder / "qrels/test.jsonl").write_text('{"query-id": 10, "corpus-id": 99, "score": 1}\n')
    with pytest.raises(UserError, match="document id '99'"):
        load(f"hf:{hub_folder}", "test")


def test_hub_judgements_under_other_names(hub_folder):
    def write(query, doc, grade):
        for path, ids in (("test", (10, 1, 1)), ("train", (11, 2, 2))):
            row = dict(zip((doc, query, grade), (ids[1], ids[0], ids[2]), strict=True))
            (hub_folder / f"qrels/{path}.jsonl").write_text(json.dumps(row) + "\n")

    for names in (("query_id", "corpus_id", "score"), ("qid", "docid", "relevance")):
        write(*names)
        assert load(f"hf:{hub_folder}", "test").qrels == {"10": {"1": 1}}
    write("query_id", "corpus_id", "weight")
    with pytest.raises(UserError, match=r"lack the columns .*score .*Rename"):
        load(f"hf:{hub_folder}", "test")


def test_hub_dataset_of_another_layout_is_refused(hub_folder):
    readme = hub_folder / "README.md"
    readme.write_text(readme.read_text().replace("config_name: queries", "config_name: questions"))
    with pytest.raises(UserError, match="no configuration queries"):
        load(f"hf:{hub_folder}", "test")


def test_changed_local_dataset_is_read_again(hub_folder):
    load(f"hf:{hub_folder}", "test")
    (hub_folder / "corpus.jsonl").write_text('{"_id": "1", "title": "", "text": "quince"}\n')
    (hub_folder / "qrels/train.jsonl").write_text('{"query-id": 11, "corpus-id": 1, "score": 2}\n')
    assert load(f"hf:{hub_folder}", "test").corpus == {"1": Document("", "quince")}


def test_hub_dataset_that_cannot_be_had_is_refused():
    with pytest.raises(UserError, match="Check the name"):
        load("hf:nobody/nothing", "test")
