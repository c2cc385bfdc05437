"""Rewinding: the choices by name, and what a search makes of them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.keras_api.masked_model import OPTIMIZER, MaskedModel
from tf_lottery.search.imp import iterative_pruning, redraw_of
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import controls, masks
from tf_lottery.tickets.rewinding import FINAL, Rewinding, resolve
from tf_lottery.training.arms import Start
from tf_lottery.training.loop import Loop
from tf_lottery.training.trainer import Trainer


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        (None, 0, Rewinding(0, 0)),
        ("", 7, Rewinding(7, 7)),
        ("original", 0, Rewinding(0, 0)),
        ("late", 7, Rewinding(7, 7)),
        ("learning_rate", 0, Rewinding(FINAL, 0)),
        ("learning_rate", 7, Rewinding(FINAL, 7)),
        ("fine_tuning", 7, Rewinding(FINAL, FINAL, steps=13)),
    ],
)
def test_the_names(name, step, expected):
    assert resolve(name, step, steps=20) == expected


def test_scores_may_be_those_of_an_earlier_step():
    assert resolve(None, 3, 20, score_step=8) == Rewinding(3, 3, score=8)
    given = Rewinding(restore=5, restart=0, score=9)
    assert resolve(given, 0, 20) is given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lat", 5, 20), "Unknown rewinding 'lat'. Did you mean 'late'"),
        (("late", 0, 20), "'late' needs a rewind_step above 0; step 0 is rewinding='original'"),
        (("original", 5, 20), "Received rewind_step=5: pass rewinding='late'"),
        ((None, 20, 20), r"rewind_step must be in \[0, 20\), the training's steps. Received 20"),
        ((None, -1, 20), r"rewind_step must be in \[0, 20\)"),
        ((None, 0, 20, 20), r"score_step must be in \[0, 20\), the training's steps, or -1 for the end"),
        ((None, 5, 20, 5), "scored at step 5, before training restarts at step 5: pass a later score_step"),
        (("fine_tuning", 5, 20, 9), "scored at step 9, before training restarts at its end"),
        ((Rewinding(5, 5), 5, 20), "leave rewind_step and score_step out"),
        ((Rewinding(25, 5), 0, 20), r"restore must be in \[0, 20\)"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"restore": -2}, "restore must be a step, or -1 for the end of training. Received -2"),
        ({"restart": FINAL}, "says for how many steps, 1 or more. Received steps=None"),
        ({"restart": FINAL, "steps": -5}, "Received steps=-5"),
        ({"restart": 3, "steps": 5}, "steps goes with a restart at the end"),
    ],
)
def test_a_rewinding_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rewinding(**arguments)


@pytest.fixture
def setting(keras, make_model, data):
    """A masked model with a learning-rate schedule, and trainers of it."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([12], [0.05, 0.0005])
    masked = MaskedModel(make_model(keras.optimizers.SGD(rate, momentum=0.9), batch_norm=True))
    loop = Loop(masked.model, data, {"validation": data}, batch_size=16, chunk=4, jit=False)

    def trainer(steps):
        return Trainer(masked, loop, steps=steps, eval_every=10, order_key=(0, 1))

    return masked, trainer


def assert_equal_states(one, other):
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


def search(setting, rewinding, steps=20, **arguments):
    masked, trainer = setting
    plan = Plan(2, dict.fromkeys(masked.shapes, 0.3), rewinding=rewinding, **arguments)
    return list(iterative_pruning(plan, trainer(steps), masked.state(), masked.mask(), redraw_of(masked)))


def test_fine_tuning_with_a_mask_of_ones_continues_the_run_bit_for_bit(setting):
    masked, trainer = setting
    whole = Start(0, "ticket", masks.ones(masked.shapes), masked.state())
    short = trainer(20)(dataclasses.replace(whole, snapshots=frozenset({FINAL})))
    further = dataclasses.replace(whole, state=short.snapshots[FINAL], step=20, until=33)
    assert_equal_states(trainer(20)(further).final, trainer(33)(whole).final)


def test_fine_tuning_starts_from_what_the_ticket_before_ended_with(setting):
    dense, first, second = search(setting, resolve("fine_tuning", 5, 20))
    for before, after in ((dense, first), (first, second)):
        assert_equal_states(after.start.state, before.snapshots[FINAL])
        assert (after.start.step, after.last_step) == (20, 35)
    # The schedule stays at its end: the second starts at step 20 again.
    assert (first.start.resets_step, second.start.resets_step) == (False, True)
    assert [int(t.snapshots[FINAL][f"{OPTIMIZER}000"]) for t in (dense, first, second)] == [20, 35, 35]


