"""Criteria: what they score, and how they are named."""

import functools

import numpy as np
import pytest

from tf_lottery.tickets import masks, pruning, scores
from tf_lottery.tickets.scores import Evidence

NAMES = (
    "magnitude, magnitude_increase, magnitude_same_sign, magnitude_increase_same_sign, movement, "
    "large_init_large_final, large_init, small_final, random, snip, grasp, synflow, fisher, supermask, l0"
)


class Linear:
    """A network whose every derivative is 1."""

    def ones(self, weights, mask, examples=0):
        return {path: np.ones(array.shape) for path, array in mask.items()}

    gradient = squared_gradient = hessian_gradient = flow = supermask = l0 = ones


def evidence(seed=0, **changes):
    rng = np.random.default_rng(5)
    shapes = {"fc1/kernel": (6, 4), "fc2/kernel": (4, 3)}
    fields = {
        "mask": masks.ones(shapes),
        "initial": {path: rng.normal(size=shape) for path, shape in shapes.items()},
        "final": {path: rng.normal(size=shape) for path, shape in shapes.items()},
        "rng": np.random.default_rng(seed),
    }
    return Evidence(**{**fields, **changes})


def test_magnitude_is_that_of_the_final_weights():
    final = {"fc1/kernel": np.array([-2.0, 1.0, 0.0]), "bias": np.ones(3)}
    given = evidence(mask={"fc1/kernel": np.ones(3, bool)}, final=final)
    scored = scores.magnitude(given)
    assert list(scored) == ["fc1/kernel"]
    assert scored["fc1/kernel"].tolist() == [2, 1, 0]


def test_magnitude_prunes_the_smallest_of_weights_that_are_all_negative():
    mask = {"a": np.ones(5, bool)}
    final = {"a": np.array([-5.0, -1.0, -4.0, -0.5, -3.0])}
    scored = scores.magnitude(evidence(mask=mask, final=final))
    assert pruning.prune(mask, scored, {"a": 0.4})["a"].tolist() == [True, False, True, False, True]


def test_magnitude_scores_weights_of_either_sign_alike():
    mask = {"a": np.ones(4, bool)}
    scored = scores.magnitude(evidence(mask=mask, final={"a": np.array([1.0, -2.0, 3.0, -4.0])}))
    assert pruning.prune(mask, scored, {"a": 0.5})["a"].tolist() == [False, False, True, True]


def test_random_follows_its_generator_and_nothing_else():
    first = scores.random(evidence(seed=3))
    again = scores.random(evidence(seed=3, final={}, initial={}))
    other = scores.random(evidence(seed=4))
    assert {path: array.shape for path, array in first.items()} == {
        "fc1/kernel": (6, 4),
        "fc2/kernel": (4, 3),
    }
    for path, array in first.items():
        np.testing.assert_array_equal(array, again[path])
        assert not np.array_equal(array, other[path])
        assert len(np.unique(array)) == array.size


def test_random_prunes_every_place_alike():
    mask = masks.ones({"a": (5, 8)})
    rng = np.random.default_rng(0)
    kept = np.zeros((5, 8))
    for _ in range(500):
        scored = scores.random(evidence(mask=mask, rng=rng))
        kept += pruning.prune(mask, scored, {"a": 0.25})["a"]
    # 500 throws at 0.75 have a standard deviation of 0.019.
    assert np.abs(kept / 500 - 0.75).max() < 0.1


@pytest.mark.parametrize("name", scores.CRITERIA)
def test_a_criterion_changes_none_of_its_inputs(name):
    given, untouched = evidence(network=Linear()), evidence()
    scores.CRITERIA[name](given)
    for field in ("mask", "initial", "final"):
        for path, array in getattr(given, field).items():
            np.testing.assert_array_equal(array, getattr(untouched, field)[path])


def test_the_criteria_by_name():
    assert list(scores.CRITERIA) == NAMES.split(", ")
    for name, criterion in scores.CRITERIA.items():
        assert scores.resolve(name) is criterion is getattr(scores, name)


def test_a_function_is_its_own_criterion():
    def mine(evidence):
        return {}

    assert scores.resolve(mine) is mine


@pytest.mark.parametrize("name", ["magnitud", "Magnitude"])
def test_an_unknown_criterion_is_refused_with_the_closest_one(name):
    with pytest.raises(ValueError, match=f"Unknown criterion '{name}'. Did you mean 'magnitude'"):
        scores.resolve(name)


@pytest.mark.parametrize("name", ["zzz", None, 3, []])
def test_what_is_no_criterion_is_refused_with_all_there_are(name):
    with pytest.raises(ValueError, match=rf"Unknown criterion .*There are: {NAMES}\."):
        scores.resolve(name)


def test_a_criterion_without_a_name_is_refused():
    with pytest.raises(TypeError, match="A criterion goes by its name, and functools.partial.* write a def"):
        scores.resolve(functools.partial(scores.magnitude))


@pytest.mark.parametrize("scope", pruning.SCOPES)
def test_scores_at_fraction_zero_prune_nothing(scope):
    mask = {"a": np.array([True, False, True])}
    assert pruning.prune(mask, {"a": np.arange(3.0)}, {"a": 0.0}, scope)["a"].tolist() == [True, False, True]


