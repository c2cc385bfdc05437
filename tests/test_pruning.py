"""Exact counts, ties, scopes and fractions of pruning."""

import warnings

import ml_dtypes
import numpy as np
import pytest

from tf_lottery.tickets import masks, structure
from tf_lottery.tickets.pruning import SCOPES, layer_fractions, levels_to, prune, prune_in_rounds

LENET = {"fc1/kernel": (784, 300), "fc2/kernel": (300, 100), "output/kernel": (100, 10)}
# Weights left of 235200 / 30000 / 1000 after each level, at 20, 20 and 10 % a level.
LADDER = {
    0: (235200, 30000, 1000),
    1: (188160, 24000, 900),
    2: (150528, 19200, 810),
    3: (120422, 15360, 729),
    4: (96338, 12288, 656),
    5: (77070, 9830, 590),
    6: (61656, 7864, 531),
    7: (49325, 6291, 478),
    8: (39460, 5033, 430),
    9: (31568, 4026, 387),
    11: (20203, 2577, 313),
    12: (16162, 2062, 282),
    13: (12930, 1650, 254),
    15: (8275, 1056, 206),
    16: (6620, 845, 185),
    18: (4237, 541, 150),
    20: (2712, 346, 121),
    24: (1111, 142, 79),
}


def keep(values, fraction, mask=None, scope="layer"):
    scores = {"a": np.asarray(values, float)}
    mask = {"a": np.ones(len(values), bool) if mask is None else np.asarray(mask, bool)}
    return prune(mask, scores, {"a": fraction}, scope)["a"].astype(int).tolist()


def test_the_ladder_of_lenet_300_100():
    fractions = layer_fractions(list(LENET), 0.2)
    rng = np.random.default_rng(0)
    scores = {path: rng.random(shape) for path, shape in LENET.items()}
    mask = masks.ones(LENET)
    for level in range(25):
        counts = tuple(int(array.sum()) for array in mask.values())
        if level in LADDER:
            assert counts == LADDER[level]
        smaller = prune(mask, scores, fractions)
        assert all((smaller[path] <= mask[path]).all() for path in mask)
        for path in mask:
            gone = mask[path] & ~smaller[path]
            assert scores[path][smaller[path]].min() >= scores[path][gone].max()
        mask = smaller


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([1, 2, 3, 4], 0.25, [0, 1, 1, 1]),
        ([3, 1, 2, 4], 0.5, [1, 0, 0, 1]),
        ([1, 0.5, 0.3, 0.2, 1, 1.5, 1.8, 2, 1, 1], 0.5, [1, 0, 0, 0, 1, 1, 1, 1, 0, 0]),
        ([1] * 8, 0.5, [1, 1, 1, 1, 0, 0, 0, 0]),
        ([0] * 4, 0.5, [1, 1, 0, 0]),
        ([1, 2, 3, 4], 0.0, [1, 1, 1, 1]),
    ],
)
def test_which_weights_go_and_how_ties_are_broken(values, fraction, expected):
    assert keep(values, fraction) == expected


def test_pruned_weights_stay_pruned_and_do_not_count():
    assert keep([9, 1, 2, 3, 4], 0.25, mask=[0, 1, 1, 1, 1]) == [0, 0, 1, 1, 1]
    assert keep([-1, -5, 3], 0.5, mask=[1, 1, 0]) == [1, 0, 0]


def test_global_scope_takes_the_lowest_of_all_layers():
    mask = {"a": np.ones(4, bool), "b": np.ones(2, bool)}
    scores = {"a": np.array([0.1, 0.9, 0.2, 0.5]), "b": np.array([0.7, 0.8])}
    pruned = prune(mask, scores, {"a": 0.5, "b": 0.5}, "global")
    assert pruned["a"].tolist() == [False, True, False, False]
    assert pruned["b"].tolist() == [True, True]


def test_a_layer_with_fraction_zero_is_left_out_of_the_global_pool():
    mask = {"a": np.ones(4, bool), "b": np.ones(4, bool)}
    scores = {"a": np.arange(4.0) + 10, "b": np.arange(4.0)}
    pruned = prune(mask, scores, {"a": 0.5, "b": 0.0}, "global")
    assert pruned["a"].tolist() == [False, False, True, True]
    assert pruned["b"].all()


def test_pruning_leaves_its_arguments_alone():
    mask = {"a": np.ones(4, bool)}
    prune(mask, {"a": np.arange(4.0)}, {"a": 0.5})
    assert mask["a"].all()


