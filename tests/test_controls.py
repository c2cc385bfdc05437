"""Controls differ from the ticket in one thing, and in that alone."""

import functools
import re

import numpy as np
import pytest

from tf_lottery.keras_api import prunable
from tf_lottery.tickets import controls, masks, pruning, seeds
from tf_lottery.tickets.controls import FoundTicket

SHAPES = {"fc1/kernel": (20, 30), "fc2/kernel": (30, 10), "output/kernel": (10, 3)}
DRAWS = 400


def normal(rng):
    return {path: rng.normal(0.1, 0.5, shape).astype(np.float32) for path, shape in SHAPES.items()}


def found(seed=0, mask=None, **others):
    """Returns a ticket, always the same but for the seed of what is drawn."""
    rng = np.random.default_rng(99)
    shares = dict(zip(SHAPES, (0.1, 0.5, 0.9)))
    if mask is None:
        mask = {path: rng.random(shape) < shares[path] for path, shape in SHAPES.items()}

    def network(i):
        others = {"fc1/bias": np.full(30, i, np.float32), "bn/moving_mean": np.full(30, i + 0.5)}
        return {**normal(rng), **others}

    states = {"initial": network(0), "rewound": network(1), "trained": network(2)}
    for name in ("initial", "rewound"):
        states[name]["/optimizer/000"] = np.array(len(name))
    fresh = {**states["initial"], **normal(np.random.default_rng(seed + 1000))}
    scores = {path: rng.integers(0, 40, shape) for path, shape in SHAPES.items()}
    fields = {"mask": mask, "step": 5, "rng": np.random.default_rng(seed), **states}
    fields |= {"redraw": lambda: dict(fresh), "scores": lambda: scores}
    return FoundTicket(**fields | others)


def begin(control, ticket):
    """Returns mask, state, step and whether pruned weights are frozen."""
    mask, state, step, *frozen = control(ticket)
    return mask, state, step, frozen == [True]


def drawn(control, ticket, draws):
    """Returns path -> the kernels of several draws."""
    states = [control(ticket)[1] for _ in range(draws)]
    return {path: np.array([state[path] for state in states]) for path in SHAPES}


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
        np.testing.assert_array_equal(weights[path], given.initial[path])


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

        return controls.reinit(found(mask=mask, redraw=redraw))[:2]

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


@pytest.mark.parametrize("control", [controls.shuffle, controls.random, controls.random_ticket])
def test_masks_depend_on_the_generator(control):
    first, again, other = (control(found(seed))[0] for seed in (1, 1, 2))
    assert same(first, again)
    assert all(not np.array_equal(first[path], other[path]) for path in SHAPES)


@pytest.mark.parametrize("control", [controls.shuffle, controls.random, controls.random_ticket])
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


# name -> where its mask, and its variables that are no kernels, come from; its step; whether it freezes
BEGINNINGS = {
    "reinit": ("ticket", "initial", 0, False),
    "same_sign": ("ticket", "initial", 0, False),
    "permuted": ("ticket", "initial", 0, False),
    "signed_constant": ("ticket", "rewound", 5, False),
    "resampled": ("ticket", "rewound", 5, False),
    "noise": ("ticket", "rewound", 5, False),
    "shuffle": ("layer counts", "rewound", 5, False),
    "random": ("total", "rewound", 5, False),
    "random_ticket": ("layer counts", "initial", 0, False),
    "inverted": ("layer counts", "rewound", 5, False),
    "trained": ("ticket", "trained", 0, False),
    "freeze_initial": ("ticket", "initial", 0, True),
    "freeze_by_movement": ("ticket", "initial", 0, True),
    "freeze_by_movement_all": ("ticket", "initial", 0, True),
}


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_what_a_control_has_of_the_ticket(name):
    given = found()
    mask, state, step, frozen = begin(controls.CONTROLS[name], given)
    masked_as, source, *rest = BEGINNINGS[name]
    assert [step, frozen] == rest
    assert masks.kept(mask) == masks.kept(given.mask)
    assert same(mask, given.mask) == (masked_as == "ticket")
    assert (counts(mask) == counts(given.mask)) == (masked_as != "total")
    source = getattr(given, source)
    assert list(state) == list(source)
    for path, array in source.items():
        assert (state[path].shape, state[path].dtype) == (array.shape, array.dtype), path
        if path not in SHAPES:
            np.testing.assert_array_equal(state[path], array)


