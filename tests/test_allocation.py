"""How many weights go from which layers, in each scope; and what levels leave, known beforehand."""

import numpy as np
import pytest

from tf_lottery.tickets import masks
from tf_lottery.tickets.allocation import SCOPES, share
from tf_lottery.tickets.pruning import levels_to, prune

pytestmark = pytest.mark.filterwarnings("ignore::tf_lottery.tickets.masks.LayerCollapse")
CNN = {
    "conv1/kernel": (3, 3, 1, 8),
    "conv2/kernel": (3, 3, 8, 16),
    "fc/kernel": (64, 30),
    "output/kernel": (30, 10),
}
EXACT = [scope for scope in SCOPES if scope != "threshold"]


def normal(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape) * rng.uniform(0.1, 10) for path, shape in shapes.items()}


def counts(mask):
    return {path: int(array.sum()) for path, array in mask.items()}


def after(shapes, fraction, scope, levels=1, fractions=None):
    mask = masks.ones(shapes)
    for level in range(levels):
        mask = prune(mask, normal(shapes, level), fractions or dict.fromkeys(shapes, fraction), scope)
    return counts(mask)


@pytest.mark.parametrize("scope", EXACT)
def test_levels_have_exact_totals_and_nested_masks(scope):
    mask, fractions = masks.ones(CNN), {**dict.fromkeys(CNN, 0.2), "output/kernel": 0.1}
    for level in range(8):
        n = counts(mask)
        smaller = prune(mask, normal(CNN, level), fractions, scope)
        assert all((smaller[path] <= mask[path]).all() for path in CNN)
        expected = round(0.2 * (sum(n.values()) - n["output/kernel"]) + 0.1 * n["output/kernel"])
        if scope != "layer":
            assert masks.kept(mask) - masks.kept(smaller) == expected
        for path in CNN:
            gone = mask[path] & ~smaller[path]
            if gone.any():
                scores = normal(CNN, level)[path]
                assert scores[gone].max() <= scores[smaller[path]].min(initial=np.inf)
        mask = smaller


@pytest.mark.parametrize("scope", SCOPES)
def test_a_layer_of_fraction_zero_is_left_out(scope):
    fractions = {**dict.fromkeys(CNN, 0.5), "fc/kernel": 0.0}
    mask = prune(masks.ones(CNN), normal(CNN), fractions, scope)
    assert mask["fc/kernel"].all()
    assert not mask["conv2/kernel"].all()
    nothing = prune(masks.ones(CNN), normal(CNN), dict.fromkeys(CNN, 0.0), scope)
    assert all(array.all() for array in nothing.values())


def test_normalized_scores_are_those_over_the_norm_of_what_is_left():
    mask = {"a": np.array([True, True, True, False]), "b": np.ones(3, bool)}
    scores = {"a": np.array([3.0, 4.0, 12.0, 1e9]), "b": np.array([0.1, 0.2, 0.2])}
    # 3, 4, 12 over 13 beside 1, 2, 2 over 3: the lowest three are 3/13, 4/13 and 1/3.
    fractions = {"a": 0.5, "b": 0.5}
    pruned = prune(mask, scores, fractions, "global_normalized")
    assert pruned["a"].tolist() == [False, False, True, False]
    assert pruned["b"].tolist() == [False, True, True]
    assert not prune(mask, scores, fractions, "global")["b"].any()


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.inf, 0.5], [-np.inf, 0.5]])
def test_scores_without_a_norm_stay_as_they_are(values):
    scores = {"a": np.array([3.0, 4.0]), "b": np.array(values)}
    pruned = prune(masks.ones({"a": (2,), "b": (2,)}), scores, {"a": 0.5, "b": 0.5}, "global_normalized")
    everything = np.concatenate([scores["a"] / 5, scores["b"]])
    lowest = sorted(range(4), key=lambda i: (everything[i], -i))[:2]
    assert np.flatnonzero(~np.concatenate([pruned["a"], pruned["b"]])).tolist() == sorted(lowest)


