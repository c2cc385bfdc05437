"""Paired differences and their intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from tf_lottery.analysis.differences import Difference, compare
from tf_lottery.training.history import Result


def row(replicate, level, arm, step, accuracy, last=1000):
    return Result(replicate, level, arm, 0.8**level, step, accuracy, 0.1, accuracy, accuracy, last)


def test_students_interval_of_three():
    # Standard deviation 1; 4.302653 is the 97.5th percentile of t with two degrees of freedom.
    found = Difference.of([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - 2 == 2 - found.low == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_the_interval_is_scipys_own():
    values = np.random.default_rng(0).normal(0.3, 2, 12)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = Difference.of(list(values))
    np.testing.assert_allclose([found.low, found.high], [interval.low, interval.high])


def test_the_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(5, 1, (2000, 4))
    inside = [found.low <= 5 <= found.high for found in map(Difference.of, draws.tolist())]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_one_difference_has_no_interval():
    with pytest.raises(ValueError, match=r"two differences or more\. Received 1"):
        Difference.of([1.0])


def test_pairs_are_of_one_replicate_whatever_their_order():
    rows = [row(1, 1, "ticket", 400, 0.97), row(2, 1, "ticket", 500, 0.95)]
    rows += [row(2, 1, "reinit", 600, 0.94), row(1, 1, "reinit", 700, 0.96), row(3, 1, "reinit", 0, 0.1)]
    found = compare(rows)[1]
    assert (found.pairs, found.density) == (2, 0.8)
    assert found.quality.mean == found.quality.low == pytest.approx(0.01)
    assert found.early_stop.mean == -200 and found.early_stop.low < -200 < found.early_stop.high


def test_levels_without_two_pairs_are_left_out():
    rows = [row(1, 1, "ticket", 400, 0.97), row(1, 1, "reinit", 500, 0.95), row(2, 1, "ticket", 400, 0.97)]
    assert compare(rows) == {}
    assert compare([*rows, row(2, 1, "reinit", 1, 0.9)], "shuffle") == {}


def test_an_early_stop_that_was_not_reached_has_no_difference():
    rows = [row(r, 1, arm, 400, 0.97) for r in (1, 2) for arm in ("ticket", "reinit")]
    assert compare(rows)[1].early_stop.mean == 0
    rows[-1] = row(2, 1, "reinit", 1000, 0.97)
    assert compare(rows)[1].early_stop is None
