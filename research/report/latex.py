"""Sheets → LaTeX with booktabs, as a paper includes them: \\input{results.tex}."""

import math
import re
import unicodedata

from research.report.sheets import Cell, Sheet, slug

NARROW_LETTERS, WIDE_LETTERS = " .,:;|!'()[]/ijlft-", "mwMW%±−→×@–"
"""Letters of other widths than most."""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "η": r"$\eta$",
    "²": "$^2$",
    "λ": r"$\lambda$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "<": "$<$",
    ">": "$>$",
    "·": r"$\cdot$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "–": "--",
    "’": "'",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "|": r"\textbar{}",
    '"': "''",
}

LETTERS = {"þ": "th", "Þ": "Th", "ð": "dh", "Ð": "Dh", "«": r"$\ll$", "»": r"$\gg$", "\xa0": "~", "\xad": r"\-{}"}
"""Latin-1 that pdfLaTeX's own fonts lack, or that is no letter."""
WIDTH = 345.0  # pt, \linewidth of article, for which tables are laid out; on narrower lines they shrink further
SMALLEST = 0.66  # of its size that a table is shrunk to
LONG = 120.0  # pt: columns that are wrapped in a table that is too wide
NARROW = 100.0  # pt: the least that a wrapped column has
GAP = 4  # pt: \tabcolsep
LINES = 33  # that a page holds with caption and notes
FLOATS = 6  # pages of one table before LaTeX must set them: it keeps few in memory
WORD = 14  # letters that are never broken


def render(sheet: Sheet, prefix: str = "") -> str:
    """Write a table environment: caption above, notes below, best bold, second underlined.

    It fits the line: a table that is too wide has its sentences wrapped, then its columns in blocks below each other, and is
    shrunk for the rest. More rows than a page has are a table "(continued)": longtable fits no paper of two columns.

    Args:
        sheet: the table.
        prefix: of its label, so that the tables of two reports can stand in one paper: the report's title.
    """
    sheet = _distinguish_texts(sheet)
    widths = [_natural(sheet, i) for i in range(len(sheet.columns))]
    wraps = _wraps(widths)
    blocks = _blocks(sheet, [wraps.get(i, width) for i, width in enumerate(widths)])
    parts = _parts(sheet, widths, wraps, blocks)
    label = re.sub("-+", "-", f"{slug(prefix).lower()}-{slug(sheet.name)}").strip("-")
    lines = [r"% needs \usepackage{booktabs,graphicx}"]
    for i, rows in enumerate(parts):
        lines += [r"\clearpage"] if i and i % FLOATS == 0 else []
        lines += [r"\begin{table}[tp]", r"\centering", rf"\setlength{{\tabcolsep}}{{{GAP}pt}}"]
        if i:
            lines += [r"\addtocounter{table}{-1}", rf"\caption{{{_breakable(sheet.title)} (continued)}}"]
        else:
            lines += [rf"\caption{{{_breakable(sheet.title)}}}", rf"\label{{tab:{label}}}"]
        lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
        tables = [_tabular(sheet, columns, rows, wraps) for columns in blocks]
        if len(tables) > 1:
            tables = [r"\begin{tabular}{@{}l@{}}", "\\\\[2ex]\n".join(tables), r"\end{tabular}"]
        lines += ["\n".join(tables) + "}"]
        if sheet.notes and rows is parts[-1]:
            lines += [r"\par\smallskip{\footnotesize\raggedright " + _breakable(" ".join(sheet.notes)) + r"\par}"]
        lines += [r"\end{table}"]
    return "\n".join([*lines, ""])