@pytest.mark.parametrize("name", [name for name, (mask, *_) in BEGINNINGS.items() if mask != "ticket"])
def test_another_mask_lies_on_untouched_weights(name):
    given = found()
    state = controls.CONTROLS[name](given)[1]
    assert same(state, given.redraw() if name == "random_ticket" else given.rewound)


@pytest.mark.parametrize("name", ["reinit", "same_sign", "permuted", "resampled", "noise", "random_ticket"])
def test_weights_depend_on_the_seed_alone(name):
    first, again, other = (controls.CONTROLS[name](found(seed))[1] for seed in (1, 1, 2))
    assert same(first, again)
    for path in SHAPES:
        assert (first[path] == other[path]).mean() < 0.5, path


@pytest.mark.parametrize("name", ["permuted", "resampled", "noise", "shuffle", "random", "random_ticket"])
def test_one_generator_gives_draw_after_draw(name):
    given = found()
    (mask, weights, *_), (other_mask, other_weights, *_) = (controls.CONTROLS[name](given) for _ in range(2))
    for path in SHAPES:
        assert not (
            np.array_equal(weights[path], other_weights[path])
            and np.array_equal(mask[path], other_mask[path])
        )


def test_same_sign_is_a_fresh_draw_with_the_signs_of_the_ticket():
    given = found()
    fresh, signed = given.redraw(), controls.same_sign(given)[1]
    for path in SHAPES:
        np.testing.assert_array_equal(np.abs(signed[path]), np.abs(fresh[path]))
        np.testing.assert_array_equal(np.sign(signed[path]), np.sign(given.rewound[path]))
        assert not np.array_equal(np.sign(fresh[path]), np.sign(given.rewound[path]))


def test_signed_constant_has_one_magnitude_in_each_layer():
    given = found()
    given.rewound["fc2/kernel"][0, :3] = 0
    weights = controls.signed_constant(given)[1]
    magnitudes = {path: np.unique(np.abs(weights[path][given.rewound[path] != 0])) for path in SHAPES}
    for path, (magnitude,) in magnitudes.items():
        assert magnitude == np.float32(given.initial[path].astype(float).std())
        np.testing.assert_array_equal(np.sign(weights[path]), np.sign(given.rewound[path]))
    assert len(np.unique(list(magnitudes.values()))) == 3


def test_permuted_has_the_layer_s_initial_weights_at_any_place():
    given = found()
    for path, weights in drawn(controls.permuted, given, DRAWS).items():
        initial = given.initial[path]
        flat = np.sort(weights.reshape(DRAWS, -1), axis=1)
        assert (flat == np.sort(initial.ravel())).all()
        spread = initial.std() / np.sqrt(DRAWS)
        assert np.abs(weights.mean(0) - initial.mean()).max() < 5 * spread
        neighbours = np.corrcoef(weights[:, :, :-1].ravel(), weights[:, :, 1:].ravel())[0, 1]
        assert abs(neighbours + 1 / (initial.size - 1)) < 0.05  # two draws without replacement


def test_resampled_has_the_survivors_of_the_layer_and_no_others():
    given = found()
    for path, weights in drawn(controls.resampled, given, DRAWS).items():
        survivors = given.rewound[path][given.mask[path]]
        values, times = np.unique(weights, return_counts=True)
        np.testing.assert_array_equal(values, np.sort(survivors))
        expected = weights.size / len(survivors)
        assert np.abs(times - expected).max() < 5 * np.sqrt(expected)
        # With replacement: 1 - 1/e of n values turn up in n draws.
        first = weights[0].ravel()[: len(survivors)]
        if len(survivors) > 50:
            assert 0.5 < len(np.unique(first)) / len(survivors) < 0.75
        spread = survivors.std() / np.sqrt(DRAWS)
        assert np.abs(weights.mean(0) - survivors.mean()).max() < 5 * spread


@pytest.mark.parametrize("name, deviations", [("noise", 1), ("noise:0.5", 0.5), ("noise:3_2", 3)])
def test_noise_is_gaussian_and_goes_by_the_layer_s_initial_weights(name, deviations):
    given = found()
    for path, weights in drawn(controls.resolve([name])[name], given, DRAWS).items():
        added = (weights - given.rewound[path]) / given.initial[path].std()
        assert abs(added.std() / deviations - 1) < 5 / np.sqrt(2 * added.size)
        assert abs(added.mean()) < 5 * deviations / np.sqrt(added.size)
        assert np.abs(added.mean(0)).max() < 5 * deviations / np.sqrt(DRAWS)
        within = (np.abs(added) < deviations).mean()
        assert abs(within - 0.6827) < 5 * np.sqrt(0.6827 * 0.3173 / added.size)


