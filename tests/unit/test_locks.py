"""Locks: what lies in their place stays as it is, and a file system that has none is said."""

import errno
import fcntl
import os

import pytest

from research.errors import UserError
from research.runs.layout import is_name
from research.runs.locks import exclusive, locked, open_lock
from research.runs.reading import read_json, read_yaml


def test_a_lock_is_not_taken_through_a_link_and_empties_nothing(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/lock").symlink_to(precious)
    with pytest.raises(UserError, match="symbolic link"), exclusive(tmp_path / "cache"):
        raise AssertionError("held through a link")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="symbolic link"), locked(tmp_path / "dangling"):
        raise AssertionError("held through a link")
    assert precious.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    with locked(precious):  # a file of another kind stays as it is
        assert precious.read_text() == "mine"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no file at all"):  # and does not wait for somebody who writes into it
        open_lock(tmp_path / "pipe")
    with pytest.raises(UserError, match="no file at all"):
        open_lock(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks_is_said_with_the_cure(number, tmp_path, monkeypatch):
    from research.runs.ledger import Ledger

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for attempt in (exclusive(tmp_path / "run", wait=False), locked(tmp_path / "l"), Ledger(tmp_path).claim("a")):
        with pytest.raises(UserError, match=r"cannot be locked .* Name another folder"), attempt:
            raise AssertionError("held")
    with pytest.raises(UserError, match="cannot be locked"):
        Ledger(tmp_path).append("a", "running")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_cache_that_cannot_be_written_is_read(number, tmp_path, monkeypatch):
    """As another user sees it, or a mount that is read-only: what is complete there is used, and what is not is said."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/answer").write_text("42")
    whole = os.open

    def refuse(path, flags, *more, **options):
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY) and str(path).startswith(str(tmp_path)):
            raise OSError(number, os.strerror(number), str(path))
        return whole(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    with exclusive(tmp_path / "made"):
        assert (tmp_path / "made/answer").read_text() == "42"
    monkeypatch.undo()
    (tmp_path / "made/lock").touch()  # another user's: it can be opened for reading, and that is enough to hold it
    monkeypatch.setattr(os, "open", refuse)
    with exclusive(tmp_path / "made"):
        monkeypatch.undo()
        with pytest.raises(UserError, match="another command"), exclusive(tmp_path / "made", wait=False):
            raise AssertionError("held twice")


def test_names_and_deep_files(tmp_path):
    assert [is_name(text) for text in ("a", "a b.c", "..", ".", "", "a/b", "a\nb", "\x1b", None)] == [True] * 2 + [False] * 7
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"deep\.json"):
        read_json(tmp_path / "deep.json")
    (tmp_path / "deep.yaml").write_text("[" * 5_000)
    with pytest.raises(UserError, match=r"deep\.yaml"):
        read_yaml(tmp_path / "deep.yaml", "file")
