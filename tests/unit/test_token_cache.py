"""Tokens from the disk are those that would be made anew, and only where everything that they depend on is the same."""

from pathlib import Path

import pytest

from research.data import instruction_tokens, preference_tokens, token_cache
from research.data.instruction_tokens import tokenise
from research.data.preference_tokens import tokenise_preferences
from research.runs.hashes import hash_json
from research.types import Examples
from tests.lm import MARKED, byte_tokenizer, rows


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def examples(count: int = 80) -> Examples:
    made = rows(count)
    return Examples("rows.jsonl", None, made, hash_json(made))


def pairs(count: int = 80) -> Examples:
    made = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [{"role": "assistant", "content": f"no {i}"}]}
        for i, row in enumerate(rows(count))
    ]
    return Examples("pairs.jsonl", None, made, hash_json(made))


def never(*_args) -> None:
    raise AssertionError("tokenised again")


@pytest.mark.parametrize("packing", [False, True])
def test_instructions_from_the_disk_are_those_made_anew(packing, cache, monkeypatch):
    made = tokenise(examples(), byte_tokenizer(), 40, "completion", packing)
    assert made.truncated > 0  # counts are kept too
    (file,) = cache.iterdir()
    again = tokenise(examples(), byte_tokenizer(), 40, "completion", packing)
    assert again == made
    assert list(again.rows[0]) == list(made.rows[0])
    assert type(again.rows[0]["input_ids"][0]) is int
    assert list(cache.iterdir()) == [file]
    monkeypatch.setattr("research.data.instruction_tokens.learned_ids", never)
    assert tokenise(examples(), byte_tokenizer(), 40, "completion", packing) == made


def test_preferences_from_the_disk_are_those_made_anew(cache, monkeypatch):
    made = tokenise_preferences(pairs(), byte_tokenizer(), 60)
    monkeypatch.setattr("research.data.preference_tokens.pair_ids", never)
    assert tokenise_preferences(pairs(), byte_tokenizer(), 60) == made
    assert len(list(cache.iterdir())) == 1


def test_whatever_changes_the_tokens_is_another_file(cache):
    one = byte_tokenizer()
    first = tokenise(examples(), one, 64, "completion")
    longer, eos = byte_tokenizer(), byte_tokenizer()
    longer.add_tokens(["<|more|>"])
    eos.eos_token = "<|user|>"
    tokenise(examples(79), one, 64, "completion")  # texts
    tokenise(examples(), one, 63, "completion")
    tokenise(examples(), one, 64, "all")
    tokenise(examples(), one, 64, "completion", packing=True)
    tokenise(examples(), byte_tokenizer(MARKED), 64, "completion")
    tokenise(examples(), longer, 64, "completion")
    tokenise(examples(), eos, 64, "completion")
    assert len(list(cache.iterdir())) == 8
    assert tokenise(examples(), one, 64, "completion") == first
    assert len(list(cache.iterdir())) == 8


def test_what_cannot_be_told_from_outside_is_not_kept(cache):
    dated = byte_tokenizer("{{ strftime_now('%d %b %Y') if strftime_now is defined else '' }}" + MARKED)
    tokenise(examples(), dated, 64, "completion")
    tokenise(examples(8), byte_tokenizer(), 64, "completion")  # too few to be worth a file
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_a_damaged_file_is_made_again(damage, cache):
    made = tokenise(examples(), byte_tokenizer(), 64, "completion")
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert tokenise(examples(), byte_tokenizer(), 64, "completion") == made
    assert file.read_bytes() == whole


def test_a_disk_that_takes_none_is_a_warning(cache, capsys):
    cache.parent.mkdir()
    cache.write_text("in the way")
    assert len(tokenise(examples(), byte_tokenizer(), 64, "completion").rows) == 80
    assert "warning: the tokens are not kept" in capsys.readouterr().err


def test_our_own_code_is_part_of_the_name(cache, monkeypatch):
    tokenise(examples(), byte_tokenizer(), 64, "completion")
    getsource = token_cache.inspect.getsource
    for added, files in (("# a comment\n", 1), ("CHANGED = True\n", 2)):
        monkeypatch.setattr(token_cache.inspect, "getsource", lambda part, added=added: getsource(part) + added)
        tokenise(examples(), byte_tokenizer(), 64, "completion")
        assert len(list(cache.iterdir())) == files
    assert instruction_tokens._tokenised is not preference_tokens._tokenised