def test_learning_rate_rewinding_keeps_the_weights_and_restarts_the_schedule(setting):
    dense, first, second = search(setting, resolve("learning_rate", 5, 20))
    for before, after in ((dense, first), (first, second)):
        assert_equal_states(after.start.state, before.snapshots[FINAL])
        assert (after.start.step, after.last_step, after.start.resets_step) == (5, 20, True)
        assert int(after.snapshots[FINAL][f"{OPTIMIZER}000"]) == 20
    moved = {
        t.start.level: np.abs(t.final["fc1/kernel"] - t.start.masked_state["fc1/kernel"]).max()
        for t in (first, second)
    }
    fine = search(setting, resolve("fine_tuning", 5, 20))[1]
    tuned = np.abs(fine.final["fc1/kernel"] - fine.start.masked_state["fc1/kernel"]).max()
    assert min(moved.values()) > 5 * tuned  # at the rate of before step 12, a hundred times that of the end


def test_which_weights_are_restored_and_where_training_restarts_are_two_choices(setting):
    dense, first, _ = search(setting, Rewinding(restore=5, restart=0))
    assert_equal_states(first.start.state, dense.snapshots[5])
    assert (first.start.step, first.start.resets_step, first.last_step) == (0, True, 20)
    dense, first, _ = search(setting, Rewinding(restore=0, restart=10))
    assert_equal_states(first.start.state, dense.snapshots[0])
    assert (first.start.step, first.last_step) == (10, 20)


def test_scores_of_an_early_step_prune_by_the_weights_then(setting):
    dense, first, second = search(setting, Rewinding(score=7))
    for before, after in ((dense, first), (first, second)):
        for path, mask in before.start.mask.items():
            weights = np.abs(before.snapshots[7][path])
            gone = mask & ~after.start.mask[path]
            assert gone.sum() == round(0.3 * mask.sum())
            assert weights[after.start.mask[path]].min() >= weights[gone].max()
    assert [t.start.search_steps for t in (dense, first, second)] == [0, 7, 14]


def test_the_steps_that_a_search_took_are_counted(setting):
    late = search(setting, Rewinding(restore=5, restart=5))
    assert [t.start.search_steps for t in late] == [0, 20, 35]
    one_shot = search(setting, Rewinding(), schedule="one_shot")
    assert [t.start.search_steps for t in one_shot] == [0, 20, 20]
    unlearned = search(setting, Rewinding(), criterion=tf_lottery.CRITERIA["large_init"])
    assert [t.start.search_steps for t in unlearned] == [0, 0, 0]


def test_one_shot_prunes_every_level_by_the_dense_network(setting):
    dense, *tickets = search(setting, Rewinding(), schedule="one_shot")
    for path, array in dense.final.items():
        if path not in dense.start.mask:
            continue
        left = array.size
        for ticket in tickets:
            left -= round(0.3 * left)
            kept = np.sort(np.argsort(-np.abs(array).ravel(), kind="stable")[:left])
            np.testing.assert_array_equal(np.flatnonzero(ticket.start.mask[path]), kept)


def test_one_shot_fine_tuning_goes_on_from_the_dense_network_at_every_level(setting):
    dense, *tickets = search(setting, resolve("fine_tuning", 5, 20), schedule="one_shot")
    for ticket in tickets:
        assert_equal_states(ticket.start.state, dense.snapshots[FINAL])
        assert (ticket.start.search_steps, ticket.start.step, ticket.start.resets_step) == (20, 20, False)


def test_early_bird_learning_rate_rewinding_goes_on_from_the_network_that_was_stopped(setting):
    masked, trainer = setting
    plan = Plan(1, dict.fromkeys(masked.shapes, 0.5), schedule="early_bird", epoch=3)
    plan = dataclasses.replace(plan, rewinding=resolve("learning_rate", 2, 60))
    trained = {}
    train = trainer(60)

    def remembering(start):
        trained[start.arm, start.level] = train(start)
        return trained[start.arm, start.level]

    *_, ticket = iterative_pruning(plan, remembering, masked.state(), masked.mask())
    searched = trained["search", 1]
    assert searched.last_step == ticket.start.search_steps < 60
    assert_equal_states(ticket.start.state, searched.snapshots[FINAL])
    assert (ticket.start.step, ticket.start.resets_step) == (2, True)


