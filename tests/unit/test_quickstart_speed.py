"""The machine's speed holds nothing that the process has loaded before."""

import gc

from research.quickstart import speed


def test_plain_python_is_timed_without_garbage_collections(monkeypatch):
    """After torch's import a full collection takes ten parsings' time; three of them in twenty gave a speed of a third."""
    collections = []
    monkeypatch.setattr(gc, "callbacks", [lambda phase, info: collections.append(phase)])
    assert speed._slowness() > 0
    assert not collections
    assert gc.isenabled()
