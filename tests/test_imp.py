"""Iterative pruning: the algorithm of the paper, with and without a real network."""

import numpy as np
import pytest

from tf_lottery.search.imp import iterative_magnitude_pruning, iterative_pruning
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import controls, masks, scores
from tf_lottery.tickets.rewinding import Rewinding
from tf_lottery.training.arms import Trained
from tf_lottery.training.history import History

KERNELS = ("a/kernel", "b/kernel")


def initial_state():
    rng = np.random.default_rng(0)
    return {
        "a/kernel": rng.normal(size=(6, 5)),
        "a/bias": np.zeros(5),
        "b/kernel": rng.normal(size=(5, 4)),
        "/optimizer/000": np.array(0),
    }


def ones():
    return masks.ones({path: initial_state()[path].shape for path in KERNELS})


def train(start):
    """Stands in for training: adds to each weight what depends on its place alone."""
    moved = {
        path: array + np.cos(np.arange(array.size)).reshape(array.shape)
        for path, array in start.state.items()
    }
    final = {path: np.where(start.mask[path], moved[path], 0) for path in KERNELS}
    copies = {step: {k: v.copy() for k, v in start.state.items()} for step in start.snapshots}
    return Trained(start, {**moved, **final}, History([start.step + 10]), copies)


def search(levels=4, **arguments):
    plan = Plan(levels, dict.fromkeys(KERNELS, 0.25), **arguments)
    return list(iterative_pruning(plan, train, initial_state(), ones(), redraw))


def redraw(seed):
    drawn = {path: np.full(initial_state()[path].shape, float(seed)) for path in KERNELS}
    return {**initial_state(), **drawn}


def test_each_level_prunes_the_lowest_of_what_is_left_and_rewinds_the_others():
    tickets = search()
    assert [trained.start.level for trained in tickets] == [0, 1, 2, 3, 4]
    for before, after in zip(tickets, tickets[1:]):
        for path in KERNELS:
            old, new = before.start.mask[path], after.start.mask[path]
            assert (new <= old).all()
            assert new.sum() == old.sum() - round(0.25 * old.sum())
            gone = old & ~new
            assert np.abs(before.final[path][new]).min() >= np.abs(before.final[path][gone]).max()
    for trained in tickets:
        assert all(array.all() for array in trained.start.mask.values()) == (trained.start.level == 0)
        for path, array in initial_state().items():
            np.testing.assert_array_equal(trained.start.state[path], array)
            mask = trained.start.mask.get(path, True)
            np.testing.assert_array_equal(trained.start.masked_state[path], array * mask)


def test_controls_are_trained_beside_the_ticket_but_not_beside_the_dense_network():
    arms = [(t.start.level, t.start.arm) for t in search(2, controls=controls.resolve(["reinit"]))]
    assert arms == [(0, "ticket"), (1, "ticket"), (1, "reinit"), (2, "ticket"), (2, "reinit")]


def test_control_levels_choose():
    found = search(3, controls=controls.resolve(["reinit"]), control_levels=(2,))
    assert [t.start.level for t in found if t.start.arm == "reinit"] == [2]


def test_reinit_has_the_ticket_s_mask_and_other_weights_drawn_anew_at_each_level():
    found = {(t.start.level, t.start.arm): t.start for t in search(2, controls=controls.resolve(["reinit"]))}
    for level in (1, 2):
        ticket, reinit = found[level, "ticket"], found[level, "reinit"]
        for path in KERNELS:
            np.testing.assert_array_equal(reinit.mask[path], ticket.mask[path])
            assert not np.array_equal(reinit.state[path], ticket.state[path])
        np.testing.assert_array_equal(reinit.state["a/bias"], ticket.state["a/bias"])
    assert found[1, "reinit"].state["a/kernel"][0, 0] != found[2, "reinit"].state["a/kernel"][0, 0]


def test_controls_do_not_change_the_tickets():
    alone = search(3)
    beside = [t for t in search(3, controls=controls.resolve(["reinit"])) if t.start.is_ticket]
    for one, other in zip(alone, beside):
        for path in KERNELS:
            np.testing.assert_array_equal(one.start.mask[path], other.start.mask[path])


def test_late_rewinding_starts_later_levels_from_the_snapshot_at_its_step():
    def train_on(start):
        trained = train(start)
        copies = {step: {k: v + 7 for k, v in start.state.items()} for step in start.snapshots}
        return Trained(start, trained.final, trained.history, copies)

    plan = Plan(
        2,
        dict.fromkeys(KERNELS, 0.25),
        rewinding=Rewinding(restore=3, restart=3),
        controls=controls.resolve(["reinit", "shuffle"]),
    )
    starts = [t.start for t in iterative_pruning(plan, train_on, initial_state(), ones(), redraw)]
    begun = {(start.level, start.arm): start for start in starts}
    assert {key: start.step for key, start in begun.items() if key[0] == 2} == {
        (2, "ticket"): 3,
        (2, "reinit"): 0,
        (2, "shuffle"): 3,
    }
    assert begun[2, "shuffle"].state is begun[2, "ticket"].state
    starts = [start for start in starts if start.is_ticket]
    assert [start.step for start in starts] == [0, 3, 3]
    for path, array in initial_state().items():
        np.testing.assert_array_equal(starts[0].state[path], array)
        np.testing.assert_array_equal(starts[1].state[path], array + 7)
        np.testing.assert_array_equal(starts[2].state[path], array + 7)


def test_the_random_criterion_depends_on_the_key():
    found = [
        search(1, criterion=scores.random, key=key)[1].start.mask["a/kernel"] for key in [(0,), (0,), (1,)]
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_levels_below_zero_are_refused():
    with pytest.raises(ValueError, match="levels must be 0 or more. Received -1"):
        search(-1)


def test_the_generator_hands_out_each_ticket_before_the_next_level_starts(make_model, data):
    model = make_model()
    first = model.get_weights()
    trained = []

    def fit(given):
        assert given is model
        trained.append([np.count_nonzero(w) for w in model.get_weights()])
        model.fit(*data, epochs=1, verbose=0)

    tickets = iterative_magnitude_pruning(model, fit, levels=2, prune_fraction=0.5, seed=3)
    for level, ticket in enumerate(tickets):
        assert (ticket.level, len(trained)) == (level, level + 1)
        assert ticket.provenance["fractions"] == {"fc1/kernel": 0.5, "fc2/kernel": 0.5, "output/kernel": 0.25}
        assert ticket.provenance["key"] == [3] and "numpy" in ticket.provenance["versions"]
        kernels = model.get_weights()[::2]
        for kernel, before, mask in zip(kernels, first[::2], ticket.mask.values()):
            np.testing.assert_array_equal(kernel, before * mask)
    assert level == 2
    assert ticket.density == pytest.approx(0.25, abs=0.03)
    model.fit(*data, epochs=1, verbose=0)
    for kernel, mask in zip(model.get_weights()[::2], ticket.mask.values()):
        assert (kernel[~mask] == 0).all()


def test_the_generator_refuses_an_unknown_criterion(make_model):
    with pytest.raises(ValueError, match="Unknown criterion 'magnitud'. Did you mean 'magnitude'"):
        next(iterative_magnitude_pruning(make_model(), lambda m: None, criterion="magnitud"))
