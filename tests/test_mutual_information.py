"""Estimates of mutual information, against what can be worked out by hand."""

import numpy as np
import pytest

from tf_lottery.analysis.mutual_information import cells, entropy, is_saturated, of_cells, of_noisy

RNG = np.random.default_rng(0)


def column(*values):
    return np.array(values, np.float32)[:, None]


def test_a_layer_that_is_constant_tells_nothing():
    t, labels = np.full((64, 3), 0.7), np.arange(64) % 4
    for low, high in ((-1, 1), (0.7, 0.7)):
        assert of_cells(cells(t, low, high, 30), labels) == (0, 0)
    assert of_noisy(t, labels) == (0, 0)


def test_a_layer_that_is_the_label_tells_the_label_and_no_more():
    labels = np.repeat([0, 1, 2], [4, 2, 2])  # H(Y) = 1/2 * 1 + 2 * 1/4 * 2 = 1.5 bits
    assert of_cells(labels, labels) == pytest.approx((1.5, 1.5))
    t = np.eye(3)[labels]
    assert of_cells(cells(t, -1, 1, 30), labels) == pytest.approx((1.5, 1.5))
    assert of_noisy(100 * t, labels) == pytest.approx((1.5, 1.5))


def test_a_layer_that_tells_all_inputs_apart_is_saturated():
    t, labels = RNG.normal(size=(1024, 20)), np.arange(1024) % 8
    binned = of_cells(cells(t, t.min(), t.max(), 100), labels)
    assert binned == pytest.approx((10, 3))
    assert is_saturated(binned.i_xt, 1024)
    noisy = of_noisy(100 * t, labels)
    assert noisy == pytest.approx((10, 3)) and is_saturated(noisy.i_xt, 1024)
    assert not is_saturated(9.89, 1024) and is_saturated(9.91, 1024)


def test_one_input_in_ten_that_shares_its_cell_is_where_saturation_begins():
    cell = np.arange(1000)
    cell[:100:2] = cell[1:100:2]  # 100 inputs in pairs: 0.1 bits are missing.
    assert entropy(cell) == pytest.approx(np.log2(1000) - 0.1)
    cell[100] = cell[101]
    assert not is_saturated(entropy(cell), 1000)
    assert is_saturated(entropy(np.where(np.arange(1000) < 10, 0, np.arange(1000))), 1000)


def test_four_bins_on_minus_1_to_1():
    apart, close = column(-0.75, -0.25, 0.25, 0.75), column(-0.9, -0.8, 0.8, 0.9)
    assert cells(apart, -1, 1, 4).tolist() == [0, 1, 2, 3]
    assert entropy(cells(apart, -1, 1, 4)) == 2
    assert cells(close, -1, 1, 4).tolist() == [0, 0, 1, 1]
    assert entropy(cells(close, -1, 1, 4)) == 1


def test_the_ends_belong_to_the_first_and_the_last_bin():
    # Bins of width 2/30: -1 is in that of -0.95, 1 in that of 0.95, and 0 begins one.
    t = column(-1, -0.95, -0.01, 0, 0.01, 0.95, 1)
    assert cells(t, -1, 1, 30).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert cells(column(-3, -0.99, 0.99, 3), -1, 1, 30).tolist() == [0, 0, 1, 1]
    t = column(*range(101))  # between their minimum and maximum, 100 bins of width 1
    assert cells(t, 0, 100, 100).tolist() == [*range(100), 99]


def test_a_cell_is_a_tuple_of_all_units():
    t = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    assert of_cells(cells(t, -1, 1, 2), np.array([0, 1, 1, 0])) == (2, 1)  # exclusive or
    for unit in (0, 1):
        assert of_cells(cells(t[:, [unit]], -1, 1, 2), np.array([0, 1, 1, 0])) == (1, 0)


