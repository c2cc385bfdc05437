"""Controls differ from the ticket in one thing, and in that alone."""

import functools

import numpy as np
import pytest

from tf_lottery.keras_api import prunable
from tf_lottery.tickets import controls, masks, seeds
from tf_lottery.tickets.controls import FoundTicket

SHAPES = {"fc1/kernel": (20, 30), "fc2/kernel": (30, 10), "output/kernel": (10, 3)}
DRAWS = 400


def redraw_with(seed, initial):
    def redraw():
        rng = np.random.default_rng(seed)
        drawn = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
        return {**initial, **drawn}

    return redraw


def found(seed=0, mask=None):
    rng = np.random.default_rng(99)
    shares = dict(zip(SHAPES, (0.1, 0.5, 0.9)))
    if mask is None:
        mask = {path: rng.random(shape) < shares[path] for path, shape in SHAPES.items()}
    initial = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    initial |= {"fc1/bias": rng.normal(size=30).astype(np.float32), "bn/moving_mean": np.ones(30)}
    return FoundTicket(mask, initial, 5, redraw_with(seed, initial), np.random.default_rng(seed))


def counts(mask):
    return {path: int(array.sum()) for path, array in mask.items()}


def same(arrays, others):
    return list(arrays) == list(others) and all(
        arrays[path].dtype == others[path].dtype and np.array_equal(arrays[path], others[path])
        for path in arrays
    )


def test_reinit_keeps_the_mask_and_draws_other_weights():
    given = found()
    mask, weights, step = controls.reinit(given)
    assert step == 0
    assert same(mask, given.mask)
    assert list(weights) == list(given.rewound)
    for path in SHAPES:
        assert weights[path].shape == SHAPES[path]
        assert (weights[path] != given.rewound[path]).all()
    for path in ("fc1/bias", "bn/moving_mean"):
        np.testing.assert_array_equal(weights[path], given.rewound[path])


def test_reinit_depends_on_the_draw():
    first, again, other = (controls.reinit(found(seed))[1] for seed in (1, 1, 2))
    assert same(first, again)
    assert all((first[path] != other[path]).all() for path in SHAPES)


def test_reinit_draws_a_network_from_its_own_initializers(make_model):
    model = make_model(batch_norm=True)
    initial = {path: slot.variable.numpy() for path, slot in prunable.slots(model).items()}
    kernels = list(prunable.prunable_slots(model))
    mask = masks.ones({path: initial[path].shape for path in kernels})

    def reinit(seed):
        def redraw():
            return {**initial, **prunable.draw_initial(model, lambda path: seeds.seed(seed, path))}

        return controls.reinit(FoundTicket(mask, initial, 0, redraw, np.random.default_rng(0)))[:2]

    kept, first = reinit(1)
    assert same(kept, mask)
    assert same(first, reinit(1)[1])
    other = reinit(2)[1]
    for path, array in initial.items():
        assert first[path].shape == array.shape and first[path].dtype == array.dtype
        if path in kernels:
            assert (first[path] != array).all() and (first[path] != other[path]).all(), path
            assert 0.5 < first[path].std() / array.std() < 2, path
        else:
            np.testing.assert_array_equal(first[path], array)


def test_shuffle_keeps_the_count_of_each_layer_and_the_weights():
    given = found()
    mask, weights, step = controls.shuffle(given)
    assert step == given.step
    assert counts(mask) == counts(given.mask)
    assert {path: (array.shape, array.dtype) for path, array in mask.items()} == {
        path: (shape, np.dtype(bool)) for path, shape in SHAPES.items()
    }
    assert all(not np.array_equal(mask[path], given.mask[path]) for path in SHAPES)
    assert same(weights, found().rewound)


def test_random_keeps_the_total_and_the_weights_and_spreads_it_over_the_layers():
    given = found()
    mask, weights, step = controls.random(given)
    assert step == given.step
    assert masks.kept(mask) == masks.kept(given.mask)
    assert {path: (array.shape, array.dtype) for path, array in mask.items()} == {
        path: (shape, np.dtype(bool)) for path, shape in SHAPES.items()
    }
    assert same(weights, found().rewound)
    density = masks.density(given.mask)
    for path in SHAPES:
        assert counts(mask)[path] != counts(given.mask)[path]
        spread = np.sqrt(density * (1 - density) / mask[path].size)
        assert abs(mask[path].mean() - density) < 5 * spread


