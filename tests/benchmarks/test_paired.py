"""Differences, tests, corrections and verdicts, against literal computations."""

import itertools
import math
import statistics

import paired
import pytest
from scipy import stats


def scores(*by_task):
    """Accuracies of tasks a, b, ... by seed."""
    return {
        (chr(ord('a') + task), seed): accuracy
        for task, seeds in enumerate(by_task)
        for seed, accuracy in enumerate(seeds)
        if accuracy is not None
    }


def exact_signed_rank_p(values):
    """Wilcoxon's test by its definition: over all signs that the differences could have had."""
    values = [value for value in values if value]
    ranks = stats.rankdata([abs(value) for value in values])
    sums = [
        abs(sum(rank * sign for rank, sign in zip(ranks, signs, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(ranks))
    ]
    signs = [math.copysign(1, value) for value in values]
    own = abs(sum(rank * sign for rank, sign in zip(ranks, signs, strict=True)))
    return sum(total >= own - 1e-9 for total in sums) / len(sums)


def test_only_what_both_have_is_compared():
    found = paired.compare(scores([80, 82], [50], [60, None]), scores([79, None], [51], [None, 7]))
    assert (found.pairs, found.wins, found.ties, found.losses) == (2, 1, 0, 1)
    assert found.tasks == {'a': 1, 'b': -1}
    assert found.mean == 0


def test_a_task_with_more_seeds_weighs_no_more():
    found = paired.compare(scores([13, 14, 15], [52]), scores([10, 10, 10], [50]))
    assert found.tasks == {'a': 4, 'b': 2}
    assert found.mean == 3  # (4 + 2) / 2, not (3 + 4 + 5 + 2) / 4
    assert found.deviation == pytest.approx(statistics.stdev([3, 4, 5, 2]))


def test_differences_are_rounded_as_accuracies_are():
    found = paired.differences(scores([70.3, 70.15]), scores([70.1, 69.95]))
    assert list(found.values()) == [0.2, 0.2]


def test_a_tie_is_neither_won_nor_lost():
    found = paired.compare(scores([50, 60, 70]), scores([50, 59, 71]))
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)


def test_nothing_in_common():
    assert paired.compare(scores([50]), scores([None, 50])) is None
    assert paired.compare({}, {}) is None


def test_one_pair_has_neither_p_nor_interval_nor_deviation():
    found = paired.compare(scores([51.5]), scores([50]))
    assert found.mean == 1.5
    assert (found.p_pairs, found.p_tasks, found.half_width, found.deviation) == (None,) * 4


def test_several_seeds_of_one_task_have_no_p_over_tasks():
    found = paired.compare(scores([51, 53, 52]), scores([50, 50, 50]))
    assert found.p_tasks is None
    assert found.p_pairs is not None


@pytest.mark.parametrize(
    'values',
    [
        [1.5, 2.0, -0.5, 3.25, 0.75, 4.0],
        [1.0, -1.0, 2.0, 2.0, 3.0, -0.5, 4.0],  # ties among ranks
        [0.0, 1.0, 2.0, 3.0, -4.0, 5.0, 0.0],  # zeros
    ],
)
def test_signed_ranks_by_enumeration(values):
    assert paired.signed_rank_p(values) == pytest.approx(exact_signed_rank_p(values))


def test_t_test_by_its_formula():
    values = [1.5, 2.0, -0.5, 3.25, 0.75]
    error = statistics.stdev(values) / math.sqrt(5)
    t = statistics.fmean(values) / error
    assert paired.t_p(values) == pytest.approx(2 * stats.t.sf(t, 4))
    assert paired.half_width(values) == pytest.approx(2.776445 * error)  # t(4), as tables have it


def test_the_interval_excludes_zero_where_p_is_below_5_per_cent():
    for values in ([1, 2, 3, 4], [0.2, 2, 3, 4], [-1, 2, 3, 4], [-2, 1, 4]):
        excludes = abs(statistics.fmean(values)) > paired.half_width(values)
        assert excludes == (paired.t_p(values) < 0.05)


@pytest.mark.parametrize('test', [paired.signed_rank_p, paired.t_p])
def test_no_difference_at_all(test):
    assert test([0.0, 0.0, 0.0]) == 1
    assert test([0.0]) is None
    assert test([]) is None


def test_equal_differences_say_nothing_of_their_spread():
    assert paired.t_p([0.5, 0.5]) is None
    # Both tasks by 0.1 in the mean, which floats do not quite say.
    gained = {'a': (0.1, 0.1, 0.1), 'b': (0.0, 0.0, 0.3)}
    first = {(task, seed): 50 + own[seed] for task, own in gained.items() for seed in range(3)}
    found = paired.compare(first, dict.fromkeys(first, 50.0))
    assert len({*found.tasks.values()}) == 2
    assert (found.mean, found.p_tasks) == (pytest.approx(0.1), None)
    assert paired.verdict(found, found.p_tasks) == paired.OPEN


def test_holm_step_by_step():
    # 4 x 0.01, 3 x 0.02, 2 x 0.03, 1 x 0.04, and none smaller than the one before.
    assert paired.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert paired.holm([0.9, 0.6]) == [1, 1]
    assert paired.holm([]) == []


def test_holm_counts_what_is_missing():
    assert paired.holm([0.01, None, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04)]
    as_one = paired.holm([0.01, 1.0, 0.02])
    assert [as_one[0], as_one[2]] == pytest.approx([0.03, 0.04])


def test_verdicts():
    better = paired.compare(scores([52], [61], [73]), scores([50], [60], [70]))
    worse = paired.compare(scores([50], [60], [70]), scores([52], [61], [73]))
    assert paired.verdict(better, 0.049) == 'holds'
    assert paired.verdict(better, 0.05) == 'not decided'
    assert paired.verdict(better, None) == 'not decided'
    assert paired.verdict(worse, 0.001) == 'the other way round'
    assert paired.verdict(None, None) == 'no data'
