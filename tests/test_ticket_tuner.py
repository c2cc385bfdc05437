"""`TicketTuner`: trials of `find_ticket` on both flavours."""

import contextlib
import csv
import io
import os
import re
import subprocess
import sys

import keras_tuner
import pytest
from board import Board

import tf_lottery
from tf_lottery.keras_api import flavour
from tf_lottery.search import ticket_tuner
from tf_lottery.training import recorded
from tf_lottery.training.runs import ReplicateStore

pytestmark = pytest.mark.usefixtures("no_xla", "alone")
SHORT = {"steps": 12, "eval_every": 4, "verbose": 0}
GIVEN = {"trials": 4, "target_density": 0.4}


@pytest.fixture
def alone(monkeypatch):
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        monkeypatch.delenv(f"KERASTUNER_{name}", raising=False)


def space(name, rates=(0.03, 1e30), metrics=("accuracy",)):
    """A space of models whose initial weights are always the same, of which every other fails."""
    keras = flavour.keras_module(name)

    def build(hp):
        rate = hp.Choice("learning_rate", list(rates))
        draws = [keras.initializers.GlorotNormal(seed=seed) for seed in (1, 2)]
        hidden = keras.layers.Dense(hp.Choice("units", [4, 8]), "relu", kernel_initializer=draws[0])
        output = keras.layers.Dense(3, kernel_initializer=draws[1])
        model = keras.Sequential([keras.layers.Input((8,)), hidden, output])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss, metrics=list(metrics))
        return model

    return build


def options(hp):
    return {"prune_fraction": hp.Choice("prune_fraction", [0.4, 0.6]), "layer_fractions": {}}


build = space("keras")


def begin(workdir, build=build, options=options, **given):
    return tf_lottery.TicketTuner(build, options, workdir=workdir, **{**GIVEN, **given})


