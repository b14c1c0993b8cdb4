"""The quick tier is a function of the commit, and over many commits it is everything that is sampled."""

from types import SimpleNamespace

import pytest

from tests.tiers import ROOT, commit, left_out, sample

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


def test_the_quick_tier_enters_every_room(request):
    items = request.session.items
    if len({item.path for item in items}) < 80:
        pytest.skip("asked of all tests together")
    quick = {item.path for item in {*items} - {*left_out(items, commit())}}
    folders = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert {path.relative_to(ROOT / "tests").parts[0] for path in quick} >= folders
    sources = "\n".join(path.read_text(encoding="utf-8") for path in quick)
    for room in (path.parent.name for path in (ROOT / "research").glob("*/__init__.py")):
        entry = "research(" if room == "verbs" else f"from research.{room}"  # verbs are called as a user types them
        assert entry in sources, room
