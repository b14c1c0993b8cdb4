"""The quickstart's sizes: what fits into the minutes of a machine, and what is left out first."""

import itertools

import pytest

from research.quickstart.plan import FULL, SMALL_DATA, Sizes, Speed, all_sizes, choose, estimate, left_out, shrink, work

FAST = Speed("cpu", "bf16", 400, 1.0)
SLOW = Speed("cpu", "bf16", 200, 2.0)  # half as fast, products and Python alike
GPU = Speed("cuda", "bf16", 400_000, 1.0)


def amount(sizes: Sizes) -> float:
    return sum(step.gflop for step in work(sizes).values())


def test_estimates_add_up():
    """5 s of Python at half the speed, and 100 GFLOP at 200 × .75 a second."""
    for sizes in all_sizes():
        for name, step in work(sizes).items():
            assert estimate(sizes, SLOW)[name] == pytest.approx(2 * step.seconds + step.gflop / (200 * 0.75))


def test_dual_encoders_training_takes_four_times_its_encoding():
    """1,814 pairs of 18 + 92 tokens, forward and backward, and two validations of 400 documents and 231 queries."""
    sizes = FULL._replace(hnsw=False, fused=False, depth=0, data=SMALL_DATA, share=1 / 3)
    tokens = 4 * 1814 * (18 + 92) + 2 * (400 * 92 + 231 * 18)
    assert work(sizes)["dual_encoder"].gflop == pytest.approx(tokens * 0.0221)


def test_more_minutes_never_less_work():
    chosen = [choose(60 * minutes, FAST) for minutes in (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60)]
    assert all(amount(a) <= amount(b) for a, b in itertools.pairwise(chosen))
    assert all(
        a.share <= b.share and a.depth <= b.depth and a.hnsw <= b.hnsw and a.fused <= b.fused
        for a, b in itertools.pairwise(chosen)
    )
    assert chosen[-1] == FULL


def test_what_is_chosen_fits_and_the_next_larger_does_not():
    sizes = all_sizes()
    for minutes in range(4, 40):
        chosen = choose(60 * minutes, FAST)
        assert sum(estimate(chosen, FAST).values()) <= 60 * minutes
        if chosen != FULL:
            assert sum(estimate(sizes[sizes.index(chosen) - 1], FAST).values()) > 60 * minutes


@pytest.mark.parametrize("minutes", [3, 4, 5, 8, 14, 30])
def test_machine_half_as_fast_does_in_twice_the_time_the_same(minutes):
    assert choose(120 * minutes, SLOW) == choose(60 * minutes, FAST)
    assert amount(choose(60 * minutes, SLOW)) <= amount(choose(60 * minutes, FAST))


def test_hnsw_is_left_out_first_then_fusion_depth_half_of_the_collection_and_training():
    changes = []
    for larger, smaller in itertools.pairwise(all_sizes()):
        changes += [name for name in Sizes._fields if getattr(larger, name) != getattr(smaller, name)]
    assert [name for name, _ in itertools.groupby(changes)] == ["hnsw", "fused", "depth", "data", "share"]


def test_each_thing_left_out_is_said():
    assert left_out(FULL) == []
    assert len(left_out(FULL._replace(hnsw=False))) == 2
    lines = "\n".join(left_out(choose(300, FAST)))
    assert all(part in lines for part in ("HNSW", "fusion", "cross-encoder", SMALL_DATA, "half of the functions", "128 tokens"))


def test_gpu_has_time_for_all():
    assert choose(300, GPU) == FULL


def test_smallest_road_is_taken_where_nothing_fits():
    assert choose(1, FAST) == all_sizes()[-1]
    smallest = all_sizes()[-1]
    assert (smallest.pairs, smallest.epochs, smallest.examples) == (192, 1, 64)


def test_slow_step_shrinks_what_follows_and_not_the_collection():
    planned = choose(300, FAST)
    begun = {"exact"}
    left = sum(seconds for name, seconds in estimate(planned, FAST).items() if name not in begun)
    assert shrink(planned, begun, left, FAST, 1.0) == planned
    smaller = shrink(planned, begun, left, FAST, 1.5)
    assert smaller.share < planned.share
    assert smaller.data == planned.data
    assert 1.5 * sum(seconds for name, seconds in estimate(smaller, FAST).items() if name not in begun) <= left


def test_whole_road_is_never_made_smaller():
    assert shrink(FULL, {"exact"}, 1, FAST, 9) == FULL
