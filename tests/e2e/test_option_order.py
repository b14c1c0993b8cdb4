"""All verbs list their options in one order: what they work on, where the result goes, choices, computation, W&B, the rest."""

import argparse
import contextlib

import pytest

from research import cli
from research.verbs import options

TITLES = (options.INPUT, options.OUTPUT, options.CHOICES, options.COMPUTATION, options.WANDB, options.OTHER)
NAMED = {
    options.INPUT: "config set data split skip-bad-rows columns corpus queries query retriever model runs prompts",
    options.OUTPUT: "out name",
    options.COMPUTATION: "precision token-budget batch-size device cache workers gpus threads cpus-per-task gpus-per-node mem",
    options.WANDB: "wandb count",
    options.OTHER: "dry-run json",
}
PLACE = {name: title for title, names in NAMED.items() for name in names.split()}
PAGES = [(verb,) for verb in cli.VERBS] + [("sweep", step) for step in ("compile", "plan", "run", "submit", "status")]


@pytest.fixture
def pages(monkeypatch) -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """The parser that prints each page of help."""
    parsers: dict[tuple[str, ...], argparse.ArgumentParser] = {}
    for words in PAGES:

        def print_help(parser: argparse.ArgumentParser, words: tuple[str, ...] = words) -> None:
            parsers[words] = parser

        monkeypatch.setattr(cli.Parser, "print_help", print_help)
        with contextlib.suppress(SystemExit):
            cli.main([*words, "--help"])
    return parsers


def long_name(action: argparse.Action) -> str:
    return next((name[2:] for name in action.option_strings if name.startswith("--")), "")


def titled(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """(title, option) as the page shows them; a title of the verb's own counts as a choice."""
    listed = []
    for group in parser._action_groups:
        for action in group._group_actions:
            name = long_name(action)
            if name and name != "help":
                title = group.title if group.title in TITLES else options.CHOICES
                listed.append((PLACE.get(name, options.CHOICES) if group is parser._optionals else title, name))
    return listed


def test_every_page_has_one_order(pages):
    assert {*pages} == {*PAGES}
    for words, parser in pages.items():
        # --dry-run of a report is of its --wandb, and stands beside it
        shown = [(title, name) for title, name in titled(parser) if (*words, name) != ("report", "dry-run")]
        places = [TITLES.index(title) for title, _ in shown]
        assert places == sorted(places), (words, shown)
        typed = [long_name(action) for action in parser._actions]
        usage = [name for name in typed if name not in ("", "help") and (*words, name) != ("report", "dry-run")]
        assert usage == [name for _, name in shown], words


def test_an_option_stands_under_one_title_everywhere(pages):
    wrong = [
        (words, name, title)
        for words, parser in pages.items()
        for title, name in titled(parser)
        if PLACE.get(name, title) != title
    ]
    assert wrong == []


def test_a_page_with_many_options_has_titles(pages):
    for words, parser in pages.items():
        flat = [action for action in parser._optionals._group_actions if long_name(action) != "help"]
        assert len(flat) <= 10, words
        assert len(flat) in (0, len(titled(parser))), words
