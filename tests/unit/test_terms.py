"""What BM25 counts as a term: by default what it always did; scripts without blanks, stemmers and patterns by choice."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import UserError
from research.retrieval.lexical import Bm25
from research.retrieval.terms import WORDS, Terms, without_blanks

CHINESE = {
    "z1": "北京是中华人民共和国的首都",
    "z2": "上海是中国最大的城市",
    "z3": "机器学习是人工智能的一个分支",
    "z4": "长城位于中国北部",
    "z5": "桥在河上",
}
ASKED = {"q1": "中国的首都", "q2": "最大的城市", "q3": "人工智能"}


@pytest.mark.parametrize(
    ("terms", "text", "expected"),
    [
        (Terms("characters"), "用python写 代码", ["用", "python", "写", "代", "码"]),
        (Terms("bigrams"), "用python写代码 a", ["用", "python", "写代", "代码"]),
        (Terms("bigrams"), "ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        (Terms("bigrams"), "東京タワー、한국어", ["東京", "京タ", "タワ", "ワー", "한국", "국어"]),
        (Terms("characters"), "the cats and a dog", ["cats", "dog"]),
        (Terms("bigrams"), "ｐｙｔｈｏｎ３ ﾀﾞﾑと", ["python3", "ダム", "ムと"]),  # one width
        (Terms("bigrams"), "राजधानी दिल्ली, चाय", ["राजधानी", "दिल्ली", "चाय"]),  # vowel signs are part of words
        (Terms("characters"), "தமிழ் மொழி cafe\u0301s 用", ["தமிழ்", "மொழி", "cafe\u0301s", "用"]),
        (Terms("regex:[a-z]+-[0-9]+"), "cve-2024 and the x-1", ["cve-2024", "x-1"]),
        (Terms("regex:(c)(b)?"), "cb c", ["cb", "c"]),  # the match, whatever its groups
        (Terms("regex:x*"), "xx y", ["xx"]),  # an empty match is no term
        (Terms(stemmer="english"), "the runners were running", ["runner", "were", "run"]),
        (Terms(stemmer="german"), "die häuser und der hunde", ["haus", "hund"]),  # of German no stop words stay
        (Terms(stemmer="finnish"), "the talossa", ["the", "talo"]),  # bm25s has no Finnish stop words
        (Terms(stopwords="none"), "the cat", ["the", "cat"]),
        (Terms(stopwords="french"), "le chat the", ["chat", "the"]),
    ],
)
def test_terms_of_a_text(terms, text, expected):
    assert terms.check().splitter()(text) == expected


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.text(st.characters(codec="utf-8", max_codepoint=0x24F) | st.sampled_from(" '_-é"), max_size=40))
def test_text_with_blanks_has_the_default_words_whichever_tokenizer(text):
    text = text.lower()
    expected = [word for word in re.findall(WORDS, text) if word not in _english()]
    assert Terms().splitter()(text) == Terms("characters").splitter()(text) == Terms("bigrams").splitter()(text) == expected


def _english():
    from bm25s.stopwords import STOPWORDS_EN

    return STOPWORDS_EN


@pytest.mark.parametrize("tokenizer", ["characters", "bigrams"])
def test_script_without_blanks_is_found(tokenizer):
    index = Bm25.build(list(CHINESE), list(CHINESE.values()), terms=Terms(tokenizer))
    run = index.search(ASKED, 5)
    assert {query: next(iter(docs)) for query, docs in run.items()} == {"q1": "z1", "q2": "z2", "q3": "z3"}


def test_words_end_at_vowel_signs_which_is_said_with_the_tokenizer_that_keeps_them(capsys):
    docs, queries = ["भारत की राजधानी", "चाय गरम है"], {"q": "चाय"}
    assert Bm25.say_unmatched(queries, Bm25.build(["a", "b"], docs).search(queries, 2), Terms()) == 1
    assert "vowels as marks, at which words end: pass --bm25-tokenizer bigrams" in capsys.readouterr().err
    assert [*Bm25.build(["a", "b"], docs, terms=Terms("bigrams")).search(queries, 2)["q"]] == ["b"]


def test_stem_that_no_document_spells_alike_is_found():
    """bm25s's own tokenizer forgets words of a query whose stem is known and whose form is not."""
    index = Bm25.build(["a", "b"], ["she was running", "a blue sky"], terms=Terms(stemmer="english"))
    assert list(index.search({"q": "runs"}, 2)["q"]) == ["a"]


def test_default_is_bit_for_bit_what_it_was():
    import bm25s

    texts = ["The quick brown fox_1 jumped", "over the lazy dog", "été à la mer", "北京是首都"]
    tokenizer = bm25s.tokenization.Tokenizer(stopwords="english", lower=True)
    tokens = tokenizer.tokenize(texts[::-1], return_as="ids", show_progress=False, allow_empty=False)
    scorer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    scorer.index((tokens, tokenizer.get_vocab_dict()), create_empty_token=False, show_progress=False)
    index = Bm25.build(list("abcd"), texts)
    for word, number in tokenizer.get_vocab_dict().items():
        scores = scorer.get_scores_from_ids([number])
        expected = {doc: float(score) for doc, score in zip("dcba", scores, strict=True) if score > 0}
        assert index.search({"q": word}, 4)["q"] == expected


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        (Terms("chars"), "expected words, characters, bigrams or regex:PATTERN"),
        (Terms("regex:("), "is no regular expression"),
        (Terms(stemmer="englisch"), "did you mean 'english'"),
        (Terms(stopwords="germn"), "did you mean 'german'"),
    ],
)
def test_unknown_terms_are_refused(terms, says):
    with pytest.raises(UserError, match=says):
        terms.check()


def test_scripts_without_blanks_are_known():
    assert [without_blanks(text) for text in ("中国", "ภาษา", "한국", "the 中 sign", "été", "слово")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
