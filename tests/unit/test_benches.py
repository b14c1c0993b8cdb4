"""The kit of benchmarks: cases are kept, sides that fail say why, and the arithmetic is the shapes'."""

import json
import textwrap

import pytest

from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.fixture
def check(tmp_path):
    from benching.gpu_parts import Check

    return lambda seconds=60: Check("training", tmp_path / "training.json", "cpu", seconds)


def fails() -> dict:
    raise RuntimeError("out of memory")


def test_a_case_that_fails_is_recorded_and_the_next_one_runs(check, tmp_path):
    part = check()
    part.case("bad", fails)
    part.case("good", lambda: {"ratio": 2})
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["cases"]["bad"]["error"] == "RuntimeError: out of memory"
    assert facts["cases"]["good"]["ratio"] == 2
    assert not facts["done"]
    assert len(facts["environment"]["sources"]) == 16


def test_what_was_measured_with_the_same_code_is_kept_and_what_failed_is_tried_again(check, tmp_path):
    first = check()
    first.case("good", lambda: {"ratio": 2})
    first.case("bad", fails)
    again = check()
    again.case("good", fails)
    again.case("bad", lambda: {"ratio": 3})
    assert {name: case["ratio"] for name, case in again.facts["cases"].items()} == {"good": 2, "bad": 3}
    path = tmp_path / "training.json"
    path.write_text(path.read_text().replace(again.facts["environment"]["sources"], "0" * 16))
    assert check().facts["cases"] == {}


def test_a_case_for_which_no_time_is_left_is_named_with_the_reason(check):
    part = check(seconds=1)
    part.took = [5.0]
    part.case("late", fails)
    assert part.facts["cases"] == {}
    assert "the last cases took up to 5" in part.facts["left_out"]["late"]


def test_a_part_that_dies_does_not_stop_the_next(tmp_path, monkeypatch, capfd):
    import gpu_check

    fake = tmp_path / "part.py"
    fake.write_text(
        textwrap.dedent("""
        import json, sys
        part, out = sys.argv[sys.argv.index("--part") + 1], sys.argv[sys.argv.index("--out") + 1]
        if part == "device":
            sys.exit(3)
        facts = {"done": True, "cases": {"a": {}}, "left_out": {}, "environment": {}}
        open(f"{out}/{part}.json", "w").write(json.dumps(facts))
    """)
    )
    monkeypatch.setattr(gpu_check, "__file__", str(fake))
    assert gpu_check.run_parts(["device", "tests"], tmp_path, "cpu") == 1
    said = capfd.readouterr().err
    assert "device: not done (3)" in said
    assert "tests: done, 1 cases" in said


SIDE = """
import json, sys
sys.path.insert(0, {scripts!r})
from benching.turns import Turns

def train(case, turns):
    if case.get("fails"):
        raise ValueError("no such shape")
    turns.begin(2)
    while True:
        turns.step_done(lambda: 0.5)

Turns(json.loads(sys.argv[3])).serve(train)
"""


def test_sides_take_turns_and_one_that_fails_says_why_and_begins_anew(tmp_path):
    from benching.sides import Side, compare, verdict

    script = tmp_path / "side.py"
    script.write_text(SIDE.format(scripts=str(ROOT / "scripts")))
    sides = [Side(str(script), name, {"device": "cpu"}) for name in ("ours", "peer")]
    for name, case in {"fails": {"fails": True}, "works": {}}.items():
        found = compare(sides, case, rounds=3, steps=4)
        if name == "fails":
            assert found["ours"] == {"error": "ValueError: no such shape"}
            assert verdict(found, ["peer"]) == {"peer": ""}
            continue
        assert len(found["ours"]["seconds"]) == 3
        assert found["peer"]["loss"] == 0.5
        assert {"aten_ops", "waits", "gib", "loader_share", "seconds_per_step", "start_seconds"} <= set(found["ours"])
        said = verdict(found, ["peer"])
        assert said["peer"] == "peer"
        assert said["range"][0] <= said["ratio"] <= said["range"][1]
    for side in sides:
        side.close()


def test_a_side_that_says_nothing_is_given_up(tmp_path):
    from benching.sides import Side, SideError

    script = tmp_path / "silent.py"
    script.write_text("import time\ntime.sleep(60)\n")
    side = Side(str(script), "ours", {}, limit=0.5)
    with pytest.raises(SideError, match="ours gave no answer in 0"):
        side.tell(case={})


def test_forward_flops_by_hand(tmp_path):
    """One layer of BERT, hidden 2, inner 3: weights 4·4 + 2·6 = 28; a text of 5 tokens: 2·28·5 + 4·2·25 = 480."""
    from benching.shapes import forward_flops

    config = {"model_type": "bert", "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert forward_flops(tmp_path, [5]) == 480
    # a gated decoder of half as many key heads: weights 4·(2 + 1) + 3·6 = 30, half the attention, 2 logits of 7 words
    config |= {"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert forward_flops(tmp_path, [5], labelled=2) == 2 * 30 * 5 + 100 + 2 * 2 * 2 * 7
