"""A signal ends a training at once while nothing can be saved, but leaves no half-imported library behind."""

import importlib
import signal
import sys
import time

import pytest

from research.training.stop import SIGNALS, Stopped, stop_at_once

SLOW = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):
        pass
except BaseException:
    raise AttributeError("partially initialized module")
whole = True
"""


def stopped_in(act) -> Stopped:
    """What ends `act`."""
    with pytest.raises(Stopped) as stopped, stop_at_once():
        act()
    return stopped.value


def test_a_signal_is_raised_where_the_program_is_and_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    went_on = []

    def act():
        signal.raise_signal(signal.SIGTERM)
        went_on.append(True)

    assert stopped_in(act).exit_code == 85
    assert not went_on
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("seconds", [0, 30])
def test_a_signal_in_an_import_waits_for_its_end(tmp_path, monkeypatch, seconds):
    (tmp_path / "a_slow_library.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    started = time.monotonic()

    def act():
        assert importlib.import_module("a_slow_library").whole
        time.sleep(seconds)

    assert stopped_in(act).signal == signal.SIGUSR1
    assert time.monotonic() - started < 20
    del sys.modules["a_slow_library"]