def test_information_about_labels_from_a_table():
    # Cell 0 has labels 0 0 0 1, cell 1 labels 1 1 1 0: one bit less H(1/4) = 0.811278 bits.
    cell, labels = np.repeat([0, 1], 4), np.array([0, 0, 0, 1, 1, 1, 1, 0])
    assert of_cells(cell, labels) == pytest.approx((1, 1 - 0.8112781))


def test_bounds_hold_whatever_the_layer():
    for units, classes in ((1, 2), (2, 10), (6, 3)):
        t, labels = np.tanh(RNG.normal(size=(500, units))), RNG.integers(0, classes, 500)
        estimates = [of_cells(cells(t, -1, 1, bins), labels) for bins in (1, 2, 30, 1000)]
        estimates += [
            of_noisy(t, labels, variance, lower=lower)
            for variance in (1e-6, 1e-2, 0.1, 10)
            for lower in (False, True)
        ]
        for i_xt, i_ty in estimates:
            assert 0 <= i_ty <= min(i_xt, entropy(labels)) and i_xt <= np.log2(500)


def test_kernel_density_counts_clusters_that_lie_apart():
    # 8 clusters of 1, 2, ..., 8 points each: the entropy of the shares n/36.
    label = np.repeat(np.arange(8), np.arange(1, 9))
    expected = -sum(n / 36 * np.log2(n / 36) for n in range(1, 9))
    for lower in (False, True):
        noisy = of_noisy(50 * np.eye(8)[label], label % 2, lower=lower)
        odd = sum(n for n in range(2, 9, 2)) / 36  # clusters 1, 3, 5, 7
        assert noisy == pytest.approx((expected, -odd * np.log2(odd) - (1 - odd) * np.log2(1 - odd)))


def test_kernel_density_of_two_points_by_hand():
    # Distance 1, variance 0.5: each sees itself with 1 and the other with 1/e.
    t, labels = column(0, 1), np.array([0, 1])
    assert of_noisy(t, labels, 0.5) == pytest.approx((-np.log2((1 + np.exp(-1)) / 2),) * 2)
    assert of_noisy(t, labels, 0.5, lower=True) == pytest.approx((-np.log2((1 + np.exp(-0.25)) / 2),) * 2)


@pytest.mark.parametrize(("units", "signal"), [(1, 1.0), (2, 0.5)])
def test_kernel_density_of_a_gaussian(units, signal):
    """T ~ N(0, s^2) in noise of variance v: 1/2 log2(1 + s^2 / v) bits a unit, between the two bounds."""
    t = signal * np.random.default_rng(1).normal(size=(2000, units))
    exact = units / 2 * np.log2(1 + signal**2 / 0.1)
    upper, lower = (of_noisy(t, np.zeros(2000), lower=each).i_xt for each in (False, True))
    assert lower < exact < upper
    # For a fixed t_i, E exp(-|t_i - t_j|^2 / w) over t_j ~ N(0, s^2) is a Gaussian integral; E t_i^2 = s^2.
    for bound, w in ((upper, 0.2), (lower, 0.8)):
        log = 0.5 * np.log2((w + 2 * signal**2) / w) + np.log2(np.e) * signal**2 / (w + 2 * signal**2)
        assert bound == pytest.approx(units * log, rel=0.03)


def test_kernel_density_in_several_pieces_is_the_same(monkeypatch):
    t, labels = RNG.normal(size=(100, 3)), RNG.integers(0, 4, 100)
    whole = of_noisy(t, labels)
    monkeypatch.setattr("tf_lottery.analysis.mutual_information._ROWS", 7)
    assert of_noisy(t, labels) == pytest.approx(whole, rel=1e-12)


def test_wide_layers_far_from_zero_keep_their_distances():
    t = RNG.normal(size=(50, 2))
    shifted = of_noisy(t + 1000, np.zeros(50))
    assert shifted == pytest.approx(of_noisy(t, np.zeros(50)), rel=1e-6)
