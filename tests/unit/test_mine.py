"""Mining by hand: each reason to leave a document out, margins, ties, folds' merging, shortfall."""

import pytest

from research.data.equality import Known, normalise
from research.errors import UserError
from research.retrieval.candidates import (
    Candidate,
    find_candidates,
    keep_below,
    keep_first,
    known_relevant,
    parse_ranks,
    rescored,
    shortfall,
    to_triplets,
)
from research.retrieval.exact import exact_search, pair_scores
from research.retrieval.lexical import Bm25
from research.types import Document, Triplets

CORPUS = {name: Document("", f"text of {name}") for name in ("a", "b", "c", "d", "e", "q")}
RUN = {"q": {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}}


def known(*own: str, shared: tuple[str, ...] = ()) -> dict[str, Known]:
    return {"q": Known(frozenset(own), frozenset(shared))}


def mined(run=RUN, own=("b",), shared=(), corpus=CORPUS, first=1, last=30):
    found, counts = find_candidates(run, known(*own, shared=shared), corpus, first, last)
    return [(c.doc, c.position) for c in found["q"]], dict(counts)


# ---- what is never a negative ---------------------------------------------------------------------------------------


def test_relevant_document_is_left_out_and_keeps_its_position():
    assert mined() == ([("a", 1), ("c", 3), ("d", 4), ("e", 5)], {"relevant": 1})


def test_ranks_count_from_one_and_hold_both_ends():
    assert mined(first=2, last=4) == ([("c", 3), ("d", 4)], {"relevant": 1})
    assert mined(first=3, last=3) == ([("c", 3)], {})
    assert mined(first=6, last=9) == ([], {})


def test_own_id_is_left_out_before_positions_are_counted():
    run = {"q": {"a": 5.0, "q": 4.5, "c": 3.0, "d": 2.0}}
    assert mined(run, own=(), first=1, last=2) == ([("a", 1), ("c", 2)], {"own_id": 1})
    assert mined(run, own=(), first=1, last=1) == ([("a", 1)], {})  # it stood beyond what was asked for


def test_relevant_to_a_query_of_equal_text_is_left_out():
    assert mined(shared=("a", "d")) == ([("c", 3), ("e", 5)], {"relevant": 1, "relevant_to_equal_query": 2})


@pytest.mark.parametrize(
    ("positive", "copy"),
    [
        (Document("", "Some  Text"), Document("", "some text\n")),
        (Document("Title", "some text"), Document("TITLE", "some\ttext")),
        (Document("Title", "some text"), Document("Another", "some text")),  # the same passage under another title
        (Document("", "Title some text"), Document("Title", "some text")),  # the title within the text
        (Document("Title", ""), Document("title ", "")),
        (Document("", "STRASSE"), Document("", "straße")),
    ],
)
def test_copy_of_a_relevant_text_is_left_out(positive, copy):
    corpus = CORPUS | {"b": positive, "c": copy}
    assert mined(corpus=corpus) == ([("a", 1), ("d", 4), ("e", 5)], {"relevant": 1, "text_of_relevant": 1})


@pytest.mark.parametrize(
    ("positive", "other"),
    [
        (Document("Title", ""), Document("Another", "")),  # no text is no copy of no text
        (Document("", "x = y"), Document("", "x == y")),  # of code every sign counts
        (Document("Title", "some text"), Document("Title", "some texts")),
    ],
)
def test_text_that_differs_is_no_copy(positive, other):
    corpus = CORPUS | {"b": positive, "c": other}
    assert ("c", 3) in mined(corpus=corpus)[0]


def test_copy_of_what_is_relevant_to_an_equal_query_is_left_out():
    corpus = CORPUS | {"c": Document("", "TEXT of a")}
    assert mined(shared=("a",), corpus=corpus)[1] == {"relevant": 1, "relevant_to_equal_query": 1, "text_of_relevant": 1}


def test_query_without_a_ranking_has_no_candidate():
    found, counts = find_candidates({}, known("b"), CORPUS, 1, 30)
    assert (found, counts) == ({"q": []}, {})


def test_result_is_in_the_order_of_the_queries_whatever_the_ranking_s():
    both = {"r": Known(frozenset(), frozenset()), "q": Known(frozenset(), frozenset())}
    run = {"q": {"a": 1.0}, "r": {"b": 1.0}}
    assert list(find_candidates(run, both, CORPUS, 1, 30)[0]) == ["r", "q"]


def test_ties_keep_the_order_of_the_ranking():
    run = {"q": {"e": 1.0, "d": 1.0, "b": 1.0, "a": 1.0}}  # descending ids, as trec_eval ranks ties
    assert mined(run)[0] == [("e", 1), ("d", 2), ("a", 4)]


def test_known_relevant_gathers_every_split_and_queries_of_equal_text():
    queries = {"q": "What is IT?", "r": " what  is it? ", "s": "what is it"}
    splits = [{"q": {"a": 1, "b": 0, "c": -1}}, {"q": {"d": 2}, "r": {"e": 1, "a": 1, "b": 0}}, {"s": {"c": 1}}]
    assert known_relevant(["q", "s"], queries, splits) == {
        "q": Known(frozenset("ad"), frozenset("e")),  # of r, whose text is equal; of s it is not
        "s": Known(frozenset("c"), frozenset()),
    }


