"""Oracles: those of KerasTuner by name, and that one that was stopped goes on as if it had not been."""

import json
import math

import keras_tuner
import pytest
import readers

from tf_lottery.search import oracles

DENSITY = keras_tuner.Objective("density", "min")


def begun(kind, folder, trials=8):
    """An oracle over a number and a choice, as a process that begins or goes on has it."""
    oracle = readers.begun_oracle(folder, kind, trials)
    if (folder / "tuning" / "oracle.json").exists():
        oracle.reload()
    return oracle


def score(hp):
    return abs(math.log(hp.get("rate")) + 5) + (hp.get("scope") == "layer")


def run(oracle, count, score=score):
    """Runs so many trials; returns whether there may be more."""
    for _ in range(count):
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            return False
        oracle.update_trial(trial.trial_id, {"density": score(trial.hyperparameters)})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        oracle.save()  # as tuners do
    return True


def tried(oracle):
    return [(t.trial_id, t.hyperparameters.values, t.score) for t in oracle.trials.values()]


@pytest.mark.parametrize(
    ("kind", "trials", "count"), [("random", 5, 5), ("bayesian", 7, 7), ("hyperband", 99, 23)]
)
def test_an_oracle_that_is_stopped_after_each_trial_tries_the_same(kind, trials, count, tmp_path):
    whole = begun(kind, tmp_path / "whole", trials)
    assert not run(whole, 1000)
    while run(begun(kind, tmp_path / "stopped", trials), 1):
        pass
    assert len(tried(whole)) == count
    assert tried(begun(kind, tmp_path / "stopped", trials)) == tried(whole)


def test_what_bayesian_optimization_tries_goes_by_what_it_saw(tmp_path):
    one, other = (begun("bayesian", tmp_path / name, 9) for name in ("one", "other"))
    run(one, 6)
    run(other, 6, lambda hp: -score(hp))
    values = [[v for _, v, _ in tried(oracle)] for oracle in (one, other)]
    assert values[0][:5] == values[1][:5] and values[0][5] != values[1][5]


@pytest.mark.parametrize("kind", oracles.ORACLES)
def test_a_trial_that_was_stopped_is_begun_again_with_the_same_values(kind, tmp_path):
    oracle = begun(kind, tmp_path)
    run(oracle, 2)
    stopped = oracle.create_trial("tuner0")
    again = begun(kind, tmp_path).create_trial("another")
    assert again.trial_id == stopped.trial_id
    assert again.hyperparameters.values == stopped.hyperparameters.values


def test_a_trial_that_the_oracle_has_not_written_down_was_not_begun(tmp_path):
    run(begun("random", tmp_path), 2)
    folder = tmp_path / "tuning"
    before = (folder / "oracle.json").read_bytes()
    third = begun("random", tmp_path).create_trial("tuner0")
    (folder / "oracle.json").write_bytes(before)  # as if killed between the two files
    oracle = begun("random", tmp_path)
    assert len(oracle.trials) == 2
    assert oracle.create_trial("tuner0").hyperparameters.values == third.hyperparameters.values
    assert len(json.loads((folder / "oracle.json").read_text())["start_order"]) == 3


def test_more_trials_may_be_asked_for(tmp_path):
    assert not run(begun("random", tmp_path, 2), 5)
    more = begun("random", tmp_path, 4)
    assert not run(more, 5)
    assert len(more.trials) == 4


def test_trials_that_fail_do_not_end_a_search(tmp_path):
    oracle = begun("random", tmp_path, 6)
    for _ in range(5):
        trial = oracle.create_trial("tuner0")
        trial.status = "FAILED"
        oracle.end_trial(trial)
    assert oracle.create_trial("tuner0").status == "RUNNING"


def test_an_oracle_of_the_user_is_taken_if_it_has_the_objective():
    own = keras_tuner.oracles.GridSearchOracle(DENSITY, max_trials=3)
    assert oracles.make(own, DENSITY, 25, 0) is own
    message = (
        r'The oracle\'s objective is Objective\(name="val_loss", direction="min"\). Give it '
        r"objective=keras_tuner.Objective\('density', 'min'\), or another objective to the tuner."
    )
    with pytest.raises(ValueError, match=message):
        oracles.make(keras_tuner.oracles.GridSearchOracle("val_loss"), DENSITY, 25, 0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Unknown oracle 'baysian'. Did you mean 'bayesian'?"):
        oracles.make("baysian", DENSITY, 25, 0)
    with pytest.raises(ValueError, match="trials must be 1 or more. Received 0."):
        oracles.make("random", DENSITY, 0, 0)
