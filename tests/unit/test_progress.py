"""What is said on stderr while something is computed: at once, now and then, or not at all."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest
import tqdm

from research.progress import bar, say
from tests.tiers import ROOT


def test_a_log_gets_its_first_state_after_two_seconds_and_the_next_after_thirty(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    written = []
    with bar(1000, "encode doc", "text") as progress:
        for second in (1, 3, 10, 32, 34):
            now[0] = 100.0 + second
            progress.update(10)
            written.append(capsys.readouterr().err)
    assert [bool(text) for text in written] == [False, True, False, False, True]
    assert "encode doc:   2%" in written[1]
    assert "20/1000" in written[1]
    assert "<" in written[1]  # elapsed<left


@pytest.mark.parametrize(("value", "quiet"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_environment_quiets_lines_and_bars_but_no_warning(capsys, monkeypatch, value, quiet):
    monkeypatch.delenv("TANDEM_QUIET", raising=False) if value is None else monkeypatch.setenv("TANDEM_QUIET", value)
    say("index: exact")
    say("warning: 1 text is cut")
    with bar(2, "encode doc", "text") as progress:
        progress.last_print_t = progress.start_t = time.time() - 60
        progress.update(1)
    err = capsys.readouterr().err
    assert ("index: exact" in err, "encode doc" in err) == (not quiet, not quiet)
    assert "warning: 1 text is cut" in err


def test_a_finished_bar_stands_once_in_a_log(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    with bar(10, "encode doc", "text") as progress:
        now[0] = 140.0
        progress.update(10)  # the state of its end, which closing shows again
    assert capsys.readouterr().err.count("10/10") == 1


def test_a_bar_within_a_bar_moves_no_cursor():
    """A terminal that knows no ESC[A (TERM=dumb, an editor's) shows it as text."""
    code = (
        "import time\n"
        "from research.progress import bar\n"
        "with bar(4, 'train', 'batch') as outer:\n"
        "    with bar(4, 'validate', 'text') as inner:\n"
        "        for _ in range(4): time.sleep(0.25); inner.update()\n"
        "    time.sleep(0.25); outer.update(4)\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=theirs, cwd=ROOT, check=True)
    os.close(theirs)
    shown = os.read(ours, 2**16).decode()
    assert "train: 100%" in shown
    assert "validate:  50%" in shown
    assert "\x1b" not in shown


def test_bars_that_the_user_has_switched_off_stay_off():
    """tqdm reads TQDM_DISABLE when it is imported."""
    code = "from research.progress import each; print(sum(each([1, 2, 3], 'count', 'number')))"
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("6\n", "")


def test_the_bar_of_a_training_counts_from_the_first_batch_on():
    """The untrained model is measured before it: those minutes are no batch's. Stopped, it ends at once."""
    from research.training.progress import Progress

    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=4))  # resumed: the fifth is about to begin
    trainer = SimpleNamespace(is_global_zero=True, max_steps=10, max_epochs=-1, fit_loop=loop, callback_metrics={})
    module = SimpleNamespace(settings=SimpleNamespace(accumulate=2))
    progress = Progress()
    progress.on_train_start(trainer, module)
    assert progress.bar is None
    progress.on_train_batch_start(trainer, module, None, 0)
    assert (progress.bar.n, progress.bar.total) == (4, 20)
    progress.on_train_batch_end(trainer, module, None, None, 0)
    assert progress.bar.n == 5
    progress.on_exception(trainer, module, KeyboardInterrupt())
    assert progress.bar is None