def test_scores_without_a_fraction_are_refused():
    with pytest.raises(ValueError, match="fractions has nothing for 'b': give its share to prune, or 0"):
        pruning.prune(masks.ones({"a": (2,), "b": (2,)}), {"a": np.ones(2), "b": np.ones(2)}, {"a": 0.5})


INITIAL = {"a": np.array([0.5, -0.5, 0.25, -1.0, 0.1, 2.0])}
FINAL = {"a": np.array([1.0, 0.5, 0.5, -1.25, -0.3, 1.0])}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [1.0, 0.5, 0.5, 1.25, 0.3, 1.0]),
        ("small_final", [-1.0, -0.5, -0.5, -1.25, -0.3, -1.0]),
        ("large_init", [0.5, 0.5, 0.25, 1.0, 0.1, 2.0]),
        ("movement", [0.5, 1.0, 0.25, 0.25, 0.4, 1.0]),
        ("magnitude_increase", [0.5, 0.0, 0.25, 0.25, 0.2, -1.0]),
        ("magnitude_same_sign", [1.0, 0.0, 0.5, 1.25, 0.0, 1.0]),
        ("magnitude_increase_same_sign", [0.5, -1.0, 0.25, 0.25, -1.0, -1.0]),
        # Ranks of |w_initial|: 4 4 2 5 1 6 of 6; of |w_final|: 5 3 3 6 1 5.
        ("large_init_large_final", [4 / 6, 3 / 6, 2 / 6, 5 / 6, 1 / 6, 5 / 6]),
    ],
)
def test_criteria_of_weights_by_hand(name, expected):
    mask = {"a": np.ones(6, bool)}
    evidence = scores.Evidence(mask, INITIAL, FINAL, np.random.default_rng(0))
    np.testing.assert_allclose(scores.CRITERIA[name](evidence)["a"], expected)


def test_ranks_are_those_among_the_weights_left():
    mask = {"a": np.array([True, True, True, False, True, False])}
    evidence = scores.Evidence(mask, INITIAL, FINAL, np.random.default_rng(0))
    found = scores.large_init_large_final(evidence)["a"]
    np.testing.assert_allclose(found[mask["a"]], [1.0, 3 / 4, 2 / 4, 1 / 4])


class Quadratic:
    """The loss sum(c w^2) / 2 + sum(b w), whose derivatives are known."""

    c, b = {"a": np.array([1.0, 2.0, 3.0])}, {"a": np.array([0.5, 0.0, -1.0])}
    steps = 7

    def gradient(self, weights, mask, examples):
        return {path: (self.c[path] * weights[path] + self.b[path]) * 1.0 for path in mask}

    def hessian_gradient(self, weights, mask, examples):
        return {path: self.c[path] * g for path, g in self.gradient(weights, mask, examples).items()}

    def squared_gradient(self, weights, mask, examples):
        return {path: g**2 for path, g in self.gradient(weights, mask, examples).items()}

    def flow(self, weights, mask):
        return self.squared_gradient(weights, mask, 1)

    def supermask(self, weights, mask):
        return self.c

    l0 = supermask


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # At w = 1, -1, 2 the gradient is 1.5, -2, 5 and H g is 1.5, -4, 15.
        ("snip", [1.5, 2.0, 10.0]),
        ("grasp", [1.5, 4.0, 30.0]),
        ("fisher", [0.5**2 * 1.0 / 2, 2**2 * 16.0 / 2, 1**2 * 4.0 / 2]),
        ("supermask", [1.0, 2.0, 3.0]),
        ("l0", [1.0, 2.0, 3.0]),
    ],
)
def test_criteria_of_gradients_by_hand(name, expected):
    initial, final = {"a": np.array([1.0, -1.0, 2.0])}, {"a": np.array([0.5, 2.0, 1.0])}
    mask = {"a": np.ones(3, bool)}
    evidence = scores.Evidence(mask, initial, final, np.random.default_rng(0), Quadratic())
    np.testing.assert_allclose(scores.CRITERIA[name](evidence)["a"], expected)


def test_synflow_is_the_weight_times_its_flow_whatever_the_sign():
    initial, mask = {"a": np.array([1.0, -1.0, 2.0])}, {"a": np.ones(3, bool)}
    evidence = scores.Evidence(mask, initial, {}, np.random.default_rng(0), Quadratic())
    np.testing.assert_allclose(scores.synflow(evidence)["a"], [2.25, 4.0, 50.0])


def test_which_criteria_do_without_trained_weights():
    needs = {name: scores.needs(criterion) for name, criterion in scores.CRITERIA.items()}
    untrained = {"large_init", "random", "snip", "grasp", "synflow", "supermask", "l0"}
    assert {name for name, need in needs.items() if not need.training} == untrained
    assert {name for name, need in needs.items() if need.learning} == {"supermask", "l0"}
    assert {name for name, need in needs.items() if need.data} == {
        "snip",
        "grasp",
        "fisher",
        "supermask",
        "l0",
    }
    assert {name: need.rounds for name, need in needs.items() if need.rounds > 1} == {"synflow": 100}
    assert scores.needs(lambda evidence: {}) == scores.Needs()