def test_the_norm_of_a_structure_is_that_of_its_weights():
    scores = {"a": np.array([[3.0, 0], [4, 0]]), "b": np.array([[0.9, 1.1]])}
    # Means of 3.5 and 0 over 5, beside 0.9 and 1.1 over 1.42. Over the norm of its means 3.5 would be 1.
    mask = masks.ones({"a": (2, 2), "b": (1, 2)})
    pruned = prune(mask, scores, {"a": 0.75, "b": 0.75}, "global_normalized", "units")
    assert pruned["b"].tolist() == [[False, True]] and not pruned["a"].any()


def test_erk_follows_its_formula():
    shapes = {"conv/kernel": (3, 3, 16, 32), "fc/kernel": (512, 100), "output/kernel": (100, 10)}
    left = after(shapes, 0.9, "erk")
    total = 4608 + 51200 + 1000 - round(0.9 * 56808)
    rate = total / (54 / 4608 * 4608 + 612 / 51200 * 51200 + 110 / 1000 * 1000)
    # 54, 612 and 110 times the rate; the last would hold more than it has, and the others take that.
    assert 110 * rate < 1000
    for path, weight in zip(shapes, (54, 612, 110)):
        assert abs(left[path] - weight * rate) <= 1
    assert sum(left.values()) == total


def test_erk_fills_small_layers_first():
    left = after(CNN, 0.2, "erk")
    full = {path: int(np.prod(shape)) for path, shape in CNN.items()}
    assert left["conv1/kernel"] == full["conv1/kernel"]
    rate = left["fc/kernel"] / (64 + 30)
    for path, shape in CNN.items():
        assert abs(left[path] - min(full[path], rate * sum(shape))) <= 1.5


@pytest.mark.parametrize("scope", ["erk", "uniform_plus"])
def test_levels_lead_where_one_pruning_leads(scope):
    five = after(CNN, 0.3, scope, levels=5)
    total, kept = sum(int(np.prod(shape)) for shape in CNN.values()), sum(five.values())
    assert after(CNN, (total - kept) / total, scope) == five


def test_uniform_plus_keeps_a_first_convolution_and_a_fifth_of_the_last_layer():
    left = after(CNN, 0.9, "uniform_plus")
    assert left["conv1/kernel"] == 72
    assert left["output/kernel"] == 60
    total = 72 + 1152 + 1920 + 300
    assert sum(left.values()) == total - round(0.9 * total)
    assert left["conv2/kernel"] / 1152 == pytest.approx(left["fc/kernel"] / 1920, abs=1e-3)


def test_uniform_plus_is_uniform_where_the_first_kernel_is_no_convolution():
    shapes = {"fc1/kernel": (100, 50), "fc2/kernel": (50, 20), "output/kernel": (20, 10)}
    assert after(shapes, 0.5, "uniform_plus") == {"fc1/kernel": 2500, "fc2/kernel": 500, "output/kernel": 100}
    assert after(shapes, 0.9, "uniform_plus")["output/kernel"] == 40


def test_the_first_and_the_last_are_those_of_the_network():
    fractions = {**dict.fromkeys(CNN, 0.9), "conv1/kernel": 0.0, "output/kernel": 0.0}
    left = after(CNN, None, "uniform_plus", fractions=fractions)
    total = 1152 + 1920
    assert left["conv2/kernel"] + left["fc/kernel"] == total - round(0.9 * total)
    assert left["conv2/kernel"] < 1152 / 5


