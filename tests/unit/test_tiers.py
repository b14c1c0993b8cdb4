"""The quick tier is a function of the commit, and over many commits it is everything that is sampled."""

from types import SimpleNamespace

import pytest

from tests.tiers import left_out, sample

NAMES = [f"t::test[{i}]" for i in range(40)]


def item(nodeid: str, **marks):
    """What left_out sees of a pytest item; marks by name, with their arguments."""
    made = {name: SimpleNamespace(args=args) for name, args in marks.items()}
    return SimpleNamespace(nodeid=nodeid, get_closest_marker=made.get)


def test_a_sample_is_the_same_for_a_commit_and_another_for_another():
    first = sample(NAMES, 8, "a")
    assert len(first) == 8
    assert first == sample(reversed(NAMES), 8, "a")
    assert first != sample(NAMES, 8, "b")
    assert sample(NAMES, 99, "a") == {*NAMES}


def test_every_case_has_its_turn():
    assert {name for seed in range(100) for name in sample(NAMES, 8, str(seed))} == {*NAMES}


def test_a_family_is_sampled_and_thorough_tests_are_left_out():
    items = [item(name, sample=(8,)) for name in NAMES]
    items += [item("t::other[1]", sample=(1,)), item("t::long", thorough=()), item("t::plain")]
    gone = {one.nodeid for one in left_out(items, "a")}
    assert gone == {*NAMES} - sample(NAMES, 8, "a") | {"t::long"}


@pytest.mark.xdist_group("tiers")
def test_what_is_one_group_is_sent_to_one_process(request):
    """With pytest 9.2 xdist 3.8 forgets its groups: one SLURM for all tests became one a process."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("not under pytest -n --dist loadgroup")
    assert request.node.nodeid.endswith("@tiers")
