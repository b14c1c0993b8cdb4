"""Text files as a corpus: each line of a .txt is a passage; .md files and folders are cut into passages for an encoder."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from research.data.rows import BadRows, read_lines
from research.data.table_files import read_text
from research.errors import UserError
from research.progress import say
from research.types import Corpus, Document

TEXT_ENDINGS = (".txt", ".md")
# a word; one character of a script that writes no blanks between words (Thai to Khmer, kana, Han); or, of what has no blank for
# more than 100 characters (base64, minified code), pieces of 10, so that a passage of them is no longer than one of words
WORD = re.compile(
    r"[\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\S{1,100}+(?!\S)|\S{1,10}"
)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


class Cut(NamedTuple):
    """How long passages are.

    Attributes:
        words: of a passage; 150 are about 200 tokens, which MiniLM's 256 hold with a title.
        overlap: words that a passage shares with the one before, so that no sentence is lost at a cut.
    """

    words: int = 150
    overlap: int = 30

    def check(self) -> "Cut":
        """Return itself, or refuse an overlap with which passages would not advance.

        Raises:
            UserError: no word, or as much overlap.
        """
        if self.words < 1:
            raise UserError(f"--passage-words {self.words}; expected 1 or more. Leave it out to take {Cut().words}.")
        if not 0 <= self.overlap < self.words:
            raise UserError(
                f"--passage-overlap {self.overlap}; expected 0 to {self.words - 1}, less than the {self.words} words of a "
                f"passage. Pass --passage-overlap {self.words // 5}, say."
            )
        return self


class Passages(Corpus):
    """A corpus of files.

    Attributes:
        files: passage id → its file, relative to the corpus's folder; of a single file its name.
    """

    def __init__(self):
        super().__init__()
        self.files: dict[str, str] = {}

    def add(self, name: str, document: Document, file: str) -> None:
        """Put a passage at the end."""
        self[name], self.files[name] = document, file


def is_text(source: Path) -> bool:
    """Return whether it is a .txt or .md file, or a folder that has one somewhere."""
    return _is_text_file(source) or (source.is_dir() and next(_texts_in(source), None) is not None)


def read_passages(source: Path, cut: Cut, bad: BadRows) -> Passages:
    """Read passages of text files with ids `file#n`: n counts the lines of a .txt file, and the passages of other documents.

    Args:
        source: a .txt file (a line a passage), an .md file, or a folder of both (each file a document).
        cut: of documents.
        bad: what to do with a file that cannot be read.

    Raises:
        UserError: no file, no word in any, or two files of one name but for blanks.
    """
    corpus = Passages()
    if not source.is_dir() and not source.name.lower().endswith(".md"):
        for where, text in read_lines(source):
            corpus.add(name_of(source.name, where), Document("", text), source.name)
        say(f"{source}: {len(corpus):,} passages, each a line (in a folder, or named .md, a text is cut by its words)")
        return corpus
    files = [source]
    if source.is_dir():
        visible = list(_visible(source))
        files = sorted(filter(_is_text_file, visible))
        _say_others(source, visible)
    blank, unreadable = [], 0
    for path in files:
        file = path.relative_to(source).as_posix() if path != source else path.name
        name = _plain(file)
        if f"{name}#1" in corpus:
            raise UserError(f"{path}: another file is {name!r} too, once blanks are _; expected names that differ. Rename it.")
        try:
            text = read_text(path)
        except UserError as error:
            if path == source:
                raise
            if not bad.skip:
                raise UserError(f"{str(error).removesuffix('.')}{bad.offer('leave such files out, counted')}.") from None
            bad.report(str(path), "unreadable files", str(error), "")
            unreadable += 1
            continue
        passages = cut_passages(text, cut)
        title = _title(path, text)
        for number, passage in enumerate(passages, 1):
            corpus.add(f"{name}#{number}", Document(title, passage), file)
        blank += [] if passages else [path.name]
    if blank:
        say(f"{source}: {len(blank):,} files hold no word and are left out, {blank[0]} for example")
    if not corpus:
        raise UserError(f"{source} holds no word in {len(files)} text files; expected one or more. Name another folder.")
    read = len(files) - len(blank) - unreadable
    overlap = f"overlap {cut.overlap}, more in a file's last one"
    count = f"{read:,} file{'s' if read > 1 else ''}"
    say(f"{source}: {len(corpus):,} passages of up to {cut.words} words ({overlap}) from {count}")
    return corpus


def refuse_other_kinds(folder: Path, tables: str) -> NoReturn:
    """Refuse a folder that holds no text file, and say what is read instead.

    Args:
        folder: without a text file.
        tables: the endings of tables, which are read as well.

    Raises:
        UserError: always.
    """
    kinds = Counter(path.suffix.lower() or path.name for path in _visible(folder))
    found = f"{kinds.total():,} files, none of a kind that is read ({', '.join(sorted(kinds)[:5])})" if kinds else "no file"
    cures = {".pdf": "pdftotext FILE.pdf"} | dict.fromkeys(
        (".docx", ".epub", ".htm", ".html", ".odt", ".org", ".rst", ".tex"), "pandoc -t plain -o FILE.txt FILE"
    )
    cure = "; ".join(dict.fromkeys(cures[kind] for kind in sorted(kinds) if kind in cures))
    raise UserError(
        f"{folder} holds {found}; expected {' and '.join(TEXT_ENDINGS)} files, or one table of {tables}. "
        + (f"Convert them ({cure}), or name another folder." if cure else "Name another folder, or convert the texts to .txt.")
    )


def cut_passages(text: str, cut: Cut) -> list[str]:
    """Cut a text into passages of `cut.words` words that overlap; characters between words stay as they are.

    Returns:
        Passages in order; the last one is as long as the others where the text is, and overlaps more. [] without a word.
    """
    spans = [match.span() for match in WORD.finditer(text)]
    last = max(0, len(spans) - cut.words)
    starts = [*range(0, last, cut.words - cut.overlap), last] if spans else []
    return [text[spans[i][0] : spans[min(i + cut.words, len(spans)) - 1][1]] for i in starts]


def name_of(file: str, where: str) -> str:
    """Make an id for a line or row without one: the file's name and a number, without blanks, as TREC's files need."""
    return f"{_plain(file)}#{re.findall(r'[0-9]+', where)[-1]}"


def _plain(name: str) -> str:
    return re.sub(r"\s", "_", name)


def _title(path: Path, text: str) -> str:
    """Return the first heading of a Markdown file; the file's name where there is none, or no text but the heading."""
    heading = HEADING.search(text) if path.suffix.lower() == ".md" else None
    return heading[1] if heading and heading[0].strip() != text.strip() else path.stem


