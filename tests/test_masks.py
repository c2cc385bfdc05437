"""Densities, and what a mask does to weights."""

import ml_dtypes
import numpy as np
import pytest

from tf_lottery.tickets import masks


def example():
    return {
        "fc1/kernel": np.array([[True, False, True], [False, False, True]]),
        "fc2/kernel": np.array([[True], [False]]),
    }


def test_density_is_kept_over_prunable_of_the_whole_network():
    assert masks.kept(example()) == 4
    assert masks.density(example()) == 4 / 8
    assert masks.density({"a": np.ones(3, bool)}) == 1.0
    assert masks.density({"a": np.zeros(3, bool)}) == 0.0
    assert masks.density({"a": np.ones((), bool)}) == 1.0
    assert masks.density({"a": [[True, False], [False, False]]}) == 0.25


def test_layers_that_keep_nothing_are_named():
    mask = {**example(), "fc3/kernel": np.zeros((2, 2), bool), "fc4/kernel": [False]}
    assert masks.empty_layers(mask) == ["fc3/kernel", "fc4/kernel"]
    assert masks.empty_layers(example()) == []


def test_density_weighs_layers_by_their_size():
    assert masks.density({"big": np.zeros(9, bool), "small": np.ones(1, bool)}) == 0.1


def test_ones_keep_every_weight():
    mask = masks.ones({"a": (2, 3), "b": (4,)})
    assert [(path, array.shape, array.dtype, array.all()) for path, array in mask.items()] == [
        ("a", (2, 3), np.dtype(bool), True),
        ("b", (4,), np.dtype(bool), True),
    ]


def test_apply_zeroes_what_is_pruned_and_nothing_else():
    mask = example()
    weights = {
        "fc1/kernel": np.array([[1.0, -2.0, 3.0], [-4.0, np.nan, -6.0]], np.float32),
        "fc1/bias": np.array([-1.0, 0.0, 2.0], np.float32),
        "fc2/kernel": np.array([[-0.5], [-np.inf]], np.float32),
        "step": np.array(7),
    }
    masked = masks.apply(mask, weights)
    assert list(masked) == list(weights)
    assert masked["fc1/kernel"].tolist() == [[1, 0, 3], [0, 0, -6]]
    assert masked["fc2/kernel"].tolist() == [[-0.5], [0]]
    np.testing.assert_array_equal(masked["fc1/bias"], weights["fc1/bias"])
    assert masked["step"].shape == () and masked["step"] == 7


def test_pruned_weights_become_positive_zeros():
    masked = masks.apply({"a": np.zeros(3, bool)}, {"a": np.array([-1.0, -0.0, 1.0], np.float32)})
    assert masked["a"].tobytes() == bytes(12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, ml_dtypes.bfloat16])
def test_apply_keeps_the_type(dtype):
    masked = masks.apply({"a": np.array([True, False])}, {"a": np.ones(2, dtype), "b": np.ones(2, dtype)})
    assert masked["a"].dtype == masked["b"].dtype == np.dtype(dtype)
    assert masked["a"].tolist() == [1, 0]


def test_apply_copies_and_leaves_its_arguments_alone():
    mask, weights = example(), {path: np.ones(array.shape) for path, array in example().items()}
    weights["bias"] = np.ones(2)
    masked = masks.apply(mask, weights)
    for array in masked.values():
        array[...] = 9
    assert all((array == 1).all() for array in weights.values())
    assert all(np.array_equal(mask[path], example()[path]) for path in mask)


@pytest.mark.parametrize("function", [masks.check, masks.density])
@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({}, ValueError, "A mask needs at least one weight. Received an empty mapping."),
        ({"a": np.ones((0, 3), bool)}, ValueError, "Received arrays without entries"),
        ({"a": np.ones(2)}, TypeError, "The mask of 'a' holds float64, .* write weights != 0"),
        ({"a": np.ones(2, bool), "b": np.ones(2, np.uint8)}, TypeError, "The mask of 'b' holds uint8"),
    ],
)
def test_what_is_no_mask_is_refused(function, mask, error, message):
    with pytest.raises(error, match=message):
        function(mask)


def test_a_mask_is_accepted():
    masks.check(example())
    masks.check({"a": np.zeros(2, bool), "b": [True]})