@pytest.mark.parametrize("control", [controls.shuffle, controls.random])
def test_masks_depend_on_the_generator(control):
    first, again, other = (control(found(seed))[0] for seed in (1, 1, 2))
    assert same(first, again)
    assert all(not np.array_equal(first[path], other[path]) for path in SHAPES)


@pytest.mark.parametrize("control", [controls.shuffle, controls.random])
@pytest.mark.parametrize("where", [np.s_[:5, :], np.s_[:, :8], np.s_[:10, :15]])
def test_places_are_uniform_and_independent(control, where):
    structured = np.zeros((20, 30), bool)
    structured[where] = True
    share = structured.mean()
    given = found(mask={"fc1/kernel": structured})
    draws = np.array([control(given)[0]["fc1/kernel"] for _ in range(DRAWS)])
    assert (draws.sum((1, 2)) == structured.sum()).all()
    spread = np.sqrt(share * (1 - share) / DRAWS)
    assert np.abs(draws.mean(0) - share).max() < 5 * spread
    # Whole rows or columns that move together, or stay full, show in the counts along them.
    for axis, length in ((1, 20), (2, 30)):
        expected = length * share * (1 - share)
        assert 0.8 < draws.sum(axis).var() / expected < 1.2
    neighbours = np.corrcoef(draws[:, :, :-1].ravel(), draws[:, :, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.02


def test_random_is_uniform_across_layers():
    mask = {"a": np.ones((6, 10), bool), "b": np.zeros((10, 2), bool)}
    given = found(mask=mask)
    draws = [controls.random(given)[0] for _ in range(DRAWS)]
    share = 60 / 80
    spread = np.sqrt(share * (1 - share) / DRAWS)
    for path in mask:
        assert np.abs(np.mean([drawn[path] for drawn in draws], axis=0) - share).max() < 5 * spread
    in_b = np.array([drawn["b"].sum() for drawn in draws])
    assert in_b.min() < 15 < in_b.max()
    assert 0.7 < in_b.var() / (20 * share * (1 - share) * 60 / 79) < 1.3


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_a_control_changes_none_of_its_inputs(name):
    given = found()
    controls.CONTROLS[name](given)
    assert same(given.mask, found().mask)
    assert same(given.rewound, found().rewound)


@pytest.mark.parametrize("name", controls.CONTROLS)
@pytest.mark.parametrize("keep", [True, False])
def test_full_and_empty_masks_stay_what_they_are(name, keep):
    mask = {path: np.full(shape, keep) for path, shape in SHAPES.items()}
    assert same(controls.CONTROLS[name](found(mask=mask))[0], mask)


def test_the_controls_by_name():
    assert dict(controls.CONTROLS) == {
        "reinit": controls.reinit,
        "shuffle": controls.shuffle,
        "random": controls.random,
    }
    assert controls.resolve([]) == {}
    assert controls.resolve(("shuffle", "reinit")) == {
        "shuffle": controls.shuffle,
        "reinit": controls.reinit,
    }
    assert list(controls.resolve(("shuffle", "reinit", "shuffle"))) == ["shuffle", "reinit"]


def test_a_function_goes_by_its_own_name():
    def same_sign(found):
        return found.mask, found.rewound, 0

    assert controls.resolve(["reinit", same_sign]) == {"reinit": controls.reinit, "same_sign": same_sign}


def test_an_unknown_control_is_refused_with_the_closest_one():
    with pytest.raises(ValueError, match="Unknown control 'shufle'. Did you mean 'shuffle'"):
        controls.resolve(["reinit", "shufle"])
    with pytest.raises(ValueError, match=r"Unknown control None\. There are: reinit, shuffle, random\."):
        controls.resolve([None])


def test_one_string_is_refused():
    with pytest.raises(TypeError, match=r"Controls are a list. Received 'reinit': write \['reinit'\]"):
        controls.resolve("reinit")


def test_a_control_without_a_name_is_refused():
    with pytest.raises(TypeError, match="A control goes by its name, and functools.partial.* write a def"):
        controls.resolve([functools.partial(controls.reinit)])


def test_two_functions_of_one_name_are_refused():
    with pytest.raises(ValueError, match="Two controls are called '<lambda>'"):
        controls.resolve([lambda found: None, lambda found: None])


def test_a_control_cannot_pass_for_the_ticket():
    def ticket(found):
        return found.mask, found.rewound, 0

    with pytest.raises(ValueError, match="A control cannot be called 'ticket'"):
        controls.resolve([ticket])