@pytest.mark.parametrize("name", ["late", "learning_rate", "fine_tuning"])
def test_criteria_at_initialization_look_at_initialization_at_every_level(name, setting):
    masked, _ = setting
    initial = masked.state()
    found = search(setting, resolve(name, 5, 20), criterion=tf_lottery.CRITERIA["large_init"])
    for path, mask in found[2].start.mask.items():
        weights = np.abs(initial[path])
        assert weights[mask].min() >= weights[~mask].max()


def test_masks_of_controls_are_not_of_zeros_where_weights_stay_trained(setting):
    arms = controls.resolve(["shuffle"])
    found = search(setting, resolve("learning_rate", 5, 20), controls=arms)
    for trained in found:
        if trained.start.arm == "shuffle":
            kept = [trained.start.masked_state[path][mask] for path, mask in trained.start.mask.items()]
            assert all(weights.all() for weights in kept)


@pytest.mark.parametrize("name", ["learning_rate", "fine_tuning"])
def test_the_model_is_left_at_the_step_of_its_ticket(name, make_model, data, no_xla):
    model = make_model()
    ticket = tf_lottery.find_ticket(
        model, *data, steps=20, levels=2, rewinding=name, rewind_step=5, eval_every=10, verbose=0
    )
    assert int(np.asarray(model.optimizer.iterations)) == ticket.rewind_step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "snip"}, "'snip' does not look at them: pass schedule='one_shot'"),
        ({"score_step": 9}, "finds the step to score at itself: leave score_step out"),
    ],
)
def test_early_bird_refuses_what_it_cannot_do(arguments, message, make_model, data, no_xla):
    with pytest.raises(ValueError, match=message):
        tf_lottery.find_ticket(make_model(), *data, steps=20, schedule="early_bird", verbose=0, **arguments)


def test_early_bird_refuses_a_data_set_without_epochs(make_model, data, no_xla):
    endless = tf.data.Dataset.from_tensor_slices(data).batch(20).repeat()
    with pytest.raises(ValueError, match="looks once an epoch, and an endless data set has none"):
        tf_lottery.find_ticket(
            make_model(), endless, validation_data=data, steps=9, schedule="early_bird", verbose=0
        )


def test_an_early_bird_that_never_settles_is_said(setting):
    with pytest.warns(UserWarning, match="level 1 did not stay the same in 20 steps"):
        search(setting, Rewinding(), schedule="early_bird", epoch=8)


@pytest.mark.parametrize("name", ["original", "late", "learning_rate", "fine_tuning"])
def test_each_by_name_in_find_ticket(name, make_model, data, no_xla):
    step = 0 if name == "original" else 6
    ticket = tf_lottery.find_ticket(
        make_model(), *data, steps=20, levels=2, rewinding=name, rewind_step=step, verbose=0
    )
    rows = {row["level"]: row for row in ticket.history}
    assert {level: row["last_step"] for level, row in rows.items()} == {
        0: 20,
        1: 34 if name == "fine_tuning" else 20,
        2: 34 if name == "fine_tuning" else 20,
    }
    assert ticket.rewind_step in {"original": {0}, "fine_tuning": {0, 20}}.get(name, {0, 6})


@pytest.mark.parametrize("name", ["original", "late", "learning_rate", "fine_tuning"])
def test_each_by_name_in_your_own_training(name, make_model, data):
    model = make_model()
    model.fit(*data, epochs=1, batch_size=40, verbose=0)
    given = MaskedModel(model).state()
    begun, ended = [], []

    def train(model):
        begun.append(MaskedModel(model).state())
        model.fit(*data, epochs=1, batch_size=40, verbose=0)
        ended.append(MaskedModel(model).state())

    tickets = list(tf_lottery.iterative_magnitude_pruning(model, train, levels=2, rewinding=name))
    counters = [int(state[f"{OPTIMIZER}000"]) for state in begun]
    assert (
        counters
        == {
            "original": [0, 0, 0],
            "late": [6, 6, 6],
            "learning_rate": [0, 0, 0],
            "fine_tuning": [0, 6, 6],
        }[name]
    )
    restored = [given, given] if name in ("original", "late") else ended[:2]
    for ticket, before in zip(tickets[1:], restored):
        np.testing.assert_array_equal(ticket.weights["fc1/kernel"], before["fc1/kernel"])
    assert [ticket.rewind_step for ticket in tickets] == (
        [6, 6, 6] if name == "late" else [0, 6, 6] if name == "fine_tuning" else [0, 0, 0]
    )
