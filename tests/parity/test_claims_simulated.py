"""Each claim of metrics/ under its own null, and what happens to a claim under another's null.

A simulated value is  y = effect + S + Q + MQ + e: seed (spread varied), query (.3), method × query (.1), seed × query (.15),
over 50 queries. What a claim holds fixed is centred, so that its null is true of exactly the population it speaks of:

    these checkpoints    S centred over the seeds at hand     other queries would show no difference
    this method          MQ centred over the queries at hand  other seeds would show no difference
    anywhere             nothing centred                      neither would other seeds on other queries

False positives may exceed 5% by three standard errors of the simulation, intervals miss 95% by as much. 500 repetitions, or
5,000 with --slow; `-s` prints every rate.
"""

import math

import numpy as np
import pytest
from scipy import special

from research.metrics.crossed import seeds_and_queries_test
from research.metrics.equivalence import equivalence_test
from research.metrics.families import DIFFERS, compare_methods
from research.metrics.planning import detectable_difference, sd_interval, seeds_needed
from research.metrics.seeds import paired_test, welch_test
from research.metrics.significance import bootstrap_interval, permutation_test

QUERIES, QUERY, METHOD_QUERY, NOISE = 50, 0.3, 0.1, 0.15
SPREADS = {"none": 0.0, "small": 0.02, "large": 0.3}  # a run's mean moves by .021 from e alone
REPETITIONS = [500, pytest.param(5000, marks=pytest.mark.slow)]
SEEDS = [3, 5, 10]


def limit(repetitions: int, rate: float = 0.05) -> float:
    return rate + 3 * math.sqrt(rate * (1 - rate) / repetitions)


def tables(rng, n: int, spread: float, centre: str = "", methods: int = 2, shared: float = 0.0, method_query=METHOD_QUERY):
    """(methods, n, QUERIES) values without any effect. `shared`: correlation of the seeds' luck across methods."""
    seed = spread * (math.sqrt(1 - shared) * rng.normal(size=(methods, n, 1)) + math.sqrt(shared) * rng.normal(size=(1, n, 1)))
    interaction = method_query * rng.normal(size=(methods, 1, QUERIES))
    if centre == "seeds":
        seed = seed - seed.mean(axis=1, keepdims=True)
    if centre == "queries":
        interaction = interaction - interaction.mean(axis=2, keepdims=True)
    noise = NOISE * rng.normal(size=(methods, n, QUERIES))
    return seed + QUERY * rng.normal(size=(1, 1, QUERIES)) + interaction + noise


def error_of(n: int, spread: float, centre: str) -> float:
    """True standard error of the difference of two methods' means."""
    seed = 0.0 if centre == "seeds" else spread**2 / n
    query = 0.0 if centre == "queries" else METHOD_QUERY**2 / QUERIES
    return math.sqrt(2 * (seed + query + NOISE**2 / (n * QUERIES)))


def checkpoints(a, b, i):
    difference = b.mean(axis=0) - a.mean(axis=0)
    return permutation_test(difference, samples=499, seed=i), *bootstrap_interval(difference, samples=499, seed=i)


def by_welch(a, b, i):
    test = welch_test(a.mean(axis=1), b.mean(axis=1))
    return test.p, test.low, test.high


def by_pairs(a, b, i):
    test = paired_test(dict(enumerate(a.mean(axis=1))), dict(enumerate(b.mean(axis=1))))
    return test.p, test.low, test.high


def by_seeds_and_queries(a, b, i):
    test = seeds_and_queries_test(a, b)
    return test.p, test.low, test.high


CLAIMS = {  # name: (test, what its population holds fixed, correlation of seeds across methods, interval claimed)
    "checkpoints, permutation": (checkpoints, "seeds", 0.0, False),  # percentile bootstrap: .94 at 50 queries
    "method, Welch": (by_welch, "queries", 0.0, True),
    "method, Welch, seeds shared": (by_welch, "queries", 0.8, True),
    "method, paired": (by_pairs, "queries", 0.0, True),
    "method, paired, seeds shared": (by_pairs, "queries", 0.8, True),
    "anywhere, seeds and queries": (by_seeds_and_queries, "", 0.0, True),
}


