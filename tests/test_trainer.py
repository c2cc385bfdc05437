"""Training one arm: the evaluation grid, interruption, rewinding, NaN."""

import math

import numpy as np
import pytest

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.tickets import masks
from tf_lottery.training.arms import Start
from tf_lottery.training.listener import Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.trainer import NonFiniteError, Trainer


class Memory:
    """A store that keeps a checkpoint after every chunk."""

    def __init__(self):
        self.progress = None
        self.finished = None

    def load(self, start):
        return self.finished

    def load_progress(self, start):
        return self.progress

    def wants_progress(self):
        return True

    def save_progress(self, start, progress):
        self.progress = progress

    def save(self, trained):
        self.finished = trained


class StopAt(Listener):
    def __init__(self, step):
        self.step = step

    def stepped(self, start, step, logs):
        if step >= self.step:
            raise KeyboardInterrupt


def assert_equal_states(one, other):
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


@pytest.fixture
def setting(make_model, data):
    """A masked model with batch normalization and its loop, evaluated every 10 steps."""
    masked = MaskedModel(make_model(batch_norm=True))
    loop = Loop(masked.model, data, {"validation": data}, batch_size=16, chunk=4, jit=False)

    def trainer(steps=35, **arguments):
        return Trainer(masked, loop, steps=steps, eval_every=10, order_key=(0, 1), **arguments)

    def start(level=0, share=1.0, state=None, step=0, arm="ticket", **more):
        rng = np.random.default_rng(level)
        mask = {path: rng.random(shape) < share for path, shape in masked.shapes.items()}
        return Start(level, arm, mask, state or masked.fresh_state, step, **more)

    return masked, trainer, start


def test_evaluations_are_on_the_grid_and_at_both_ends(setting):
    _, trainer, start = setting
    history = trainer()(start()).history
    assert history.steps == [0, 10, 20, 30, 35]
    assert all(len(curve) == 5 for curve in history.curves.values())
    assert math.isnan(history.curves["train/loss"][0])
    assert history.curves["validation/loss"][-1] < history.curves["validation/loss"][0]
    assert history.early_stop_step == history.steps[int(np.argmin(history.curves["validation/loss"]))]


def test_training_starts_from_mask_times_state_bit_for_bit(setting):
    masked, trainer, start = setting
    begun = start(1, share=0.4)
    seen = {}

    class Look(Listener):
        def evaluated(self, start, history):
            seen.setdefault("state", masked.state())

    trained = trainer(listeners=[Look()])(begun)
    assert_equal_states(seen["state"], masks.apply(begun.mask, begun.state))
    for path, array in begun.mask.items():
        assert (trained.final[path][~array] == 0).all()
    assert_equal_states(masked.fresh_state, begun.state)


@pytest.mark.parametrize("stop", [4, 20, 34])
def test_interrupted_equals_uninterrupted(setting, stop):
    masked, trainer, start = setting
    whole = trainer()(start(1, 0.5))
    store = Memory()
    with pytest.raises(KeyboardInterrupt):
        trainer(store=store, listeners=[StopAt(stop)])(start(1, 0.5))
    masked.restore(masked.fresh_state)
    resumed = trainer(store=store)(start(1, 0.5))
    assert_equal_states(resumed.final, whole.final)
    assert resumed.history.steps == whole.history.steps
    np.testing.assert_equal(resumed.history.curves, whole.history.curves)


def test_what_is_finished_is_not_trained_again(setting):
    _, trainer, start = setting
    store = Memory()
    trained = trainer(store=store)(start())
    assert trainer(store=store, listeners=[StopAt(0)])(start()) is trained


@pytest.mark.parametrize("rewind_step", [0, 10, 13])
def test_rewinding_with_a_mask_of_ones_continues_bit_for_bit(setting, rewind_step):
    _, trainer, start = setting
    original = trainer()(start(snapshots=frozenset({rewind_step})))
    snapshot = original.snapshots[rewind_step]
    again = trainer()(start(state=snapshot, step=rewind_step))
    assert_equal_states(again.final, original.final)
    assert int(snapshot["/optimizer/000"]) == rewind_step


def test_the_snapshot_is_a_copy(setting):
    masked, trainer, start = setting
    trained = trainer()(start(snapshots=frozenset({0})))
    assert_equal_states(trained.snapshots[0], masked.fresh_state)
    changed = [
        path
        for path, array in network_weights(trained.snapshots[0]).items()
        if not np.array_equal(array, trained.final[path])
    ]
    assert {"fc1/kernel", "fc1/bias", "bn1/moving_mean", "bn1/gamma"} <= set(changed)


def test_the_data_order_differs_by_level(setting):
    _, trainer, start = setting
    one = trainer()(start(1, share=2.0))
    other = trainer()(start(2, share=2.0))
    assert not np.array_equal(one.final["fc1/kernel"], other.final["fc1/kernel"])


def test_controls_may_train_longer(setting):
    _, trainer, start = setting
    train = trainer(steps=10, control_steps=30)
    assert train(start()).history.steps[-1] == 10
    assert train(start(1, arm="reinit")).history.steps[-1] == 30


def test_a_loss_that_is_nan_is_named_with_level_arm_and_step(setting):
    masked, trainer, start = setting
    state = {path: array.copy() for path, array in masked.fresh_state.items()}
    state["fc1/bias"][:] = np.nan
    with pytest.raises(NonFiniteError, match="nan at step 0 of level 3, arm 'reinit'; no evaluation was"):
        trainer()(start(3, state=state, arm="reinit"))


def test_a_loss_that_explodes_in_training_is_named(keras, make_model, data):
    masked = MaskedModel(make_model(keras.optimizers.SGD(1e30)))
    loop = Loop(masked.model, data, {"validation": data}, batch_size=16, chunk=5, jit=False)
    trainer = Trainer(masked, loop, steps=20, eval_every=10, order_key=(0, 1))
    with pytest.raises(NonFiniteError, match="last good evaluation was at step 0. Lower the learning"):
        trainer(Start(0, "ticket", masks.ones(masked.shapes), masked.fresh_state))


def test_test_data_may_be_looked_at_only_where_early_stopping_may_be(make_model, data):
    x, y = data
    results = []
    for curves in (True, False):
        masked = MaskedModel(make_model())
        loop = Loop(
            masked.model,
            (x[:60], y[:60]),
            {"validation": (x[60:150], y[60:150]), "test": (x[150:], y[150:])},
            batch_size=16,
            chunk=4,
            jit=False,
        )
        train = Trainer(masked, loop, steps=200, eval_every=4, order_key=(0, 1), test_curves=curves)
        trained = train(Start(0, "ticket", masks.ones(masked.shapes), masked.fresh_state))
        results.append(trained.result(1))
        test_losses = np.array(trained.history.curves["test/loss"])
    assert results[0] == results[1]
    assert 0 < results[0].early_stop_step < 200
    assert 0 < np.isnan(test_losses).sum() < len(test_losses)
