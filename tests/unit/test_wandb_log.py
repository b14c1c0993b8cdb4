"""W&B's logs, made by hand: what is read of a good one, and of one that is cut off, damaged, or none."""

import re
from pathlib import Path

import pytest

from research.errors import UserError
from research.runs.wandb.frames import BLOCK, CHUNK, unframe
from research.runs.wandb.log import curve, find_logs, is_logged, read_log
from tests.wandb_log import run_records, write_log

ROWS = [{"_step": step, "loss": 3.0 - step, "acc": step / 10} for step in range(3)]


def log_at(place: Path, name: str = "run-a.wandb", **more) -> Path:
    return write_log(place / name, run_records("a", more.pop("config", {"lr": 0.1}), more.pop("history", ROWS), **more))


def test_a_log_says_what_its_run_was(tmp_path):
    config = {"lr": 0.1, "model": {"class_path": "x.Y", "init_args": {"r": 4}}, "_wandb": {"cli": 1}}
    log = read_log(log_at(tmp_path, config=config, commit="abc", run_group="g", sweep_id="s", display_name="n", host="h"))
    assert log[1:9] == ("a", "p", "n", 1_700_000_000.0, "g", "s", "h", "abc")
    assert log.config == {"lr": 0.1, "model": config["model"]}
    assert (log.summary, log.exit_code, log.damage) == ({"_step": 2, "loss": 1.0, "acc": 0.2}, 0, "")
    assert curve([log], "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert curve([log], "nothing") == []


def test_later_records_change_and_remove(tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    more = [Record(), Record()]
    for name, value in ((["lr"], "0.2"), (["model", "r"], "8")):
        item = more[0].config.update.add()
        item.nested_key.extend(name)
        item.value_json = value
    for name, value in ((["opt"], '{"lr": 1, "eps": 2}'), (["opt", "eps"], "3"), (["flat", "x"], "1"), (["flat", "y"], "2")):
        item = more[0].config.update.add()
        item.nested_key.extend(name)
        item.value_json = value
    more[0].config.remove.add().key = "gone"
    more[1].summary.remove.add().nested_key.extend(["acc"])
    records = run_records("a", {"lr": 0.1, "gone": 1}, ROWS)
    log = read_log(write_log(tmp_path / "run-a.wandb", records[:-1] + more + records[-1:]))
    assert log.config == {"lr": 0.2, "model": {"r": 8}, "opt": {"lr": 1, "eps": 3}, "flat": {"x": 1, "y": 2}}
    assert log.summary == {"_step": 2, "loss": 1.0}


@pytest.mark.parametrize("size", [0, 1, BLOCK - 15, BLOCK - 14, BLOCK - 13, BLOCK - 8, BLOCK - 7, BLOCK, 3 * BLOCK + 5])
def test_records_of_every_length_are_put_together(tmp_path, size):
    """Around a block's end: the rest is too short for a chunk, holds an empty one, or the record goes on in the next."""
    config = {"text": "x" * size, "after": "y" * 9}
    log = read_log(log_at(tmp_path, config=config))
    assert (log.config, log.exit_code, log.damage) == (config, 0, "")


def test_a_log_without_its_end_is_read_as_far_as_it_goes(tmp_path):
    whole = log_at(tmp_path).read_bytes()
    every = unframe(whole)[0]
    seen = set()
    for length in range(7, len(whole)):
        records, damage = unframe(whole[:length])
        assert records == every[: len(records)]
        assert damage.startswith("cut off at byte") or sum(map(len, records)) + CHUNK.size * len(records) + 7 == length
        seen.add(len(records))
    assert seen == set(range(len(every)))
    (tmp_path / "run-a.wandb").write_bytes(whole[:-3])
    log = read_log(tmp_path / "run-a.wandb")
    assert (log.exit_code, log.config) == (None, {"lr": 0.1})
    assert "cut off at byte" in log.damage
    (tmp_path / "run-a.wandb").write_bytes(whole + bytes(500))  # blocks that a machine had no time to fill
    assert "cut off" in read_log(tmp_path / "run-a.wandb").damage


def test_damaged_blocks_are_counted_and_nothing_after_the_first_is_taken(tmp_path):
    history = [{"_step": step, "loss": 1.0 / (step + 1), "text": "x" * 2000} for step in range(60)]
    path = log_at(tmp_path, history=history)
    good = path.read_bytes()
    whole = bytearray(good)
    assert len(whole) > 3 * BLOCK
    for block in (1, 3):
        whole[block * BLOCK + 300] ^= 1  # one bit
    path.write_bytes(whole)
    log = read_log(path)
    found = re.fullmatch(r"2 damaged blocks, the first at byte ([\d,]+): read up to there", log.damage)
    assert BLOCK <= int(found[1].replace(",", "")) <= BLOCK + 300
    assert log.exit_code is None
    points = curve([log], "loss")
    assert points == [(step, 1.0 / (step + 1)) for step in range(len(points))]
    assert 0 < len(points) < 20
    for place in range(7, 600):  # whatever bit it is, no other value is ever read
        one = bytearray(good)
        one[place] ^= 1 << place % 8
        records, damage = unframe(bytes(one))
        assert damage
        assert records == unframe(good)[0][: len(records)]


def test_a_run_that_went_on_has_each_step_once(tmp_path):
    first = log_at(tmp_path, exit_code=None)
    rows = [{"_step": step, "loss": 10.0 + step} for step in (2, 3)]
    second = write_log(tmp_path / "run-b.wandb", run_records("a", {}, rows))
    assert curve([read_log(first), read_log(second)], "loss") == [(0, 3.0), (1, 2.0), (2, 12.0), (3, 13.0)]


def test_the_optimizer_s_steps_are_those_of_a_curve(tmp_path):
    rows = [{"_step": i, "trainer/global_step": 50 * i, "val/loss": 1.0 / (i + 1), "flag": True} for i in range(2)]
    rows.append({"_step": 2, "trainer/global_step": 100, "val/loss": "NaN"})
    log = read_log(log_at(tmp_path, history=rows))
    assert curve([log], "val/loss") == [(0, 1.0), (50, 0.5)]  # W&B writes nan as a text
    assert curve([log], "flag") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"PK\x03\x04 something else", "begins with b'PK"), (b":W&B\xe1\xbe\x01", "is of another version")],
)
def test_what_is_no_log_is_refused(tmp_path, content, says):
    (tmp_path / "run-a.wandb").write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_log(tmp_path / "run-a.wandb")
    with pytest.raises(UserError, match="cannot be read"):
        read_log(tmp_path / "run-b.wandb")