@pytest.fixture(params=flavour.FLAVOURS, scope="module")
def tuned(request, data, tmp_path_factory):
    """The workdir of a tuning, with trials that fail, its space, and what it printed."""
    workdir, out = tmp_path_factory.mktemp("tuning"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        begin(workdir, space(request.param)).search(*data, **{**SHORT, "verbose": 1})
    return workdir, space(request.param), out.getvalue()


def rows(workdir):
    with open(workdir / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def networks(workdir):
    return {path.parent.name: recorded.results(path.parent) for path in workdir.glob("*/config.json")}


def pruned(model):
    """The density that the kernels of a model have."""
    return tf_lottery.density({str(n): w != 0 for n, w in enumerate(model.get_weights()) if w.ndim == 2})


def test_each_trial_is_a_run_that_prunes_to_the_target(tuned):
    workdir, _, _ = tuned
    runs = networks(workdir)
    assert sorted(runs) == ["reference", "trial_0", "trial_1", "trial_2", "trial_3"]
    assert [result.level for result in runs["reference"]] == [0]
    done = [row for row in rows(workdir) if not row["failure"]]
    assert len(done) >= 2 and len({row["prune_fraction"] for row in done}) == 2
    for row in done:
        results = runs[row["trial"]]
        assert results[-1].density <= 0.4 < results[-2].density
        assert results[1].density == pytest.approx(1 - float(row["prune_fraction"]), abs=0.02)
        assert float(row["density"]) in [pytest.approx(result.density, rel=1e-5) for result in results]
    densities = [float(row["density"]) for row in done]
    assert densities == sorted(densities)


def test_the_best_are_had_as_hyperparameters_tickets_and_models(tuned, data):
    workdir, build, _ = tuned
    tuner, best = begin(workdir, build), rows(workdir)[0]
    [ticket], [hp], [model] = (
        tuner.get_best_tickets(),
        tuner.get_best_hyperparameters(),
        tuner.get_best_models(),
    )
    assert all(str(value) == best[name] for name, value in hp.values.items()) and len(hp.values) == 3
    assert ticket.density == pruned(model) == pytest.approx(float(best["density"]), rel=1e-5)
    model.fit(*data, epochs=1, verbose=0)
    assert pruned(model) == ticket.density


def test_a_trial_that_fails_is_told_of_and_the_others_go_on(tuned, capsys):
    workdir, build, out = tuned
    found = rows(workdir)
    failed = [row for row in found if row["failure"]]
    assert failed == found[-len(failed) :] and 0 < len(failed) < len(found)
    assert all(float(row["learning_rate"]) == 1e30 and row["density"] == "" for row in failed)
    assert all("Lower the learning rate" in row["failure"] for row in failed)
    assert len(re.findall(r"^trial_\d failed: The loss is (?:nan|inf)", out, re.MULTILINE)) == len(failed)
    tuner = begin(workdir, build)
    assert len(tuner.get_best_tickets(99)) == len(found) - len(failed)
    tuner.results_summary()
    assert capsys.readouterr().out.count("failed: The loss is") == len(failed)


def test_hparams_have_a_row_for_each_trial_and_none_for_its_networks(tuned):
    workdir, _, _ = tuned
    board = Board(workdir)
    hparams, found = board.rows(), rows(workdir)
    assert {name for name in hparams} == {f"tensorboard/{row['trial']}" for row in found}
    for row in found:
        values, metrics = hparams[f"tensorboard/{row['trial']}"]
        assert values["learning_rate"] == float(row["learning_rate"])
        assert metrics.get("trial/density", "") == (row["density"] and pytest.approx(float(row["density"])))
    assert any(run.startswith("trial_0/tensorboard/replicate_1/level_00") for run in board.runs())


def test_a_search_that_is_stopped_in_a_trial_goes_on_inside_it(tuned, data, tmp_path, monkeypatch, capsys):
    whole, build, _ = tuned
    save, calls = ReplicateStore.save, iter(range(3))

    def stopping(self, trained):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        save(self, trained)

    with monkeypatch.context() as patch:
        patch.setattr(ReplicateStore, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, build).search(*data, **SHORT)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(times) == 3 and not (tmp_path / "trial_3").exists()
    begin(tmp_path, build).search(*data, **SHORT)
    assert {path: path.stat().st_mtime_ns for path in times} == times  # trained once
    assert networks(tmp_path) == networks(whole)
    assert (tmp_path / "trials.csv").read_bytes() == (whole / "trials.csv").read_bytes()
    begin(tmp_path, build).search(*data, **{**SHORT, "verbose": 1})
    assert capsys.readouterr().out == ""  # nothing is left to do


def test_objective_accuracy_and_the_ticket_that_it_is_of(data, tmp_path):
    tuner = begin(tmp_path, space("keras", [0.03, 0.1]), objective="accuracy", trials=2)
    tuner.search(*data, **SHORT)
    accuracies = [float(row["accuracy"]) for row in rows(tmp_path)]
    assert accuracies == sorted(accuracies, reverse=True)
    runs = networks(tmp_path)
    for ticket, row in zip(tuner.get_best_tickets(2), rows(tmp_path), strict=True):
        last = runs[row["trial"]][-1]
        assert (ticket.level, ticket.density) == (last.level, last.density)
        assert float(row["accuracy"]) == pytest.approx(last.final_validation_accuracy, rel=1e-5)


def test_hyperband_begins_with_short_trainings(data, tmp_path):
    hyperband = {"oracle": "hyperband", "trials": 1}
    begin(tmp_path, space("keras", [0.03]), **hyperband).search(*data, **{**SHORT, "steps": 27})
    steps = {name: {result.last_step for result in results} for name, results in networks(tmp_path).items()}
    assert steps == {"reference_11": {3}, "trial_0": {3}}
    assert rows(tmp_path)[0]["share"].startswith("0.111")
    assert ticket_tuner._shortened({"epochs": 10}, 0.5) == {"epochs": 5}
    with pytest.raises(ValueError, match="Hyperband's trials begin with short trainings: give search epochs"):
        begin(tmp_path / "b", **hyperband).search(*data)


def test_an_oracle_of_the_users_and_a_hypermodel(data, tmp_path):
    class Model(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp)

    objective = keras_tuner.Objective("density", "min")
    grid = keras_tuner.oracles.GridSearchOracle(objective, max_trials=2)
    begin(tmp_path, Model(), oracle=grid).search(*data, **SHORT)
    assert sorted(float(row["prune_fraction"]) for row in rows(tmp_path)) == [0.4, 0.6]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"levels": 3}, ValueError, "search gives levels: leave it out. Each trial prunes to the tuner's"),
        ({"workdir": "x"}, ValueError, "search gives workdir: leave it out. Each trial has a folder"),
        ({"epoch": 3}, TypeError, "search: Unknown argument of find_ticket 'epoch'. Did you mean 'epochs'?"),
        ({"prune_fraction": 0.5}, ValueError, r"prune_fraction: given to search, and by options\(hp\) too"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_wrong_arguments_of_search_end_it(data, tmp_path, given, error, message):
    tuner = begin(tmp_path)
    with pytest.raises(error, match=message):
        tuner.search(*data, **SHORT, **given)
    assert tuner.ended_trials() == []


def test_accuracy_needs_a_model_that_has_one(data, tmp_path):
    lossy = space("keras", [0.03], metrics=())
    tuner = begin(tmp_path / "accuracy", lossy, objective="accuracy")
    with pytest.raises(
        ValueError, match="objective='accuracy' needs a model with one: compile it with metric"
    ):
        tuner.search(*data, **SHORT)
    begin(tmp_path, lossy, trials=1).search(*data, **SHORT)
    [row] = rows(tmp_path)
    assert row["accuracy"] == "" and float(row["validation_loss"]) > 0


def test_another_tuning_is_refused_and_the_difference_shown(data, tmp_path):
    def begin(options=options, **given):
        given = {"trials": 2, "target_density": 0.5, **given}
        return tf_lottery.TicketTuner(space("keras", [0.03]), options, workdir=tmp_path, **given)

    begin(trials=1).search(*data, **SHORT)
    with pytest.raises(
        ValueError, match=r"belongs to another tuning:\n  target_density: 0.5 there, 0.3 now\n"
    ):
        begin(target_density=0.3)
    with pytest.raises(ValueError, match=r"oracle: 'random' there, 'bayesian' now"):
        begin(oracle="bayesian")
    other = lambda hp: {"prune_fraction": hp.Choice("prune_fraction", [0.4, 0.7])}  # noqa: E731
    with pytest.raises(
        ValueError, match=r"space.prune_fraction.values: \[0.4, 0.6\] there, \[0.4, 0.7\] now"
    ):
        begin(other)
    with pytest.raises(
        ValueError, match=r"reference' belongs to a run with another config:\n  steps: 12 ther"
    ):
        begin().search(*data, **{**SHORT, "steps": 16})
    with begin()._directory.open(begin()._settings):
        with pytest.raises(
            ValueError, match=r"is in use by another tuning \(process \d+ on .*\)\. Wait for it, or choose"
        ):
            begin().search(*data, **SHORT)
    with pytest.raises(ValueError, match="'.*reference' holds a run. Choose another workdir."):
        tf_lottery.TicketTuner(build, options, workdir=tmp_path / "reference")
    with pytest.raises(ValueError, match="'.*trials.csv' is a file. Choose another workdir."):
        tf_lottery.TicketTuner(build, options, workdir=tmp_path / "trials.csv")


def test_what_is_wrong_at_the_start_leaves_no_folder(tmp_path, make_model):
    workdir = tmp_path / "w"
    for given, message in {
        "objective": ("size", "Unknown objective 'size'. There are: density, accuracy."),
        "oracle": ("grid", "Unknown oracle 'grid'"),
        "target_density": (1.0, r"target_density must be in \(0, 1\). Received 1.0."),
        "trials": (0, "trials must be 1 or more. Received 0."),
    }.items():
        with pytest.raises(ValueError, match=message[1]):
            begin(workdir, **{given: message[0]})
    with pytest.raises(ValueError, match="There is nothing to search: ask hp for a value"):
        begin(workdir, lambda hp: make_model(), lambda hp: {})
    with pytest.raises(ValueError, match="A column of trials.csv is called 'level': call the hyperparameter"):
        begin(workdir, options=lambda hp: {"seed": hp.Int("level", 0, 3)})
    with pytest.raises(TypeError, match=r"options\(hp\): Unknown argument of find_ticket 'prune_fractions'"):
        begin(workdir, options=lambda hp: {"prune_fractions": 0.3})
    assert list(tmp_path.iterdir()) == []


def test_half_of_kerastuners_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(ValueError, match='"KERASTUNER_ORACLE_PORT" was not'):
        begin(tmp_path)


def test_the_default_options_are_of_find_ticket():
    hp = keras_tuner.HyperParameters()
    ticket_tuner._check(ticket_tuner.ticket_options(hp), "")
    assert list(hp.values) == ["prune_fraction", "criterion", "scope", "rewind_step"]


@pytest.mark.parametrize("name", flavour.FLAVOURS)
def test_models_that_are_built_in_turn_have_the_same_names(name, tmp_path):
    tuner = begin(tmp_path, space(name))
    first, second = (tuner._model(keras_tuner.HyperParameters()) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_kerastuner_leaves_the_process_as_it_was():
    code = """
import logging, os
import tensorflow as tf
def state():
    return tf.keras.__name__, os.environ.get("TF_USE_LEGACY_KERAS"), logging.getLogger().handlers[:]
before = state()
import tf_lottery
tf_lottery.TicketTuner
assert before == state()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
