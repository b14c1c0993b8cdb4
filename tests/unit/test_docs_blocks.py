"""The helper that runs a page's blocks fails where the page is wrong."""

from pathlib import Path

import pytest

from research.errors import UserError
from tests.docs_blocks import blocks, commands, run_page, share_not_run


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text.replace("'''", "```"))
        return path

    return write


def test_blocks_run_in_order_in_one_namespace(page):
    path = page(
        "'''python\nx = 2\n'''\ntext\n\n- item\n\n  '''python\n  print(x * 3)\n  '''\n\n<!-- output -->\n'''text\n6\n'''\n"
    )
    assert run_page(path)["x"] == 2
    assert [(block.language, block.line, block.is_output) for block in blocks(path.read_text())] == [
        ("python", 2, False),
        ("python", 9, False),
        ("text", 14, True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'''python\nx = 1\nprint(x)\n'''\n<!-- output -->\n'''text\n2\n'''\n", "page.md:7: expected\n2\n\ngot\n1"),
        ("'''python\n>>> 1 + 1\n3\n'''\n", "Expected:\n    3\nGot:\n    2"),
        ("'''bash\nls\n'''\n", "ls is no verb of ours"),
        ("'''bash\nresearch --help > x\n'''\n", "pipes and redirections"),
        ("'''bash\nresearch serach\n'''\n", "exit code 2"),
        ("<!-- output -->\n'''text\n2\n'''\n", "an output without a block"),
        ("<!-- not run -->\n'''bash\nls\n'''\n", "no reason is given"),
    ],
)
def test_a_wrong_block_fails_with_its_place(page, text, message):
    with pytest.raises(AssertionError, match=message):
        run_page(page(text))


def test_a_traceback_has_the_line_of_the_page(page):
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page("# Title\n\n'''python\nx = 1\nx / 0\n'''\n"))
    assert caught.traceback[-1].lineno + 1 == 5


def test_verbs_run_here_and_files_are_written(page, capsys):
    run_page(
        page(
            "'''txt title=\"in/lines.txt\"\na bee\na mill\n'''\n'''bash\n$ research search --corpus in/lines.txt \\\n"
            "    --retriever bm25 --query bee  # one\n'''\n<!-- output -->\n'''json\n"
            '{"query_id": "q1", "query": "bee", "hits": [{..."id": "lines.txt#1"...}]}\n\'\'\'\n'
        )
    )


def test_what_is_not_run_is_parsed(page):
    before = "<!-- not run: it takes an hour -->\n\n"
    path = page(f"{before}'''bash\npip install x\nresearch retrieve --data beir:x --split test --retriever bm25 --out y\n'''\n")
    run_page(path)
    assert share_not_run([path]) == 1
    with pytest.raises(UserError, match="unknown option --retreiver"):
        run_page(page(f"{before}'''bash\nresearch retrieve --data beir:x --retreiver bm25\n'''\n"))
    with pytest.raises(SyntaxError):
        run_page(page(f"{before}'''python\nx = \n'''\n"))
    half = page(f"'''python\nx = 1\n'''\n{before}'''python\nx = 1\n'''\n'''yaml\na: 1\n'''\n")
    assert share_not_run([half]) == 0.5


def test_names_are_replaced_by_tiny_ones(page):
    assert run_page(page("'''python\nname = 'large'\n'''\n"), {"large": "tiny"})["name"] == "tiny"


def test_commands_are_split_as_a_shell_does():
    assert commands("# why\nresearch fit \\\n  -c 'a b.yaml'\n\n$ research test x  # now\n") == [
        ["research", "fit", "-c", "a b.yaml"],
        ["research", "test", "x"],
    ]
