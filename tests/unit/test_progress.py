"""What is said on stderr while something is computed: at once, now and then, or not at all."""

import time

import pytest
import tqdm

from research.progress import bar, say


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
