"""Tables → Markdown, for a README, an issue or a log."""

from research.report.row_notes import row_notes
from research.report.tables import Cell, Line, Table


def document(
    heading: str,
    finding: str,
    notes: list[str],
    lines: list[Line],
    tables: list[Table],
    trainings: str,
    sheets: list[tuple[str, str]] = (),
) -> str:
    """Write the page without figures and examples: heading, finding, tables, a study's sheets, ready-made trainings, notes."""
    parts = [f"# {escape(heading)}", escape(finding)]
    parts += [f"## {table.title}\n\n{render(table, lines)}" for table in tables]
    rows = [line.row for line in lines]
    parts += ["\n".join(map(escape, below))] if (below := row_notes(rows)) else []
    parts += [f"## {escape(title)}\n\n{sheet}" for title, sheet in sheets]
    parts += [f"## Training\n\n{trainings}"] if trainings else []
    parts += ["## Notes\n\n" + "\n".join(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def render(table: Table, lines: list[Line]) -> str:
    """Write one row a system; the interval follows its value in the same cell, the best value is bold."""
    head = ["", "System", *table.columns]
    rows = [
        [str(i), escape(line.row.label), *map(_cell, cells)]
        for i, (line, cells) in enumerate(zip(lines, table.body, strict=True), 1)
    ]
    align = ["--:", ":--", *["--:"] * len(table.columns)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *rows])


def escape(text: str) -> str:
    """Escape a text that comes from users: it may not end a cell, open a tag or start markup."""
    for special in "\\|*_`[]":
        text = text.replace(special, f"\\{special}")
    text = text.replace("<", "&lt;").replace(">", "&gt;")  # a backslash before them is shown by mkdocs
    return " ".join(text.split())


def _cell(cell: Cell) -> str:
    text = (f"**{cell.text}**" if cell.best else cell.text) + cell.mark
    return f"{text} {cell.detail}".strip()