def test_inverted_keeps_the_lowest_scores_of_the_dense_network():
    given = found()
    mask, scores = controls.inverted(given)[0], given.scores()
    for path, kept in mask.items():
        assert scores[path][kept].max() <= scores[path][~kept].min()
    # What scores that all differ leave to one-shot pruning is the other end.
    distinct = {path: np.random.default_rng(1).permutation(np.prod(SHAPES[path])) for path in SHAPES}
    distinct = {path: array.reshape(SHAPES[path]) for path, array in distinct.items()}
    best = pruning.prune(masks.ones(SHAPES), distinct, dict.fromkeys(SHAPES, 0.5))
    worst = controls.inverted(found(mask=best, scores=lambda: distinct))[0]
    assert same(worst, {path: ~kept for path, kept in best.items()})


def test_inverted_takes_the_first_of_equal_scores():
    mask = {"fc": np.array([[True, False, True], [False, False, True]])}
    scores = {"fc": np.array([[2.0, 1.0, 2.0], [3.0, -np.inf, 2.0]])}
    kept = controls.inverted(found(mask=mask, scores=lambda: scores))[0]
    np.testing.assert_array_equal(kept["fc"], [[True, True, False], [False, True, False]])


def test_trained_has_the_dense_network_s_weights():
    given = found()
    assert same(controls.trained(given)[1], given.trained)


def test_freeze_initial_has_the_initial_weights():
    given = found()
    assert same(controls.freeze_initial(given)[1], given.initial)


@pytest.mark.parametrize(
    "control, expected",
    [
        (controls.freeze_by_movement, [[1, -1, 2, 0.5], [0, 0, 2, 0.5]]),
        (controls.freeze_by_movement_all, [[0, 0, 2, 0.5], [0, 0, 2, 0.5]]),
    ],
)
def test_freezing_by_movement_zeroes_what_moved_towards_zero(control, expected):
    """The first row is kept, the second pruned; two shrink, one grows, one is as far on the other side."""
    initial = {"fc": np.array([[1, -1, 2, 0.5]] * 2, np.float32), "bias": np.ones(4)}
    final = {"fc": np.array([[0.5, 0.9, -3, -0.5]] * 2, np.float32), "bias": np.zeros(4)}
    mask = {"fc": np.array([[True] * 4, [False] * 4])}
    kept, state, step, frozen = control(found(mask=mask, initial=initial, trained=final))
    assert (step, frozen) == (0, True) and same(kept, mask)
    assert state["fc"].dtype == np.float32
    np.testing.assert_array_equal(state["fc"], expected)
    np.testing.assert_array_equal(state["bias"], initial["bias"])


def test_freezing_by_movement_in_a_whole_network():
    given = found()
    some, every = (controls.CONTROLS[f"freeze_by_movement{end}"](given)[1] for end in ("", "_all"))
    for path, kept in given.mask.items():
        shrunk = np.abs(given.trained[path]) < np.abs(given.initial[path])
        np.testing.assert_array_equal(some[path] == 0, shrunk & ~kept)
        np.testing.assert_array_equal(every[path] == 0, shrunk)
        for state in (some, every):
            assert (state[path] == given.initial[path])[state[path] != 0].all()


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_a_control_changes_none_of_its_inputs(name):
    given = found()
    controls.CONTROLS[name](given)
    for field in ("mask", "rewound", "initial", "trained"):
        assert same(getattr(given, field), getattr(found(), field)), field
    assert same(given.scores(), found().scores()) and same(given.redraw(), found().redraw())


@pytest.mark.parametrize("name", controls.CONTROLS)
@pytest.mark.parametrize("keep", [True, False])
def test_full_and_empty_masks_stay_what_they_are(name, keep):
    mask = {path: np.full(shape, keep) for path, shape in SHAPES.items()}
    assert same(controls.CONTROLS[name](found(mask=mask))[0], mask)


def test_the_controls_by_name():
    assert list(controls.CONTROLS)[:3] == ["reinit", "shuffle", "random"]
    assert set(controls.CONTROLS) == set(BEGINNINGS)
    assert all(controls.CONTROLS[name] is getattr(controls, name) for name in controls.CONTROLS)
    assert controls.resolve([]) == {}
    assert controls.resolve(("shuffle", "reinit")) == {
        "shuffle": controls.shuffle,
        "reinit": controls.reinit,
    }
    assert list(controls.resolve(("shuffle", "reinit", "shuffle"))) == ["shuffle", "reinit"]


