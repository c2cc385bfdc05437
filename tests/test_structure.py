"""Units, blocks and N:M: what is pruned as one, and how much of it."""

import numpy as np
import pytest

from tf_lottery.tickets import masks, structure
from tf_lottery.tickets.pruning import prune


def keep(scores, fraction, name, path="a/kernel", mask=None, scope="layer"):
    scores = {path: np.asarray(scores, float)}
    mask = masks.ones({path: scores[path].shape}) if mask is None else {path: np.asarray(mask, bool)}
    return prune(mask, scores, {path: fraction}, scope, name)[path].astype(int).tolist()


def groups(name, shape, path="a/kernel"):
    return structure.resolve(name).groups(path, shape)


def test_units_share_the_last_axis():
    assert groups("units", (2, 3)).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert (groups("units", (3, 3, 2, 5)) == np.arange(5)).all()
    assert (groups("units", (3, 3, 4, 2), "c/depthwise_kernel") == np.arange(8).reshape(4, 2)).all()


def test_blocks_lie_in_the_last_two_axes():
    assert groups("block:2x2", (4, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert groups("block:4x1", (5, 2)).tolist() == [[0, 1]] * 4 + [[2, 3]]
    assert groups("block:2x4", (2, 2, 5)).tolist() == [[[0] * 4 + [1]] * 2, [[2] * 4 + [3]] * 2]


def test_the_unit_of_the_lowest_mean_goes():
    kernel = [[9, 1, 4], [0, 2, 4]]  # means 4.5, 1.5 and 4
    assert keep(kernel, 0.3, "units") == [[1, 0, 1], [1, 0, 1]]
    assert keep(kernel, 0.6, "units") == [[1, 0, 0], [1, 0, 0]]
    assert keep([[5, 5, 5, 5]], 0.5, "units") == [[1, 1, 0, 0]]


def test_the_mean_is_that_of_what_is_left():
    # Over all weights the first unit has the lower mean, over those left the second.
    assert keep([[0, 3], [4, 3]], 0.5, "units", mask=[[0, 1], [1, 1]]) == [[0, 0], [1, 0]]


def test_units_that_are_gone_do_not_count():
    mask = np.ones((2, 6), bool)
    mask[:, :2] = False
    left = keep(np.tile(np.arange(6), (2, 1)), 0.5, "units", mask=mask)
    assert left == [[0, 0, 0, 0, 1, 1]] * 2


def test_depthwise_filters_go_one_by_one():
    scores = np.ones((3, 3, 2, 2))
    scores[:, :, 1, 0] = 0
    left = np.array(keep(scores, 0.25, "units", "c/depthwise_kernel"))
    assert left.sum((0, 1)).tolist() == [[9, 9], [0, 9]]


def test_a_block_at_the_edge_is_one_too():
    scores = np.ones((3, 3))
    scores[2, 2] = 0
    assert keep(scores, 0.25, "block:2x2") == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]


def test_blocks_of_a_convolution_are_of_one_position():
    scores = np.arange(2 * 4 * 2.0).reshape(2, 4, 2)
    assert keep(scores, 0.25, "block:4x1") == [[[0, 1]] * 4, [[1, 1]] * 4]


@pytest.mark.filterwarnings("ignore::tf_lottery.tickets.masks.LayerCollapse")
@pytest.mark.parametrize("scope", ["layer", "global", "global_normalized", "erk"])
@pytest.mark.parametrize("name", ["block:1x1", "block:4x1", "block:3x2", "units"])
def test_every_scope_counts_groups(scope, name):
    rng = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 3, 5, 8), "b/kernel": (20, 30), "c/depthwise_kernel": (3, 3, 4, 2)}
    scores = {path: rng.normal(size=shape) for path, shape in shapes.items()}
    kind, mask = structure.resolve(name), masks.ones(shapes)
    for _ in range(5):
        left = {path: kind.left(path, array) for path, array in mask.items()}
        smaller = prune(mask, scores, dict.fromkeys(mask, 0.3), scope, name)
        assert all((smaller[path] <= mask[path]).all() for path in mask)
        counts = {path: kind.left(path, array) for path, array in smaller.items()}
        if scope == "layer":
            assert counts == {path: n - round(0.3 * n) for path, n in left.items()}
        else:
            assert sum(counts.values()) == sum(left.values()) - round(0.3 * sum(left.values()))
        for path, array in smaller.items():  # whole groups, all or nothing
            group = kind.groups(path, array.shape).ravel()
            kept = np.bincount(group, array.ravel())
            assert set(kept) <= {0, *np.bincount(group)}
        mask = smaller


def test_single_weights_are_blocks_of_one():
    rng = np.random.default_rng(0)
    scores, mask = {"a": rng.integers(0, 5, (6, 7))}, masks.ones({"a": (6, 7)})
    for scope in ("layer", "global"):
        one = prune(mask, scores, {"a": 0.4}, scope)
        np.testing.assert_array_equal(one["a"], prune(mask, scores, {"a": 0.4}, scope, "block:1x1")["a"])


