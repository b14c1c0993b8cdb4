"""The order of the data depends on (seed, epoch), the place on what was consumed, and neither on the number of processes."""

import itertools

import pytest

from research.data.sampler import StatefulBatchSampler
from research.errors import UserError


def batches(sampler):
    """Indices alone; the epoch that stands beside each is checked on the way."""
    pairs = list(sampler)
    assert {epoch for batch in pairs for epoch, _ in batch} <= {sampler.epoch}
    return [[index for _, index in batch] for batch in pairs]


def test_epoch_is_a_permutation_and_differs_by_epoch_and_seed():
    sampler = StatefulBatchSampler(10, 5, seed=0)
    first = batches(sampler)
    assert sorted(itertools.chain(*first)) == list(range(10))
    assert batches(sampler) == first
    sampler.epoch = 1
    assert batches(sampler) != first
    assert batches(StatefulBatchSampler(10, 5, seed=1)) != first


def test_neighbouring_seeds_and_epochs_share_no_order():
    orders = set()
    for seed in range(5):
        for epoch in range(5):
            sampler = StatefulBatchSampler(20, 20, seed=seed)
            sampler.epoch = epoch
            orders.add(tuple(batches(sampler)[0]))
    assert len(orders) == 25


@pytest.mark.parametrize("world", [1, 2, 3])
def test_global_batches_do_not_depend_on_the_number_of_processes(world):
    alone = batches(StatefulBatchSampler(24, 6, seed=3))
    parts = [batches(StatefulBatchSampler(24, 6 // world, seed=3, global_rank=r, world_size=world)) for r in range(world)]
    together = [sorted(itertools.chain(*step)) for step in zip(*parts, strict=True)]
    assert together == [sorted(batch) for batch in alone]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("stopped_after", [0, 1, 2, 3])
def test_resumed_sampler_yields_the_rest_of_the_epoch(stopped_after, drop_last):
    straight = StatefulBatchSampler(15, 4, seed=0, drop_last=drop_last)
    straight.epoch = 2
    everything = batches(straight)
    assert len(everything) == len(straight) == (3 if drop_last else 4)
    straight.consumed = stopped_after * 4
    resumed = StatefulBatchSampler(15, 4, seed=0, drop_last=drop_last)
    resumed.load_state_dict(straight.state_dict())
    assert batches(resumed) == everything[stopped_after:]
    assert len(resumed) == len(everything)


def test_without_shuffling_the_order_is_the_datas():
    assert batches(StatefulBatchSampler(5, 2, seed=0, shuffle=False, drop_last=False)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("change", [{"size": 14}, {"batch_size": 5}, {"seed": 1}, {"shuffle": False}])
def test_state_of_other_data_is_refused(change):
    state = StatefulBatchSampler(15, 4, seed=0).state_dict()
    arguments = {"size": 15, "batch_size": 4, "seed": 0} | change
    with pytest.raises(UserError, match="the checkpoint was taken with"):
        StatefulBatchSampler(**arguments).load_state_dict(state)


def test_same_global_batch_on_other_processes_may_resume():
    state = StatefulBatchSampler(16, 4, seed=0).state_dict() | {"consumed": 4}
    resumed = StatefulBatchSampler(16, 2, seed=0, world_size=2)
    resumed.load_state_dict(state)
    assert len(batches(resumed)) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 11}, "takes 11 examples a step, and there are 10"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 4, "world_size": 3}, "takes 12 examples"),
        ({"batch_size": 1, "world_size": 3, "drop_last": False}, "leaves 1 for 3 processes"),
    ],
)
def test_batch_that_does_not_fit_the_data_is_refused(arguments, says):
    with pytest.raises(UserError, match=says):
        StatefulBatchSampler(10, seed=0, **arguments)


def test_advancing_past_the_last_batch_begins_the_next_epoch():
    sampler = StatefulBatchSampler(10, 4, seed=0)  # two batches an epoch
    places = []
    for _ in range(5):
        sampler.advance()
        places.append((sampler.epoch, sampler.consumed))
    assert places == [(0, 4), (1, 0), (1, 4), (2, 0), (2, 4)]
    short = StatefulBatchSampler(10, 2, seed=0)  # epochs cut to two of five batches
    for _ in range(2):
        short.advance(limit=2)
    assert (short.epoch, short.consumed) == (1, 0)


def test_more_processes_than_examples_are_refused_by_the_number_that_goes():
    with pytest.raises(UserError, match=r"99 processes .* share 12 examples; expected 1 to 12 processes"):
        StatefulBatchSampler(12, 4, 0, world_size=99)
