"""Every method by name, from each of the three doors: find_ticket, the generator, the driver's flags."""

import csv

import numpy as np
import pytest

import tf_lottery
from tf_lottery import cli
from tf_lottery.tickets import scores

GRADIENTS = ("snip", "grasp", "synflow", "fisher", "supermask", "l0")
KEPT = {"fc1/kernel": 102, "fc2/kernel": 102, "output/kernel": 22}  # of 128, 128 and 24


@pytest.mark.parametrize("name", tf_lottery.CRITERIA)
def test_each_criterion_in_find_ticket(name, make_model, data, no_xla):
    found = tf_lottery.find_ticket(make_model(), *data, steps=8, levels=1, criterion=name, verbose=0)
    row = found.history[-1]
    spent = 8 if scores.needs(scores.CRITERIA[name]).training or name in ("supermask", "l0") else 0
    assert (row["level"], row["search_steps"], row["empty_layers"]) == (1, spent, 0)
    assert row["density"] == pytest.approx(sum(KEPT.values()) / 280)
    assert found.method == f"iterative pruning by {name}, scope layer"


@pytest.mark.parametrize("name", GRADIENTS)
def test_each_criterion_of_gradients_in_your_own_training(name, make_model, data, no_xla, monkeypatch):
    monkeypatch.setitem(tf_lottery.search.imp._LEARNING, "steps", 20)
    tickets = tf_lottery.iterative_magnitude_pruning(
        make_model(),
        lambda model: model.fit(*data, epochs=1, batch_size=60, verbose=0),
        levels=1,
        criterion=name,
        data=data,
    )
    *_, ticket = tickets
    assert {path: int(mask.sum()) for path, mask in ticket.mask.items()} == KEPT


def test_what_looks_at_data_asks_for_them(make_model):
    trained = []
    tickets = tf_lottery.iterative_magnitude_pruning(make_model(), trained.append, criterion="snip")
    with pytest.raises(ValueError, match=r"'snip' looks at training data: pass data=\(x, y\)"):
        next(tickets)
    assert not trained


@pytest.mark.parametrize("scope", tf_lottery.SCOPES)
def test_each_scope(scope, make_model, data, no_xla):
    found = tf_lottery.find_ticket(
        make_model(), *data, steps=8, levels=1, scope=scope, criterion="magnitude_increase", verbose=0
    )
    assert 0 < found.history[-1]["density"] < 1


@pytest.mark.parametrize(
    ("structure", "fractions", "gone"),
    [
        # fc1 is 8 x 16, fc2 16 x 8, output 8 x 3: 3 of 16 units and 2 of 8; 6 of 32 blocks each.
        ("units", {"fc1": 0.2, "fc2": 0.2, "output": 0.0}, 3 * 8 + 2 * 16),
        ("block:4x1", {"fc1": 0.2, "fc2": 0.2, "output": 0.0}, (6 + 6) * 4),
        ("2:4", {"fc1": 0.2, "fc2": 0.0, "output": 0.0}, 128 // 4),
    ],
)
def test_each_structure(structure, fractions, gone, make_model, data, no_xla):
    found = tf_lottery.find_ticket(
        make_model(), *data, steps=8, levels=1, layer_fractions=fractions, structure=structure, verbose=0
    )
    assert found.history[-1]["density"] == pytest.approx(1 - gone / 280)
    assert found.method.endswith(f"structure {structure}")


def test_more_levels_than_a_structure_has_are_refused_before_anything_is_trained(make_model, data, no_xla):
    heard = []
    with pytest.raises(ValueError, match="structure '2:4' has 2 levels.*pass levels=2. Received 10"):
        tf_lottery.find_ticket(
            make_model(),
            *data,
            steps=8,
            structure="2:4",
            callbacks=lambda level, arm: heard.append(level) or [],
            verbose=0,
        )
    assert not heard


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_the_driver_s_flags(flavour, tmp_path, no_xla):
    words = f"""run --workdir={tmp_path} --config.flavour={flavour} --config.train.steps=30
        --config.train.eval_every_steps=10 --config.network.name=mlp:20,10 --config.prune.levels=2
        --config.prune.criterion=snip --config.prune.scope=global --config.prune.schedule=one_shot
        --config.prune.structure=block:2x1 --config.prune.rewinding=learning_rate
        --config.prune.rewind_step=10
        --config.controls=noise:0.5,reinit_2,inverted,freeze_by_movement,trained"""
    assert cli.main(words.split()) == 0
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    arms = ["ticket", "freeze_by_movement", "inverted", "noise:0.5", "reinit_2", "trained"]
    assert [row["arm"] for row in rows] == ["ticket", *arms, *arms]
    assert {row["search_steps"] for row in rows if row["arm"] == "ticket"} == {"0"}
    before = [float(row["test_accuracy_before_training"]) for row in rows]
    assert all(0 <= accuracy <= 1 for accuracy in before)
    assert len(set(before)) > 3


def test_a_learned_mask_is_kept_by_its_threshold_and_learns_without_training(make_model, data, no_xla):
    model = make_model()
    x, y = data
    found = tf_lottery.find_ticket(
        model,
        x,
        y,
        test_data=(x, y),
        steps=600,
        levels=1,
        criterion="supermask",
        scope="threshold",
        layer_fractions={},
        verbose=0,
    )
    dense, masked = found.history
    assert masked["search_steps"] == 600
    assert masked["test_accuracy_before_training"] > dense["test_accuracy_before_training"] + 0.2
    assert masked["test_accuracy_before_training"] > 0.7
    np.testing.assert_array_less(0, masked["density"])