@pytest.mark.sample(10)
@pytest.mark.parametrize("repetitions", REPETITIONS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("claim", CLAIMS)
def test_false_positives_of_a_claim_under_its_own_null(claim, n, spread, repetitions):
    test, centre, shared, interval_claimed = CLAIMS[claim]
    rng = np.random.default_rng([n, list(SPREADS).index(spread), list(CLAIMS).index(claim)])
    effect = 8 * error_of(n, SPREADS[spread], centre)
    rejected = covered = found = 0
    for i in range(repetitions):
        a, b = tables(rng, n, SPREADS[spread], centre, shared=shared)
        p, low, high = test(a, b, i)
        rejected += p < 0.05
        covered += low <= 0 <= high
        if i < repetitions // 5:
            found += test(a, b + effect, i)[0] < 0.05
    rejected, covered, found = rejected / repetitions, covered / repetitions, found / (repetitions // 5)
    print(f"\n{claim:28} n={n:2} spread {spread:5}: false positives {rejected:.4f} coverage {covered:.4f} power {found:.3f}")
    assert rejected <= limit(repetitions)
    assert found > 0.9  # a test that never rejects would pass all else
    if interval_claimed:
        assert covered >= 1 - limit(repetitions)


@pytest.mark.sample(3)
@pytest.mark.parametrize("repetitions", REPETITIONS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", SEEDS)
def test_methods_a_margin_apart_are_rarely_called_equivalent_and_equal_ones_are(n, spread, repetitions):
    rng = np.random.default_rng([n, list(SPREADS).index(spread), 100])
    margin = 8 * error_of(n, SPREADS[spread], "queries")
    wrong = right = 0
    for _ in range(repetitions):
        a, b = tables(rng, n, SPREADS[spread], "queries").mean(axis=2)
        wrong += equivalence_test(a, b + margin, margin).equivalent
        right += equivalence_test(a, b, margin).equivalent
    print(f"\nequivalence, n={n:2} spread {spread:5}: false {wrong / repetitions:.4f} shown {right / repetitions:.3f}")
    assert wrong / repetitions <= limit(repetitions)
    assert right / repetitions > 0.9


@pytest.mark.sample(3)
@pytest.mark.parametrize("repetitions", REPETITIONS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", SEEDS)
def test_holm_keeps_the_level_of_a_table_of_four_equal_methods(n, spread, repetitions):
    rng = np.random.default_rng([n, list(SPREADS).index(spread), 200])
    any_holm = any_raw = found = 0
    for i in range(repetitions):
        means = tables(rng, n, SPREADS[spread], "queries", methods=4).mean(axis=2)
        pairs = compare_methods({str(m): dict(enumerate(values)) for m, values in enumerate(means)})
        any_holm += any(pair.verdict == DIFFERS for pair in pairs)
        any_raw += any(pair.comparison.p < 0.05 for pair in pairs)
        if i < repetitions // 10:
            means[3] += 12 * error_of(n, SPREADS[spread], "queries")
            pairs = compare_methods({str(m): dict(enumerate(values)) for m, values in enumerate(means)})
            found += any(pair.verdict == DIFFERS and pair.b == "3" for pair in pairs)
    print(
        f"\nHolm over 6 pairs, n={n:2} spread {spread:5}: any false {any_holm / repetitions:.4f} "
        f"uncorrected {any_raw / repetitions:.4f} power {found / (repetitions // 10):.3f}"
    )
    assert any_holm / repetitions <= limit(repetitions)
    assert any_raw / repetitions > 0.08  # why the correction is there
    assert found / (repetitions // 10) > 0.9


# A test answers for its own population only.


@pytest.mark.parametrize("n", SEEDS)
def test_the_permutation_test_does_not_show_that_a_method_differs(n):
    rng = np.random.default_rng([n, 300])
    p = [checkpoints(*tables(rng, n, SPREADS["large"], "queries"), i)[0] for i in range(200)]
    rate = np.mean(np.array(p) < 0.05)
    print(f"\npermutation for `this method differs`, n={n:2} spread large: false positives {rate:.3f}")
    assert rate > 0.5


@pytest.mark.parametrize("n", SEEDS)
def test_seed_means_do_not_show_that_a_method_differs_on_other_queries(n):
    rng = np.random.default_rng([n, 400])
    both = [tables(rng, n, 0.0, method_query=0.3) for _ in range(500)]
    welch = np.mean([by_welch(a, b, 0)[0] < 0.05 for a, b in both])
    ours = np.mean([by_seeds_and_queries(a, b, 0)[0] < 0.05 for a, b in both])
    print(f"\nn={n:2}, methods × queries .3: Welch for `anywhere` {welch:.3f}, seeds and queries {ours:.3f}")
    assert welch > 0.25
    assert ours <= limit(500)


def test_no_significant_difference_is_not_equivalence():
    rng = np.random.default_rng(500)
    margin = 2 * error_of(3, 0.02, "queries")  # the methods do differ by it
    silent = equivalent = 0
    for _ in range(500):
        a, b = tables(rng, 3, 0.02, "queries").mean(axis=2)
        silent += welch_test(a, b + margin).p >= 0.05
        equivalent += equivalence_test(a, b + margin, margin).equivalent
    assert silent / 500 > 0.6
    assert equivalent / 500 <= limit(500)


def test_choosing_the_smaller_of_paired_and_welch_p_breaks_the_level():
    rng = np.random.default_rng(600)
    p = np.array(
        [
            (welch_test(a, b).p, paired_test(dict(enumerate(a)), dict(enumerate(b))).p)
            for a, b in rng.normal(size=(10_000, 2, 3))
        ]
    )
    assert (p[:, 0] < 0.05).mean() <= limit(10_000)
    assert (p[:, 1] < 0.05).mean() <= limit(10_000)
    assert (p.min(axis=1) < 0.05).mean() > limit(10_000)


# The limits that the docstrings state.


def test_welch_at_spreads_that_differ_fourfold_stays_below_six_percent():
    rng = np.random.default_rng(700)
    rate = np.mean([welch_test(a, 4 * b).p < 0.05 for a, b in rng.normal(size=(10_000, 2, 3))])
    print(f"\nWelch, 3 and 3 seeds, spreads 1 and 4: {rate:.4f}")
    assert rate <= limit(10_000, 0.057)


def test_welch_with_unequal_numbers_of_seeds_exceeds_its_level_and_says_so():
    rng = np.random.default_rng(800)
    tests = [welch_test(rng.normal(size=3), 0.5 * rng.normal(size=10)) for _ in range(10_000)]
    rate = np.mean([test.p < 0.05 for test in tests])
    print(f"\nWelch, 3 and 10 seeds, spreads 1 and .5: {rate:.4f}")
    assert limit(10_000) < rate <= limit(10_000, 0.073)
    assert "unequal" in tests[0].note


@pytest.mark.sample(2)
@pytest.mark.parametrize("shape", ["heavy", "skewed"])
@pytest.mark.parametrize("n", SEEDS)
def test_welch_keeps_its_level_when_seeds_are_not_normal(n, shape):
    rng = np.random.default_rng([n, 900])
    size = (4000, 2, n)
    values = rng.standard_t(3, size=size) if shape == "heavy" else rng.exponential(size=size)
    rate = np.mean([welch_test(a, b).p < 0.05 for a, b in values])
    print(f"\nWelch, {shape} seeds, n={n:2}: {rate:.4f}")
    assert rate <= limit(4000)


def satterthwaite_over_all_components(a, b) -> float:
    """p of the t' test with one Satterthwaite df for seeds and queries together, the one that was rejected; a: no seeds."""
    n, queries = b.shape
    seed, query = b.mean(axis=1).var(ddof=1) / n, (b.mean(axis=0) - a).var(ddof=1) / queries
    left = b - b.mean(axis=1, keepdims=True) - b.mean(axis=0) + b.mean()
    residual = (left**2).sum() / ((n - 1) * (queries - 1)) / (n * queries)
    net = max(0.0, query - min(residual, seed))
    df = (seed + net) ** 2 / (seed**2 / (n - 1) + net**2 / (queries - 1))
    return 2 * special.stdtr(df, -abs(b.mean() - a.mean()) / math.sqrt(seed + net))


@pytest.mark.parametrize("seed_share", [0.3, 0.5, 0.7, 0.9])
def test_three_seeds_and_queries_against_a_method_without_seeds(seed_share):
    """Part of the variance from 2 degrees of freedom, part from 49: the hardest place for an approximate df."""
    rng, repetitions, query = np.random.default_rng([int(10 * seed_share), 1000]), 4000, 0.2
    seed = math.sqrt(3 * query**2 / QUERIES * seed_share / (1 - seed_share))
    p = []
    for _ in range(repetitions):
        a, b = query * rng.normal(size=QUERIES), seed * rng.normal(size=(3, 1)) + 0.05 * rng.normal(size=(3, QUERIES))
        p.append((seeds_and_queries_test(a, b).p, satterthwaite_over_all_components(a, b)))
    ours, one_df = (np.array(p) < 0.05).mean(axis=0)
    print(f"\nseeds and queries, n= 3 against none, {seed_share} of the variance from seeds: {ours:.4f}, one df {one_df:.4f}")
    assert ours <= limit(repetitions)
    if seed_share > 0.5:
        assert one_df > limit(repetitions)  # why it was rejected


def hierarchical_bootstrap(a, b, rng, samples: int = 500) -> tuple[float, float]:
    """Percentile interval; each time seeds of each method are drawn again, and queries once for all."""
    n, queries = a.shape
    drawn = rng.multinomial(queries, np.full(queries, 1 / queries), size=samples) / queries  # (samples, Q)
    means = [(rng.multinomial(n, np.full(n, 1 / n), size=samples) / n @ x * drawn).sum(axis=1) for x in (a, b)]
    return tuple(np.quantile(means[1] - means[0], [0.025, 0.975]))


@pytest.mark.parametrize("repetitions", REPETITIONS)
@pytest.mark.parametrize("n", SEEDS)
def test_the_hierarchical_bootstrap_does_not_cover_which_is_why_it_is_not_offered(n, repetitions):
    rng = np.random.default_rng([n, 1100])
    covered = 0
    for _ in range(repetitions):
        low, high = hierarchical_bootstrap(*tables(rng, n, SPREADS["large"]), rng)
        covered += low <= 0 <= high
    print(f"\nhierarchical bootstrap, n={n:2} spread large: coverage {covered / repetitions:.4f}")
    assert covered / repetitions < 1 - limit(repetitions)


# Plans come true.


@pytest.mark.parametrize("difference", [0.8, 1.2, 2.0])
def test_the_seeds_needed_find_the_difference_as_often_as_promised(difference):
    rng, n, repetitions = np.random.default_rng(1200), seeds_needed(difference, 1.0, 1.0), 2000
    found = np.mean([welch_test(a, b + difference).p < 0.05 for a, b in rng.normal(size=(repetitions, 2, n))])
    print(f"\nseeds_needed for {difference}: n={n:2}, found {found:.3f}")
    assert found >= 0.8 - 3 * math.sqrt(0.8 * 0.2 / repetitions)


@pytest.mark.parametrize(("n", "least"), [(3, 0.68), (5, 0.76), (10, 0.78)])
def test_the_detectable_difference_is_detected(n, least):
    """Welch estimates its degrees of freedom, which costs a little power at three seeds."""
    rng, difference, repetitions = np.random.default_rng([n, 1300]), detectable_difference(1.0, 1.0, n), 4000
    found = np.mean([welch_test(a, b + difference).p < 0.05 for a, b in rng.normal(size=(repetitions, 2, n))])
    print(f"\ndetectable difference at n={n:2}: {difference:.3f}, found {found:.3f}")
    assert least <= found <= 0.83


@pytest.mark.parametrize("n", SEEDS)
def test_the_interval_of_the_spread_covers(n):
    rng, repetitions = np.random.default_rng([n, 1400]), 1000
    covered = 0
    for a, _ in rng.normal(size=(repetitions, 2, n)):
        low, high = sd_interval(a.std(ddof=1), n - 1)
        covered += low <= 1 <= high
    print(f"\nn={n:2}: coverage of the spread {covered / repetitions:.3f}")
    assert covered / repetitions >= 1 - limit(repetitions)