def test_the_last_kernel_goes_at_half_the_rate_unless_told_otherwise():
    paths = list(LENET)
    assert layer_fractions(paths, 0.2) == {"fc1/kernel": 0.2, "fc2/kernel": 0.2, "output/kernel": 0.1}
    assert set(layer_fractions(paths, 0.2, {}).values()) == {0.2}
    assert layer_fractions(paths, 0.2, {"fc2": 0.5})["fc2/kernel"] == 0.5


def test_levels_to_a_density():
    fractions = layer_fractions(list(LENET), 0.2)
    assert levels_to(0.036, LENET, fractions) == 15
    assert levels_to(0.9, LENET, fractions) == 1


def test_levels_to_a_density_in_the_global_scope():
    with pytest.raises(ValueError, match="pass layer_fractions={}"):
        levels_to(0.2, LENET, layer_fractions(list(LENET), 0.2), "global")
    alike = layer_fractions(list(LENET), 0.2, {})
    levels = levels_to(0.2, LENET, alike, "global")
    rng = np.random.default_rng(0)
    mask = masks.ones(LENET)
    densities = [1.0]
    for _ in range(levels):
        scores = {path: rng.random(shape) for path, shape in LENET.items()}
        mask = prune(mask, scores, alike, "global")
        densities.append(masks.density(mask))
    assert densities[-1] <= 0.2 < densities[-2]


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0])
def test_a_density_out_of_range_is_refused(target):
    with pytest.raises(ValueError, match=r"target_density must be in \(0, 1\)"):
        levels_to(target, LENET, layer_fractions(list(LENET), 0.2))


def test_a_density_that_is_never_reached_is_refused():
    with pytest.raises(ValueError, match="never reach"):
        levels_to(0.5, LENET, dict.fromkeys(LENET, 0.0))


@pytest.mark.parametrize("fraction", [1.0, -0.1])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        layer_fractions(list(LENET), 0.2, {"fc1": fraction})


def test_an_unknown_layer_is_refused_with_the_closest_one():
    with pytest.raises(ValueError, match="Did you mean 'output/kernel'"):
        layer_fractions(list(LENET), 0.2, {"outputs/kernel": 0.1})


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="Unknown scope 'globl'. Did you mean 'global'"):
        keep([1, 2], 0.5, scope="globl")


def test_scores_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="hold NaN"):
        keep([1, np.nan], 0.5)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"must have shape \(2,\). Received \(3,\)"):
        prune({"a": np.ones(2, bool)}, {"a": np.ones(3)}, {"a": 0.5})


def test_a_mask_that_is_no_bool_is_refused():
    with pytest.raises(TypeError, match="a mask holds bools"):
        prune({"a": np.ones(2)}, {"a": np.ones(2)}, {"a": 0.5})


def random_case(rng):
    """A mask of some layers that is pruned already, their scores with many ties, and fractions."""
    shapes = {
        "a/kernel": (3, 3, 2, int(rng.integers(2, 9))),
        "b/kernel": (int(rng.integers(20, 40)), 12),
        "c/kernel": (12, 10),
    }
    mask = {path: rng.random(shape) < 0.9 for path, shape in shapes.items()}
    scores = {path: rng.integers(-3, 30, shape) * rng.choice([0.1, 1.0]) for path, shape in shapes.items()}
    scores["b/kernel"][rng.random(shapes["b/kernel"]) < 0.05] = -np.inf
    fractions = {**dict(zip(mask, rng.choice([0.0, 0.1, 0.33, 0.5], 3))), "b/kernel": 0.4}
    return mask, scores, fractions


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.filterwarnings("ignore::tf_lottery.tickets.masks.LayerCollapse")
def test_scores_that_do_not_change_prune_in_rounds_as_at_once(scope, seed):
    mask, scores, fractions = random_case(np.random.default_rng(seed))
    for name in ("unstructured", "units", "block:2x3"):
        once = prune(mask, scores, fractions, scope, name)
        rounds = prune_in_rounds(mask, lambda mask: scores, fractions, scope, name, rounds=7)
        if scope == "global_normalized":  # norms of what is left change from round to round, totals do not
            left = structure.resolve(name).left
            assert sum(left(*item) for item in rounds.items()) == sum(left(*item) for item in once.items())
        else:
            for path in mask:
                np.testing.assert_array_equal(rounds[path], once[path], err_msg=f"{name} {path}")


