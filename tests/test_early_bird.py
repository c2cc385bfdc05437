"""Early-bird tickets: the rule on masks made by hand, and a search by it."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery import files
from tf_lottery.search import early_bird


def mask_of(kept, size=100):
    return {"a/kernel": np.isin(np.arange(size), list(kept))}


def rule():
    """A rule for which the weights are the mask."""
    return early_bird.StableMask(lambda weights: weights)


def test_the_fifth_of_five_equal_masks_is_stable_and_no_earlier():
    is_stable, same = rule(), mask_of(range(50))
    assert [is_stable(same) for _ in range(6)] == [False] * 4 + [True] * 2


def test_a_distance_of_a_tenth_is_near_enough_and_one_more_is_not():
    # Five swapped weights of a hundred: ten entries differ.
    near, far = mask_of([*range(5, 50), *range(50, 55)]), mask_of([*range(6, 50), *range(50, 56)])
    first = mask_of(range(50))
    assert early_bird.distance(first, near) == pytest.approx(0.1)
    assert early_bird.distance(first, far) == pytest.approx(0.12)
    for newest, stable in ((near, True), (far, False)):
        is_stable = rule()
        for mask in [first] * 4:
            is_stable(mask)
        assert is_stable(newest) is stable


def test_the_newest_is_held_against_each_of_the_four_before():
    masks = [mask_of(range(start, start + 50)) for start in (0, 2, 4, 6, 8)]
    is_stable = rule()
    assert [is_stable(mask) for mask in masks] == [False] * 5  # 8 of 50 moved from the first: 0.16
    assert not is_stable(mask_of(range(8, 58)))  # 0.12 from the one that began at 2
    assert is_stable(mask_of(range(8, 58)))  # the first of five is now the one that began at 4: 0.08


def test_six_masks_trigger_at_the_sixth():
    is_stable = rule()
    masks = [mask_of(range(60, 100))] + [mask_of(range(40))] * 5
    assert [is_stable(mask) for mask in masks] == [False] * 5 + [True]


@pytest.mark.parametrize(("density", "limit"), [(0.5, 0.1), (0.7, 0.1), (0.3, 0.1), (0.05, 0.0475)])
def test_where_independent_masks_would_pass_the_threshold_is_lower(density, limit):
    assert early_bird.threshold(density) == pytest.approx(limit)
    assert early_bird.threshold(density) <= 2 * density * (1 - density) / 2


def test_independent_sparse_masks_are_not_stable():
    rng = np.random.default_rng(0)
    is_stable = rule()
    seen = [is_stable({"a/kernel": rng.random(100_000) < 0.04}) for _ in range(20)]
    assert not any(seen)  # they differ in 0.077 of the entries, below the paper's 0.1


def test_a_search_stops_the_dense_network_where_its_mask_is_stable(make_model, data, tmp_path, no_xla):
    x, y = data
    ticket = tf_lottery.find_ticket(
        make_model(),
        x,
        y,
        epochs=20,
        levels=2,
        batch_size=20,
        prune_fraction=0.5,
        schedule="early_bird",
        workdir=tmp_path,
        verbose=0,
    )
    tickets = [row for row in ticket.history if row["arm"] == "ticket"]
    epoch = 11  # 216 examples in batches of 20
    assert [row["level"] for row in tickets] == [0, 1, 2]
    for row in tickets[1:]:
        assert row["search_steps"] % epoch == 0
        assert 5 * epoch <= row["search_steps"] < tickets[0]["last_step"]
    searched, _ = files.read_tensors(tmp_path / "replicate_1/level_01/search/end.safetensors")
    found, _ = files.read_tensors(tmp_path / "replicate_1/level_01/ticket/mask.safetensors")
    for path, fraction in {"fc1/kernel": 0.5, "fc2/kernel": 0.5, "output/kernel": 0.25}.items():
        size = found[path].size
        lowest = np.argsort(np.abs(searched[path]).ravel())[: round(fraction * size)]
        np.testing.assert_array_equal(np.flatnonzero(~found[path]), np.sort(lowest))
