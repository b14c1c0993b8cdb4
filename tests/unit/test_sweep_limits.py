"""Times and memory as SLURM writes them; what stands here sbatch 22.05 took and refused."""

import math

import pytest

from research.errors import UserError
from research.sweeps.limits import check_memory, limit_seconds, note_resumptions

TIMES = {
    "1": 60,
    "90": 5400,
    "1:30": 120,  # whole minutes
    "0:30": 60,
    "1:99": 180,
    "2:00:00": 7200,
    "25:00:00": 90000,
    "1-0": 86400,
    "1-2:30": 95400,
    "1-2:30:10": 95460,
    "0": math.inf,
    "UNLIMITED": math.inf,
    "-1": math.inf,
}
WRONG_TIMES = {
    "2h": "2:00:00",
    "1.5 hours": "1:30:00",
    "30min": "0:30:00",
    "2h30m": "2:30:00",
    "90s": "0:01:30",
    "1d12h": "1-12:00:00",
    "banana": "2:00:00 for two hours",
    "1.5": "2:00:00 for two hours",
    "1:2:3:4": "2:00:00 for two hours",
    "": "2:00:00 for two hours",
}
WRONG_MEMORY = {
    "lots": "16G for 16 GiB",
    "16Gi": "16G",
    "16GiB": "16G",
    "1.5G": "1536M",
    "16X": "16G for 16 GiB",
    "-5": "16G for 16 GiB",
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_limit_is_what_slurm_makes_of_it(text):
    assert limit_seconds("--time", text) == TIMES[text]


@pytest.mark.parametrize("text", WRONG_TIMES)
def test_a_time_that_sbatch_refuses_is_refused_with_its_right_spelling(text):
    with pytest.raises(UserError, match="expected a time as SLURM writes it") as error:
        limit_seconds("--time", text)
    assert str(error.value).endswith(f"Write {WRONG_TIMES[text]}.")


@pytest.mark.parametrize("text", ["16G", "16g", "16GB", "16", "0", "1T", "512M"])
def test_memory_that_sbatch_takes_is_taken(text):
    check_memory("--mem", text)


@pytest.mark.parametrize("text", WRONG_MEMORY)
def test_memory_that_sbatch_refuses_is_refused_with_its_right_spelling(text):
    with pytest.raises(UserError, match="expected a whole number") as error:
        check_memory("--mem", text)
    assert str(error.value).endswith(f"Write {WRONG_MEMORY[text]}.")


@pytest.mark.parametrize(("seconds", "times"), [([], None), ([480.0], None), ([481.0], "1 time"), ([100.0, 1500.0], "3 times")])
def test_a_point_longer_than_its_tasks_is_announced(seconds, times, capsys):
    """Ten minutes, two of them the warning: a task trains for 480 s."""
    note_resumptions("--time", "10", 120, seconds)
    said = capsys.readouterr().err
    assert (f"goes on about {times}\n" in said) if times else said == ""