def render_plain(sheet: Sheet) -> str:
    """Write a bare tabular with \\hline, which needs no package. Title and notes are comments."""
    sheet = _distinguish_texts(sheet)
    align = "".join("l" if i < sheet.texts else "r" for i in range(len(sheet.columns)))
    lines = [" & ".join(map(_cell, row)) + r" \\" for row in [[Cell(name) for name in sheet.columns], *sheet.rows]]
    lines = ["{}" + line if line[0] in "[*" else line for line in lines]
    comments = [f"% {' '.join(text.split())}" for text in (sheet.title, *sheet.notes)]
    table = [rf"\begin{{tabular}}{{{align}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]
    return "\n".join([*comments, *table, ""])


def escape(text: str) -> str:
    """Escape a text from users: nothing in it may be a command. What pdfLaTeX has no glyph for becomes a question mark."""
    normal = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(SPECIAL.get(letter) or LETTERS.get(letter) or ("?" if _is_lost(letter) else letter) for letter in normal)


def _is_lost(letter: str) -> bool:
    """Return whether pdfLaTeX's own fonts (OT1, TS1) have no glyph for it."""
    return letter in LETTERS or (letter not in SPECIAL and not (" " <= letter <= "~" or "\xa0" <= letter <= "\xff"))


def _distinguish_texts(sheet: Sheet) -> Sheet:
    """Return the sheet, with codes of letters where two texts would be set alike, since LaTeX lacks the letters (Chinese)."""
    texts = {*sheet.columns, *(cell.text for row in sheet.rows for cell in row)}
    first: dict[str, str] = {}
    alike = {
        text
        for text in sorted(texts)
        for other in [first.setdefault(escape(text), text)]
        if " ".join(text.split()) != " ".join(other.split())
    }
    alike |= {first[escape(text)] for text in alike}
    codes = {text: "".join(f"U+{ord(letter):04X}" if _is_lost(letter) else letter for letter in text) for text in alike}
    if not codes:
        return sheet
    rows = [[cell._replace(text=codes.get(cell.text, cell.text)) for cell in row] for row in sheet.rows]
    return sheet._replace(columns=[codes.get(name, name) for name in sheet.columns], rows=rows)


# ---- layout ---------------------------------------------------------------------------------------------------------


def _natural(sheet: Sheet, i: int) -> float:
    """Estimate the points that a column takes on one line."""
    texts = [sheet.columns[i], *(row[i].text + row[i].mark for row in sheet.rows)]
    bold = any(row[i].rank == 1 for row in sheet.rows)
    return max(map(_points, texts)) + (4 if bold else 0) + 2 * GAP


def _points(text: str) -> float:
    """Estimate the width in Computer Modern of 10 pt."""
    return sum(3.2 if c in NARROW_LETTERS else 8 if c in WIDE_LETTERS else 7.2 if c.isupper() else 5.2 for c in text)


def _wraps(widths: list[float]) -> dict[int, float]:
    """Map each column that is wrapped to its points: long ones, if the table is too wide. They share what the others leave."""
    long = [i for i, width in enumerate(widths) if width > LONG] if sum(widths) > WIDTH else []
    room = WIDTH - sum(width for i, width in enumerate(widths) if i not in long)
    # not in proportion: a short column beside a sentence must be read too
    roots = {i: math.sqrt(widths[i]) for i in long}
    return {i: min(widths[i], max(NARROW, room * root / sum(roots.values()))) for i, root in roots.items()}


def _blocks(sheet: Sheet, widths: list[float]) -> list[list[int]]:
    """Split columns into blocks that stand below each other; each begins with the columns that say what a row is."""
    all_columns = list(range(len(widths)))
    if sum(widths) <= WIDTH / SMALLEST:
        return [all_columns]
    keys, rest = all_columns[: sheet.texts], all_columns[sheet.texts :]
    if not rest:
        keys, rest = all_columns[:1], all_columns[1:]
    room = max(NARROW, WIDTH / SMALLEST - sum(widths[i] for i in keys))
    total = sum(widths[i] for i in rest)
    blocks = _fill_blocks(rest, widths, room)
    for share in range(len(blocks), 4 * len(blocks) + 1):  # as few, and of equal width
        even = min(room, total / len(blocks) * share / len(blocks))
        if len(balanced := _fill_blocks(rest, widths, even)) == len(blocks):
            blocks = balanced
            break
    return [[*keys, *block] for block in blocks]


def _fill_blocks(columns: list[int], widths: list[float], room: float) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    for i in columns:
        if blocks[-1] and sum(widths[j] for j in blocks[-1]) + widths[i] > room:
            blocks.append([])
        blocks[-1].append(i)
    return blocks


def _parts(sheet: Sheet, widths: list[float], wraps: dict[int, float], blocks: list[list[int]]) -> list[list[list[Cell]]]:
    """Split the rows into pages, of about as many lines."""
    lines = [
        len(blocks) * max([1, *(math.ceil(1.2 * _points(row[i].text) / width) for i, width in wraps.items())])
        for row in sheet.rows
    ]
    widest = max(sum(wraps.get(i, widths[i]) for i in block) for block in blocks)
    most = LINES * max(1.0, widest / WIDTH) - 2 * len(blocks)  # what is shrunk is lower too
    count = max(1, math.ceil(sum(lines) / most))
    parts: list[list[list[Cell]]] = [[]]
    used = 0
    for row, height in zip(sheet.rows, lines, strict=True):
        if parts[-1] and (used + height > most or used >= sum(lines) / count):
            parts.append([])
            used = 0
        parts[-1].append(row)
        used += height
    return parts


def _tabular(sheet: Sheet, columns: list[int], rows: list[list[Cell]], wraps: dict[int, float]) -> str:
    align = "".join(
        rf"p{{{(wraps[i] - 2 * GAP) / WIDTH:.3f}\linewidth}}" if i in wraps else "l" if i < sheet.texts else "r"
        for i in columns
    )
    end = r" \tabularnewline" if any(i in wraps for i in columns) else r" \\"
    head = [Cell(name) for name in sheet.columns]
    cells = [[_wrapped(row[i]) if i in wraps else _cell(row[i]) for i in columns] for row in [head, *rows]]
    lines = [" & ".join(row) + end for row in cells]
    # a bracket would be an argument of the command before it
    lines = ["{}" + line if line[0] in "[*" else line for line in lines]
    return "\n".join(
        [rf"\begin{{tabular}}{{{align}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]
    )


def _wrapped(cell: Cell) -> str:
    return r"\raggedright\hspace{0pt}" + (_breakable(cell.text) + escape(cell.mark) if not cell.rank else _cell(cell))


def _breakable(text: str) -> str:
    """Escape a text; a long word (a path, a hash, a list) may break after a sign, and within what has none."""
    parts = []
    for word in text.split():
        if len(word) <= WORD:
            parts.append(escape(word))
            continue
        pieces = re.findall(r".+?(?:[/_=:;+-]|[.,](?!\d)|$)", word)  # not within a number
        steps = [8 if len(piece) > WORD else WORD for piece in pieces]
        cut = [piece[i : i + step] for piece, step in zip(pieces, steps, strict=True) for i in range(0, len(piece), step)]
        parts.append(r"\allowbreak{}".join(map(escape, cut)))
    return " ".join(parts)


def _cell(cell: Cell) -> str:
    text, mark = escape(cell.text), escape(cell.mark)
    if cell.rank:
        # the value alone, not its spread
        value, plus, spread = text.partition(r" $\pm$")
        text = (rf"\textbf{{{value}}}" if cell.rank == 1 else rf"\underline{{{value}}}") + plus + spread
    return text + mark