def test_each_round_sees_the_mask_that_the_last_one_left():
    mask = {"a": np.ones(1000, bool)}
    seen = []

    def score(mask):
        seen.append(mask["a"].copy())
        scores = np.random.default_rng(len(seen)).random(1000)
        scores[~mask["a"]] = np.nan  # what has gone needs no score
        return {"a": scores}

    pruned = prune_in_rounds(mask, score, {"a": 0.9}, rounds=4)
    densities = [array.sum() for array in [*seen, pruned["a"]]]
    assert densities == [1000, 562, 316, 178, 100]  # 1000 * 0.1 ** (r / 4)
    assert all((after <= before).all() for before, after in zip(seen, [*seen[1:], pruned["a"]]))
    assert mask["a"].all()


@pytest.mark.parametrize(("scope", "name"), [("threshold", "unstructured"), ("layer", "2:4")])
def test_what_has_one_round_is_scored_once(scope, name):
    mask, scores, calls = masks.ones({"a": (4, 2)}), {"a": np.arange(8.0).reshape(4, 2)}, []

    def score(mask):
        calls.append(mask)
        return scores

    pruned = prune_in_rounds(mask, score, {"a": 0.5}, scope, name, rounds=5)
    assert len(calls) == 1
    np.testing.assert_array_equal(pruned["a"], prune(mask, scores, {"a": 0.5}, scope, name)["a"])


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds must be at least 1. Received 0"):
        prune_in_rounds(masks.ones({"a": (2,)}), lambda mask: mask, {"a": 0.5}, rounds=0)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore::tf_lottery.tickets.masks.LayerCollapse")
def test_the_lowest_go_and_of_ties_the_last(scope, seed):
    mask, scores, fractions = random_case(np.random.default_rng(seed))
    pruned = prune(mask, scores, fractions, scope)
    paths = [path for path in mask if fractions[path]]
    for pool in [paths] if scope == "global" else [[path] for path in paths]:
        left = [(scores[p].flat[i], -n, -i, p) for n, p in enumerate(pool) for i in np.flatnonzero(mask[p])]
        count = round(sum(fractions[path] * mask[path].sum() for path in pool))
        lowest = {(path, -i) for _, _, i, path in sorted(left)[:count]}
        gone = {(p, i) for p in pool for i in np.flatnonzero(mask[p] & ~pruned[p])}
        assert gone == lowest


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("structure", ["unstructured", "units", "2:4"])
def test_scores_may_have_any_type(dtype, structure):
    scores = np.arange(32).reshape(4, 8)
    pruned = prune({"a": np.ones((4, 8), bool)}, {"a": scores.astype(dtype)}, {"a": 0.25}, "layer", structure)
    expected = prune(
        {"a": np.ones((4, 8), bool)}, {"a": scores.astype(float)}, {"a": 0.25}, "layer", structure
    )
    np.testing.assert_array_equal(pruned["a"], expected["a"])


def test_a_layer_is_never_emptied_silently():
    mask = masks.ones({"a/kernel": (4,), "b/kernel": (4,), "c/kernel": (4,)})
    mask["c/kernel"][:] = False  # empty before, so that nobody is told now
    scores = {"a/kernel": np.arange(4.0), "b/kernel": np.arange(4.0) + 9, "c/kernel": np.ones(4)}
    with pytest.warns(masks.LayerCollapse, match="density 0.3333 no weight is left in a/kernel: ") as caught:
        pruned = prune(mask, scores, dict.fromkeys(mask, 0.5), "global")
    assert masks.empty_layers(pruned) == ["a/kernel", "c/kernel"]
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(masks.LayerCollapse, match="left in a/kernel") as caught:
        prune_in_rounds(mask, lambda mask: scores, dict.fromkeys(mask, 0.5), "global", rounds=3)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(pruned, scores, dict.fromkeys(mask, 0.5), "global")


def test_units_leave_the_last_kernel_out_unless_told_otherwise():
    paths = list(LENET)
    fractions = {"fc1/kernel": 0.2, "fc2/kernel": 0.2, "output/kernel": 0.0}
    assert layer_fractions(paths, 0.2, structure="units") == fractions
    assert set(layer_fractions(paths, 0.2, {}, "units").values()) == {0.2}
    assert layer_fractions(paths, 0.2, {"output": 0.1}, "units")["output/kernel"] == 0.1
    assert layer_fractions(paths, 0.2, structure="block:4x4") == layer_fractions(paths, 0.2)
