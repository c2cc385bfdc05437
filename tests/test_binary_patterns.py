"""The data of the information plane: a rule on the sphere that no rotation can change."""

import itertools

import numpy as np
import pytest

from tf_lottery.experiments import binary_patterns, datasets
from tf_lottery.experiments.binary_patterns import information, lopsidedness, patterns, points, probabilities


def symmetries():
    """Returns all permutations of the corners that an isometry of space makes, by images of three corners."""
    corners = points()
    gram = np.round(corners @ corners.T, 6)
    base = [0, *np.flatnonzero(np.isclose(gram[0], gram[0][gram[0] < 0.99].max()))[:1]]
    base.append(next(i for i in range(12) if abs(np.linalg.det(corners[[*base, i]])) > 0.1))
    found = []
    for images in itertools.permutations(range(12), 3):
        if np.array_equal(gram[np.ix_(images, images)], gram[np.ix_(base, base)]):
            isometry = np.linalg.solve(corners[base], corners[list(images)])
            found.append(np.argmax(corners @ isometry @ corners.T, axis=1))
    return found


def test_the_points_are_spread_evenly_over_the_sphere():
    gram = points() @ points().T
    np.testing.assert_allclose(np.diag(gram), 1)
    # Of each corner: itself, five neighbors, their five opposites, its own opposite.
    expected = np.sort([1, *[1 / np.sqrt(5)] * 5, *[-1 / np.sqrt(5)] * 5, -1])
    np.testing.assert_allclose(np.sort(gram, axis=1), np.tile(expected, (12, 1)), atol=1e-9)


def test_every_pattern_is_there_once():
    assert patterns().shape == (4096, 12) and len(np.unique(patterns(), axis=0)) == 4096


def test_lopsidedness_by_hand():
    antipodes = np.argmin(points() @ points().T, axis=1)
    neighbor = int(np.flatnonzero(np.isclose(points()[0] @ points().T, 1 / np.sqrt(5)))[0])
    x = np.zeros((4, 12))
    x[1, 0] = 1
    x[2, [0, antipodes[0]]] = 1
    x[3, [0, neighbor]] = 1
    # Nothing, one point, two opposite ones, two neighbors: |a + b|^2 = 2 + 2 / sqrt(5).
    np.testing.assert_allclose(lopsidedness(x), [0, 1, 0, 2 + 2 / np.sqrt(5)], atol=1e-8)


def test_the_rule_has_all_120_symmetries_of_the_icosahedron():
    found = symmetries()
    assert len({tuple(each) for each in found}) == 120
    assert all(sorted(each) == list(range(12)) for each in found)
    p, x = probabilities(), patterns()
    powers = 2 ** np.arange(11, -1, -1)
    for each in found:
        np.testing.assert_array_equal(p[x[:, each] @ powers], p)
    # And not those of any permutation: neighbors may not be torn apart.
    swapped = np.arange(12)
    swapped[[0, 1]] = 1, 0
    assert np.any(p[x[:, swapped] @ powers] != p)


def test_the_classes_are_balanced_and_a_pattern_tells_99_hundredths_of_a_bit():
    p = probabilities()
    assert np.count_nonzero(p < 0.5) == 2060
    assert p.mean() == pytest.approx(0.5, abs=0.005)
    assert information(p) == pytest.approx(0.99, abs=1e-6)


def test_information_by_hand():
    assert information(np.array([0.0, 1.0])) == 1
    assert information(np.array([0.5, 0.5])) == 0
    # One bit less H(1/4).
    assert information(np.array([0.25, 0.75])) == pytest.approx(1 - 0.8112781)


def test_labels_follow_the_rule_but_for_a_few_and_are_the_same_each_time():
    (x, y), (test_x, test_y) = binary_patterns.load()
    assert x.shape == (3277, 12, 1, 1) and test_x.shape == (819, 12, 1, 1)
    all_x = np.concatenate([x, test_x]).reshape(-1, 12)
    assert len(np.unique(all_x, axis=0)) == 4096
    p = probabilities()[all_x @ 2 ** np.arange(11, -1, -1)]
    flipped = np.count_nonzero((p > 0.5) != np.concatenate([y, test_y]))
    assert flipped == pytest.approx(np.minimum(p, 1 - p).sum(), abs=6) and flipped > 0
    for one, other in zip(binary_patterns.load(), ((x, y), (test_x, test_y))):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_as_a_data_set():
    data = datasets.load("binary_patterns", validation_size=410, input_scaling="standardize")
    assert data.train[0].shape == (2867, 12, 1, 1) and data.validation[0].shape == (410, 12, 1, 1)
    assert data.classes == 2 and data.train[0].dtype == np.float32 and data.test[1].dtype == np.int32
    assert len(np.unique(data.test[0])) == 2 and abs(data.test[0]).max() == pytest.approx(1, abs=0.03)
    ones = datasets.load("binary_patterns", validation_size=410)
    assert set(np.unique(ones.train[0])) == {0, 1}