def _say_others(folder: Path, visible: list[Path]) -> None:
    others = [path.suffix or path.name for path in visible if not _is_text_file(path)]
    if others:
        kinds = ", ".join(sorted({*others})[:5])
        say(f"{folder}: {len(others):,} files of other kinds are left out ({kinds}); {' and '.join(TEXT_ENDINGS)} are read")


def _is_text_file(path: Path) -> bool:
    return path.name.lower().endswith(TEXT_ENDINGS) and path.is_file()


def _texts_in(folder: Path) -> Iterator[Path]:
    return filter(_is_text_file, _visible(folder))


def _visible(folder: Path) -> Iterator[Path]:
    """List the files in a folder and its subfolders, except hidden ones.

    Linked subfolders too, but each real folder once: under its own name where it has one in here, so that links change no ids.
    """
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        linked: list[Path] = []
        for top in waiting:
            yield from _walk(top, seen, linked)
        waiting = sorted(linked)


def _walk(top: Path, seen: set[str], linked: list[Path]) -> Iterator[Path]:
    """List the files below a folder that was not seen before, and collect the links to folders, which are not followed."""
    for place, folders, files in os.walk(top):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name[0] != "."]
        linked += [path for name in folders if (path := Path(place, name)).is_symlink()]
        yield from (path for name in files if name[0] != "." and (path := Path(place, name)).is_file())