def test_a_control_may_be_had_several_times():
    names = [f"{name}{number}" for name in controls.CONTROLS for number in ("", "_2", "_10")]
    found = controls.resolve(names)
    assert list(found) == names
    for name in controls.CONTROLS:
        assert found[name] is found[f"{name}_2"] is found[f"{name}_10"] is controls.CONTROLS[name]


def test_a_control_may_have_an_argument():
    names = ["noise", "noise:0.5", "noise:3", "noise:0.5_2", "noise:0.5"]
    resolved = controls.resolve(names)
    assert list(resolved) == names[:4]
    assert resolved["noise:0.5"] is resolved["noise:0.5_2"]
    for name, deviations in zip(resolved, (1.0, 0.5, 3.0, 0.5)):
        assert same(resolved[name](found(4))[1], controls.noise(found(4), deviations)[1])
    assert all(parameter in controls.noise.__code__.co_varnames for parameter in controls.ARGUMENTS.values())


@pytest.mark.parametrize("name", ["reinit_1", "reinit_0", "same_sign_02", "noise:0.5_1"])
def test_numbers_start_at_two(name):
    first = name.rpartition("_")[0]
    message = rf"write '{first}' for the first and '{first}_2' for the next\. Received '{name}'\."
    with pytest.raises(ValueError, match=message):
        controls.resolve([name])


@pytest.mark.parametrize(
    "argument", ["", "0", "0.0", "-1", "x", "nan", "inf", "1e3", "1.", ".5", "9" * 400, "٣"]
)
def test_a_wrong_argument_is_refused_with_one_that_is_right(argument):
    message = (
        rf"takes a number above 0, its deviations: write such as 'noise:0.5'\. Received 'noise:{argument}'"
    )
    with pytest.raises(ValueError, match=message):
        controls.resolve([f"noise:{argument}"])


@pytest.mark.parametrize("name", ["reinit:0.5", "same_sign:", "random:2_3"])
def test_an_argument_where_none_is_taken_is_refused(name):
    base = name.partition(":")[0]
    with pytest.raises(
        ValueError, match=f"Control '{base}' takes no argument: write '{base}'. Received '{name}'"
    ):
        controls.resolve([name])


def test_names_are_safe_in_a_file_system():
    resolved = controls.resolve([*controls.CONTROLS, "noise:0.5_2"])
    assert all(re.fullmatch("[a-z_:.0-9]+", name) for name in resolved)


def test_a_function_goes_by_its_own_name():
    def mine(found):
        return found.mask, found.rewound, 0

    assert controls.resolve(["reinit", mine]) == {"reinit": controls.reinit, "mine": mine}


def test_an_unknown_control_is_refused_with_the_closest_one():
    with pytest.raises(ValueError, match="Unknown control 'shufle'. Did you mean 'shuffle'"):
        controls.resolve(["reinit", "shufle"])
    with pytest.raises(ValueError, match="Unknown control 'reinitt'. Did you mean 'reinit'"):
        controls.resolve(["reinitt_2"])
    for name in (None, ["reinit"], "", "reinit\n"):
        with pytest.raises(
            ValueError, match=rf"Unknown control {re.escape(repr(name))}.*There are: reinit, "
        ):
            controls.resolve([name])


def test_one_string_is_refused():
    with pytest.raises(TypeError, match=r"Controls are a list. Received 'reinit': write \['reinit'\]"):
        controls.resolve("reinit")


def test_a_control_without_a_name_is_refused():
    with pytest.raises(TypeError, match="A control goes by its name, and functools.partial.* write a def"):
        controls.resolve([functools.partial(controls.reinit)])


def test_two_functions_of_one_name_are_refused():
    with pytest.raises(ValueError, match="Two controls are called '<lambda>'"):
        controls.resolve([lambda found: None, lambda found: None])

    def reinit_2(found):
        return found.mask, found.rewound, 0

    with pytest.raises(ValueError, match="Two controls are called 'reinit_2'"):
        controls.resolve(["reinit_2", reinit_2])


def test_a_control_cannot_pass_for_the_ticket():
    def ticket(found):
        return found.mask, found.rewound, 0

    with pytest.raises(ValueError, match="A control cannot be called 'ticket'"):
        controls.resolve([ticket])
