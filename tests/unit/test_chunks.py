"""Plans of chunks: those of the quadratic algorithm that stood here before, without its time."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.chunks import plan_chunks


def quadratic(lengths, overhead, multiple):
    """The plan as it was made until 2026-11: a cost for every number of rows, each over all starts before it."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    padded = [-(-lengths[i] // multiple) * multiple for i in order]
    best, cut = [0] + [0] * len(order), [0] * (len(order) + 1)
    for j in range(1, len(order) + 1):
        starts = [i for i in range(j) if i == 0 or padded[i] != padded[i - 1]]
        best[j], cut[j] = min((best[i] + overhead + (j - i) * padded[j - 1], i) for i in starts)
    groups, end = [], len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 80), st.sampled_from([16, 17, 32, 512])), max_size=40),
    overhead=st.sampled_from([0, 1, 15, 16, 64, 512, 10_000]),
    multiple=st.sampled_from([1, 3, 8, 16]),
)
def test_a_plan_is_that_of_the_quadratic_algorithm_ties_included(lengths, overhead, multiple):
    assert plan_chunks(lengths, overhead, multiple) == quadratic(lengths, overhead, multiple)


def test_a_large_batch_is_planned_in_no_time():
    """8,192 rows took 2 s a step."""
    lengths = [1 + i * 7919 % 512 for i in range(8192)]
    started = time.process_time()
    groups = plan_chunks(lengths)
    assert time.process_time() - started < 0.2
    assert sorted(i for group in groups for i in group) == list(range(8192))