def test_uniform_plus_refuses_what_it_cannot_leave():
    with pytest.raises(ValueError, match="cannot leave only 34: .* stay, 132 in all.* scope='erk'"):
        after(CNN, 0.99, "uniform_plus")


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_threshold_removes_what_is_not_above_zero(fraction):
    scores = {"a": np.array([1.0, 0.0, -0.0, -3, 1e-30]), "b": np.array([-np.inf, 1, 2, np.inf, 3])}
    mask = {"a": np.ones(5, bool), "b": np.array([True, False, True, True, True])}
    pruned = prune(mask, scores, dict.fromkeys(mask, fraction), "threshold")
    assert pruned["a"].tolist() == [True, False, False, False, True]
    assert pruned["b"].tolist() == [False, False, True, True, True]


def test_threshold_of_units_is_that_of_their_means():
    scores = np.array([[1.0, -1], [-2, 3]])
    pruned = prune({"a": np.ones((2, 2), bool)}, {"a": scores}, {"a": 0.5}, "threshold", "units")
    assert pruned["a"].tolist() == [[False, True]] * 2


def test_shares_are_in_bounds_exact_and_never_rise_as_the_total_falls():
    rng = np.random.default_rng(0)
    for _ in range(30):
        n = int(rng.integers(1, 7))
        most = rng.integers(0, 40, n)
        least = rng.integers(0, most + 1)
        weights = rng.choice([1, 1, 2, 0.3, 17.5], n)
        above = most
        for total in range(int(most.sum()), int(least.sum()) - 1, -1):
            divided = np.array(share(total, weights, most, least))
            assert divided.sum() == total
            assert (least <= divided).all() and (divided <= above).all()
            above = divided


def simulated(shapes, fractions, scope, structure, target):
    mask, level = masks.ones(shapes), 0
    while masks.density(mask) > target:
        mask, level = prune(mask, normal(shapes, level), fractions, scope, structure), level + 1
    return level


@pytest.mark.parametrize("target", [0.9, 0.5, 0.21])
@pytest.mark.parametrize(
    ("scope", "structure", "fractions"),
    [
        *((scope, "unstructured", {}) for scope in EXACT),
        ("global", "unstructured", {"output/kernel": 0.0, "conv1/kernel": 0.0}),
        ("erk", "unstructured", {"output/kernel": 0.1}),
        ("uniform_plus", "unstructured", {"output/kernel": 0.1}),
        ("layer", "units", {"output/kernel": 0.0}),
        ("erk", "units", {"output/kernel": 0.0}),
        ("layer", "block:2x2", {"conv1/kernel": 0.0}),
        ("global", "block:2x2", {"conv1/kernel": 0.0}),
        ("layer", "1:8", {}),
    ],
)
def test_levels_to_a_density_are_those_that_pruning_takes(scope, structure, fractions, target):
    fractions = {**dict.fromkeys(CNN, 0.2), **fractions}
    levels = levels_to(target, CNN, fractions, scope, structure)
    assert levels == simulated(CNN, fractions, scope, structure, target)


@pytest.mark.parametrize(
    ("scope", "structure", "message"),
    [
        ("threshold", "unstructured", "scope='threshold': it goes by the scores alone. Pass levels"),
        ("global", "units", "has 9 to 72 weights in conv1/kernel, .*Pass levels instead"),
        ("layer", "block:4x4", "has 8 to 16 weights in fc/kernel. Pass levels instead"),
        ("globl", "unstructured", "Unknown scope 'globl'"),
        ("layer", "unit", "Unknown structure 'unit'"),
        ("global", "2:4", "needs scope='layer'"),
    ],
)
def test_levels_that_cannot_be_known_are_refused(scope, structure, message):
    with pytest.raises(ValueError, match=message):
        levels_to(0.5, CNN, dict.fromkeys(CNN, 0.2), scope, structure)


def test_n_of_m_ends_where_n_are_left():
    fractions = {"fc/kernel": 0.2}
    assert levels_to(0.5, {"fc/kernel": (64, 30)}, fractions, structure="2:4") == 2
    with pytest.raises(ValueError, match="never reach target_density=0.4, they end at 0.5: take a smaller N"):
        levels_to(0.4, {"fc/kernel": (64, 30)}, fractions, structure="2:4")