def test_a_record_that_is_none_of_w_and_b_s_ends_what_is_read(tmp_path):
    class Other:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff\xff"

    records = run_records("a", {"lr": 1}, ROWS)
    log = read_log(write_log(tmp_path / "run-a.wandb", [*records[:3], Other(), *records[3:]]))
    assert log.damage.startswith("record 4 is none of W&B's")
    assert (log.exit_code, curve([log], "loss")) == (None, [(0, 3.0)])


def test_logs_are_found_and_the_folders_of_research_left_alone(tmp_path):
    place = tmp_path / "work"
    first = log_at(place / "wandb/offline-run-20260101_000001-a")
    second = log_at(place / "other/.wandb/run-20260101_000002-b", "run-b.wandb")
    log_at(place / ".cache/wandb/offline-run-20260101_000003-c", "run-c.wandb")
    (place / "wandb/latest-run").symlink_to(first.parent)
    own = log_at(place / "runs/x/wandb/offline-run-20260101_000004-d", "run-d.wandb")
    (place / "runs/x/provenance.json").write_text("{}")
    assert find_logs(place) == [second, first]
    assert find_logs(first) == [first]
    assert find_logs(first.parent) == [first]
    assert find_logs(own.parents[1]) == [own]  # named itself
    assert [is_logged(path) for path in (first, first.parent, place, place / "runs/x/wandb")] == [True] * 4
    assert not is_logged(place / "runs/x")
    assert not is_logged(place / "runs")
    (tmp_path / "empty/offline-run-20260101_000001-a").mkdir(parents=True)
    assert is_logged(tmp_path / "empty")  # so that the refusal says what is missing
    assert not is_logged(tmp_path / "nowhere")
