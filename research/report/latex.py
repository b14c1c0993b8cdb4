"""Sheets → LaTeX with booktabs, as a paper includes them: \\input{results.tex}."""

from typing import Any

from research.report.sheets import Cell, Sheet

SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "±": r"$\pm$", "†": r"$^{\dagger}$",
           "α": r"$\alpha$", "β": r"$\beta$", "η": r"$\eta$", "²": "$^2$",
           "λ": r"$\lambda$", "≥": r"$\geq$", "≤": r"$\leq$", "<": "$<$", ">": "$>$",
           "·": r"$\cdot$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "↑": r"$\uparrow$", "–": "--", "’": "'",
           "×": r"$\times$", "…": r"\ldots{}", "|": r"\textbar{}", '"': "''"}  # fmt: skip


def render(sheet: Sheet) -> str:
    """A table environment: caption above, notes below, best bold, second underlined. Needs \\usepackage{booktabs}."""
    align = "l" * sheet.texts + "r" * (len(sheet.columns) - sheet.texts)
    head = " & ".join(map(escape, sheet.columns))
    body = [" & ".join(map(_cell, row)) + r" \\" for row in sheet.rows]
    notes = [r"\par\smallskip\footnotesize " + escape(" ".join(sheet.notes))] if sheet.notes else []
    return "\n".join([
        r"% needs \usepackage{booktabs}", r"\begin{table}[t]", r"\centering", rf"\caption{{{escape(sheet.title)}}}",
        rf"\label{{tab:{slug(sheet.name)}}}", rf"\begin{{tabular}}{{{align}}}", r"\toprule", head + r" \\", r"\midrule", *body,
        r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", "",
    ])  # fmt: skip


def escape(text: str) -> str:
    """Names come from users: nothing in them may be a command. What pdfLaTeX has no glyph for becomes a question mark."""
    out = "".join(SPECIAL.get(one, one) for one in " ".join(text.split()))
    return out.encode("latin-1", "replace").decode("latin-1")


def slug(name: str) -> str:
    return "".join(one if one.isascii() and one.isalnum() else "-" for one in name)


def distinct(parts: list[Any]) -> list[Any]:
    """Sheets or figures with names whose files are not each other's: by α and by β are `by--` and `by---2`."""
    found, taken = [], set()
    for part in parts:
        name, i = part.name, 1
        while slug(name).lower() in taken:  # some disks take A and a for one
            i += 1
            name = f"{part.name}-{i}"
        taken.add(slug(name).lower())
        found.append(part._replace(name=name))
    return found


def _cell(cell: Cell) -> str:
    text, mark = escape(cell.text), escape(cell.mark)
    if cell.rank:
        # the value alone, not its spread
        value, plus, spread = text.partition(r" $\pm$")
        text = (rf"\textbf{{{value}}}" if cell.rank == 1 else rf"\underline{{{value}}}") + plus + spread
    return text + mark
