"""Criteria: what they score, and how they are named."""

import functools

import numpy as np
import pytest

from tf_lottery.tickets import masks, pruning, scores
from tf_lottery.tickets.scores import Evidence


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
    given, untouched = evidence(), evidence()
    scores.CRITERIA[name](given)
    for field in ("mask", "initial", "final"):
        for path, array in getattr(given, field).items():
            np.testing.assert_array_equal(array, getattr(untouched, field)[path])


def test_the_criteria_by_name():
    assert dict(scores.CRITERIA) == {"magnitude": scores.magnitude, "random": scores.random}
    assert scores.resolve("magnitude") is scores.magnitude
    assert scores.resolve("random") is scores.random


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
    with pytest.raises(ValueError, match=r"Unknown criterion .*\. There are: magnitude, random\."):
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
