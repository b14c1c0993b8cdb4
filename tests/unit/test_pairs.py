"""The shortcut for one of many pairs is the line that the whole table has, to the last bit."""

import random

import pytest

from research.metrics.families import compare_methods, compare_pair


def table(seeds: list[int]) -> dict:
    dice = random.Random(0)
    return {f"m{i}": {s: dice.gauss(i / 10, 0.05) for s in range(n)} for i, n in enumerate(seeds)}


@pytest.mark.parametrize(
    "groups",
    [
        table([3] * 6),
        table([3, 2, 5, 3]),
        table([3, 1, 3]),
        table([2, 2]),
        {**table([3, 3]), "BM25": 0.4},
        {"a": {0: 1.0, 1: 1.0}, "b": {0: 2.0, 1: 2.0}, "c": {0: 2.0, 1: 2.1}},
    ],
)
def test_one_pair_is_its_line_of_the_table(groups):
    for pair in compare_methods(groups):
        for a, b in ((pair.a, pair.b), (pair.b, pair.a)):
            assert repr(compare_pair(groups, a, b)) == repr(pair)  # repr: NaN equals itself there