def test_n_of_m_loses_the_lowest_of_every_group_at_each_level():
    column = np.array([[3.0], [1], [2], [4], [1], [1], [1], [1]])
    first = keep(column, 0.2, "2:4")
    assert np.ravel(first).tolist() == [1, 0, 1, 1, 1, 1, 1, 0]
    second = keep(column, 0.9, "2:4", mask=first)
    assert np.ravel(second).tolist() == [1, 0, 0, 1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="structure '2:4' has 2 levels: pass levels=2"):
        keep(column, 0.2, "2:4", mask=second)


@pytest.mark.parametrize("shape", [(8, 3), (3, 3, 8, 2), (10, 3), (3, 2)])
def test_n_of_m_counts(shape):
    rng = np.random.default_rng(0)
    kind, scores, mask = structure.resolve("1:4"), rng.normal(size=shape), np.ones(shape, bool)
    levels = kind.levels({"a/kernel": shape})
    assert levels == min(4, shape[-2]) - 1
    for level in range(1, levels + 1):
        smaller = np.array(keep(scores, 0.2, "1:4", mask=mask), bool)
        assert (smaller <= mask).all()
        most = min(4, shape[-2]) - level
        for start in range(0, shape[-2], 4):
            rows = slice(start, start + 4)
            inputs = mask[..., rows, :].shape[-2]
            assert (smaller[..., rows, :].sum(-2) == min(most, inputs)).all()
            gone = mask[..., rows, :] & ~smaller[..., rows, :]
            left = np.where(smaller[..., rows, :], scores[..., rows, :], np.inf).min(-2, keepdims=True)
            assert (scores[..., rows, :] <= left)[gone].all()
        assert mask.size - smaller.sum() == kind.removed({"a/kernel": shape})[level - 1]
        mask = smaller


def test_a_short_kernel_waits_for_the_others():
    mask = masks.ones({"a": (2, 3), "b": (8, 3)})
    scores = {path: np.ones(array.shape) for path, array in mask.items()}
    first = prune(mask, scores, {"a": 0.2, "b": 0.2}, structure="1:4")
    second = prune(first, scores, {"a": 0.2, "b": 0.2}, structure="1:4")
    assert first["a"].all() and second["a"].all()
    third = prune(second, scores, {"a": 0.2, "b": 0.2}, structure="1:4")
    assert (third["a"].sum(0) == 1).all() and (third["b"].sum(0) == 2).all()


def test_n_of_m_leaves_layers_of_fraction_zero_and_its_arguments_alone():
    mask = masks.ones({"a": (8, 2), "b": (4,)})
    scores = {path: np.ones(array.shape) for path, array in mask.items()}
    smaller = prune(mask, scores, {"a": 0.2, "b": 0.0}, structure="2:4")
    assert smaller["b"].all() and not smaller["a"].all() and mask["a"].all()
    assert prune(mask, scores, {"a": 0.0, "b": 0.0}, structure="2:4")["a"].all()


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_n_of_m_takes_infinite_scores(value):
    assert keep(np.full((4, 1), value), 0.2, "2:4") == [[1], [1], [1], [0]]
    assert keep(np.full((4, 1), value), 0.2, "2:4", mask=[[1], [1], [0], [1]]) == [[1], [1], [0], [0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unit", "Unknown structure 'unit'. Did you mean 'units'"),
        ("block:4", "Unknown structure 'block:4'. .*There are: unstructured, units, block:HxW, N:M"),
        ("2:4:8", "Unknown structure '2:4:8'"),
        (None, "Unknown structure None"),
        ("block:0x4", "at least one row and one column. Received 'block:0x4'"),
        ("4:4", "with 1 <= N < M. Received '4:4'"),
        ("0:4", "with 1 <= N < M. Received '0:4'"),
    ],
)
def test_what_is_no_structure_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        structure.resolve(name)


@pytest.mark.parametrize("name", ["2:4", "block:4x1"])
def test_a_vector_has_neither_blocks_nor_inputs(name):
    with pytest.raises(ValueError, match=f"structure '{name}' needs kernels of rank 2 or more.*'a/kernel'"):
        keep([1, 2, 3, 4], 0.5, name)


@pytest.mark.parametrize("scope", ["global", "global_normalized", "erk", "uniform_plus", "threshold"])
def test_n_of_m_is_of_each_layer_by_itself(scope):
    with pytest.raises(ValueError, match=f"needs scope='layer'. Received scope='{scope}'"):
        keep(np.ones((4, 2)), 0.5, "2:4", scope=scope)


def test_a_group_with_both_infinities_is_refused():
    with pytest.raises(ValueError, match="Scores of 'a/kernel' hold inf and -inf in one group"):
        keep([[np.inf, 1], [-np.inf, 1]], 0.5, "units")
    assert keep([[1, 1], [-np.inf, 1]], 0.5, "units") == [[0, 1], [0, 1]]