def test_normalise():
    assert normalise(" A\n\tb  ") == "a b"


# ---- margins --------------------------------------------------------------------------------------------------------

FOUND = {"q": [Candidate("a", 1, 0.875), Candidate("b", 2, 0.75), Candidate("c", 3, 0.5), Candidate("d", 4, -0.5)]}


@pytest.mark.parametrize(
    ("best", "margin", "relative", "kept"),
    [
        (0.875, 0.0, None, "abcd"),  # equal to the positive is allowed
        (0.875, 0.125, None, "bcd"),  # .75 ≤ .875 − .125
        (0.75, 0.125, None, "cd"),
        (0.75, -0.125, None, "abcd"),  # a negative margin allows as much above
        (0.5, 2.0, None, ""),
        (1.0, None, 0.75, "bcd"),  # .75 ≤ .75 · 1
        (1.0, None, 0.5, "cd"),
        (1.0, None, 0.0, "d"),
        (1.0, None, 1.0, "abcd"),
        (1.0, 0.5, 0.75, "cd"),  # both must hold
        (1.0, 0.25, 0.5, "cd"),
        (0.0, None, 0.95, ""),  # no share of nothing
        (-1.0, None, 0.5, ""),  # ½ · −1 = −.5 would admit what scores above the positive
        (-0.5, 0.0, None, "d"),
    ],
)
def test_margin_by_hand(best, margin, relative, kept):
    found, dropped = keep_below(FOUND, {"q": best}, margin, relative)
    assert "".join(c.doc for c in found["q"]) == kept
    assert dropped == 4 - len(kept)


def test_rescored_keeps_order_and_position():
    scores = {"q": {"a": -1.0, "b": 7.0, "c": 2.0, "d": 3.0}}
    assert rescored(FOUND, scores)["q"][:2] == [Candidate("a", 1, -1.0), Candidate("b", 2, 7.0)]


def test_keep_first():
    assert [c.doc for c in keep_first(FOUND, 2)["q"]] == ["a", "b"]
    assert keep_first(FOUND, None) == FOUND


def test_scores_of_given_pairs_are_those_of_the_search():
    import numpy as np

    draw = np.random.default_rng(0)
    queries, docs = draw.normal(size=(3, 8)).astype(np.float32), draw.normal(size=(5, 8)).astype(np.float32)
    for cosine in (False, True):
        scores, positions = exact_search(queries, docs, 5, cosine)
        for i in range(3):
            found = pair_scores(np.repeat(queries[i : i + 1], 5, axis=0), docs[positions[i]], cosine)
            np.testing.assert_allclose(found, scores[i], rtol=1e-5)


def test_bm25_scores_of_given_pairs_are_those_of_the_search():
    texts = {"x": "red apple", "y": "green apple pie", "z": "blue sky"}
    index = Bm25.build(list(texts), list(texts.values()))
    queries = {"q": "apple pie", "r": "unheard", "s": "sky"}
    run = index.search(queries, 3)
    pairs = [(query, doc) for query in queries for doc in texts]
    assert index.score_pairs(queries, pairs) == [run[query].get(doc, 0.0) for query, doc in pairs]


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_shortfall_by_hand():
    rows = {"q": FOUND["q"], "r": FOUND["q"][:1], "s": [], "t": FOUND["q"][:3]}  # 4, 1, 0, 3 of 3 wanted
    assert shortfall(rows, 3) == {
        "queries": 4,
        "negatives": 8,
        "wanted_a_query": 3,
        "queries_with_all": 2,
        "queries_with_fewer": 1,
        "queries_with_none": 1,
        "mean": 2.0,
        "median": 2.0,
        "least": 0,
        "queries_by_negatives": {"0": 1, "1": 1, "3": 1, "4": 1},
    }


def test_triplets_hold_positions_and_the_scores_that_are_known():
    found = {"q": [Candidate("a", 2, 0.5)], "r": []}
    queries, positives = {"q": "what", "r": "who"}, {"q": ["b"], "r": ["c"]}
    rows = list(to_triplets(found, queries, positives, CORPUS, {"q": {"b": 0.75}}))
    assert rows == [
        Triplets("q", "what", {"b": CORPUS["b"]}, {"a": CORPUS["a"]}, {"b": 0.75, "a": 0.5}, {"a": 2}),
        Triplets("r", "who", {"c": CORPUS["c"]}, {}),
    ]


@pytest.mark.parametrize(("text", "ranks"), [("1-30", (1, 30)), ("7-7", (7, 7)), ("11-50", (11, 50))])
def test_ranks_are_read(text, ranks):
    assert parse_ranks(text) == ranks


@pytest.mark.parametrize("text", ["", "30", "0-5", "5-4", "1-", "-5", "1-5-9", "a-b", "1 - 5", "1-" + "9" * 20])
def test_ranks_of_another_form_are_refused(text):
    with pytest.raises(UserError, match="expected FIRST-LAST"):
        parse_ranks(text)
