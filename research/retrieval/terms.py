"""The terms of BM25: how texts are split, which words are left out, how words are stemmed."""

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from research.errors import UserError, suggest

WORDS = r"(?u)\b\w\w+\b"
# scripts without blanks between words (Thai, Lao, Tibetan, Burmese, Khmer, kana, Han), and Hangul, as in Lucene's CJKAnalyzer
NO_BLANKS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u3130-\u318f"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
MARKS = ("Mn", "Mc")
WIDTHS = re.compile("[\uff01-\uff9f]+")
TOKENIZERS = "words, characters, bigrams or regex:PATTERN"
LANGUAGES = (
    "chinese",
    "danish",
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "korean",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
)
"""Whose stop words bm25s has."""


class Terms(NamedTuple):
    """How texts become terms; all of them are in lower case first.

    Attributes:
        tokenizer: "words" of two letters or more, which end at vowel signs and other marks, as bm25s has them; "characters": in
            scripts without blanks each character is a term, elsewhere words, whole with their marks; "bigrams": there every two
            that follow each other, and one width of letters and kana, as Lucene's CJKAnalyzer; "regex:PATTERN": every match.
        stemmer: language of a Snowball stemmer (PyStemmer); None cuts nothing.
        stopwords: language whose stop words are left out; "none"; None takes the stemmer's language, or English.
    """

    tokenizer: str = "words"
    stemmer: str | None = None
    stopwords: str | None = None

    def check(self) -> "Terms":
        """Return itself, or refuse unknown values.

        Raises:
            UserError: an unknown tokenizer, pattern or language, or PyStemmer is not installed.
        """
        if self.tokenizer not in ("words", "characters", "bigrams") and not self.tokenizer.startswith("regex:"):
            raise UserError(f"--bm25-tokenizer {self.tokenizer}; expected {TOKENIZERS}. Pass one of them.")
        self._split()
        self._stem()
        if self.stopwords not in (None, "none", *LANGUAGES):
            raise UserError(
                f"--bm25-stopwords {self.stopwords} is not known; {suggest(self.stopwords, [*LANGUAGES, 'none'])}. "
                "Pass one of them."
            )
        return self

    def splitter(self) -> Callable[[str], list[str]]:
        """Build the function: text in lower case → its terms."""
        split, stem = self._split(), self._stem()
        left_out = frozenset(_stopwords(self.language))
        return lambda text: [stem(word) for word in split(text) if word not in left_out]

    @property
    def language(self) -> str:
        """Name the language of the stop words."""
        known = self.stemmer if self.stemmer in LANGUAGES else "none" if self.stemmer else "english"
        return self.stopwords or known

    def _split(self) -> Callable[[str], list[str]]:
        if self.tokenizer == "words":
            return re.compile(WORDS).findall
        if self.tokenizer in ("characters", "bigrams"):
            size = 1 if self.tokenizer == "characters" else 2
            return lambda text: [term for match in _stretches().finditer(_one_width(text)) for term in _pieces(match, size)]
        pattern = self.tokenizer.removeprefix("regex:")
        try:
            compiled = re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(
                f"--bm25-tokenizer regex:{pattern} is no regular expression ({error}); expected one whose matches "
                r"are the terms. Pass regex:\w+, say."
            ) from None
        return lambda text: [term for match in compiled.finditer(text) if (term := match.group())]

    def _stem(self) -> Callable[[str], str]:
        if self.stemmer is None:
            return str
        try:
            import Stemmer  # here: BM25 without stems needs no such package
        except ImportError:
            raise UserError(
                f"--bm25-stemmer {self.stemmer} needs the package PyStemmer, which is not installed here. "
                "pip install PyStemmer, or leave the option out."
            ) from None
        if self.stemmer not in (known := Stemmer.algorithms()):
            raise UserError(f"--bm25-stemmer {self.stemmer} is not known; {suggest(self.stemmer, known)}. Pass one of them.")
        return Stemmer.Stemmer(self.stemmer).stemWord

    def __str__(self) -> str:
        """Return the name that a run's facts have."""
        stems = f", {self.stemmer} stems" if self.stemmer else ""
        return f"{self.tokenizer}{stems}, stop words {self.language}"


DEFAULT = Terms()


def _one_width(text: str) -> str:
    """Make letters of full width narrow, and kana of half width wide, as Lucene's CJKWidthFilter: they are the same words."""
    return WIDTHS.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)


@functools.cache
def _stretches() -> re.Pattern:
    """Compile the pattern of a stretch of a script without blanks, or of a word of two letters or more, marks among them."""
    return re.compile(rf"([{NO_BLANKS}]+)|((?:(?![{NO_BLANKS}])[\w{_marks()}]){{2,}})")


@functools.cache
def _marks() -> str:
    """Return ranges of the characters that stand on letters, which end a word to Python's \\w.

    They are vowel signs of India's scripts, and accents that are separate characters.
    """
    codes = [code for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)) if unicodedata.category(chr(code)) in MARKS]
    first = [code for i, code in enumerate(codes) if i == 0 or codes[i - 1] != code - 1]
    last = [code for i, code in enumerate(codes) if i + 1 == len(codes) or codes[i + 1] != code + 1]
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in zip(first, last, strict=True))


def with_marks(text: str) -> bool:
    """Test whether a text has combining marks, that is, signs on letters that are separate characters."""
    return any(unicodedata.category(character) in MARKS for character in text)


def without_blanks(text: str) -> bool:
    """Test whether a text has a stretch of two or more characters in a script that writes no blanks between words."""
    return re.search(f"[{NO_BLANKS}]{{2}}", text) is not None


def _pieces(match: re.Match, size: int) -> list[str]:
    """Split a stretch into characters or pairs; a word, or a single character, stays whole."""
    stretch = match.group(1)
    if stretch is None:
        return [match.group()]
    return [stretch[i : i + size] for i in range(max(1, len(stretch) - size + 1))]


def _stopwords(language: str) -> tuple[str, ...] | list[str]:
    from bm25s.tokenization import _infer_stopwords  # here: it loads scipy; there is no public function

    return [] if language == "none" else _infer_stopwords(language)
