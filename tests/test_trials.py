"""What a trial comes to, which is best, and their table."""

import csv
import dataclasses
import math

import pytest
from board import Board

from tf_lottery.analysis import trials
from tf_lottery.analysis.trials import Trial, outcome, ranked, table
from tf_lottery.training.history import Result

NAN = math.nan


def row(level, validation, *, test=NAN, density=None, arm="ticket", replicate=1, loss=0.2):
    density = 0.5**level if density is None else density
    return Result(replicate, level, arm, density, 40, test, loss, test, validation, 50)


REFERENCE = [row(0, 0.95)]


def test_the_lowest_density_is_that_of_the_sparsest_ticket_that_matches():
    found = outcome(REFERENCE, [row(0, 0.97), row(1, 0.95), row(2, 0.948), row(3, 0.9)], "density", 0.1)
    assert found == {
        "level": 2,
        "density": 0.25,
        "accuracy": 0.948,
        "validation_loss": 0.2,
        "early_stop_step": 40,
    }


def test_a_bad_dense_network_of_its_own_is_not_what_a_ticket_has_to_match():
    bad = [row(0, 0.1), row(1, 0.1), row(2, 0.1)]
    assert outcome([row(0, 0.1)], bad, "density", 0.1)["density"] == 0.25
    found = outcome(REFERENCE, bad, "density", 0.1)
    assert (found["level"], found["density"], found["accuracy"]) == (0, 1.0, 0.1)


def test_test_data_are_not_looked_at():
    results = [row(0, 0.95, test=0.5), row(1, 0.95, test=0.2), row(2, 0.5, test=0.99)]
    assert outcome([row(0, 0.95, test=0.9)], results, "density", 0.1)["level"] == 1
    assert outcome([row(0, 0.95, test=0.9)], results, "accuracy", 0.3)["accuracy"] == 0.5


def test_accuracy_is_that_of_the_densest_ticket_at_most_as_dense_as_the_target():
    results = [row(0, 0.97), row(1, 0.96), row(2, 0.95), row(3, 0.99)]
    assert outcome(REFERENCE, results, "accuracy", 0.3)["level"] == 2
    assert outcome(REFERENCE, results, "accuracy", 0.5)["level"] == 1
    with pytest.raises(ValueError, match="No ticket is as sparse as target_density=0.1"):
        outcome(REFERENCE, results, "accuracy", 0.1)


def test_controls_do_not_count_and_replicates_are_averaged():
    results = [row(0, 0.95), row(1, 0.95), row(2, 0.1), row(2, 0.99, arm="reinit")]
    assert outcome(REFERENCE, results, "density", 0.1)["level"] == 1
    twice = [row(level, 0.95 - 0.02 * k, replicate=1 + k) for level in (0, 1) for k in (0, 1)]
    found = outcome([row(0, 0.94, replicate=k) for k in (1, 2)], twice, "density", 0.1)
    assert (found["level"], found["accuracy"]) == (1, pytest.approx(0.94))


def test_without_accuracies_losses_are_compared():
    results = [row(0, NAN, loss=0.3), row(1, NAN, loss=0.2), row(2, NAN, loss=0.21)]
    found = outcome([row(0, NAN, loss=0.2)], results, "density", 0.1)
    assert (found["level"], found["validation_loss"], "accuracy" in found) == (1, 0.2, False)


def trial(name, density=0.5, accuracy=0.9, **more):
    metrics = {"density": density, "accuracy": accuracy, "early_stop_step": 40, "level": 1}
    return Trial(name, {"rate": 0.1}, metrics, **more)


FAILED = Trial("failed", {"rate": 5.0}, {}, "The loss is nan.")


def names(found):
    return [trial.name for trial in found]


def test_the_best_trial_has_the_lowest_density_or_the_highest_accuracy():
    some = [FAILED, trial("a", 0.5, 0.91), trial("b", 0.2, 0.9), trial("c", 0.5, 0.95)]
    assert names(ranked(some, "density")) == ["b", "c", "a", "failed"]
    assert names(ranked(some, "accuracy")) == ["c", "a", "b", "failed"]


def test_a_short_training_is_no_best_one():
    some = [trial("short", 0.1, share=1 / 3), trial("long", 0.5), trial("shortest", 0.01, share=1 / 9)]
    assert names(ranked(some, "density")) == ["long", "short", "shortest"]


def test_of_losses_the_lower_is_the_better():
    metrics = [{"density": 0.5, "validation_loss": loss} for loss in (0.3, 0.1, 0.2)]
    some = [Trial(name, {}, m) for name, m in zip("abc", metrics)]
    assert names(ranked(some, "density")) == ["b", "c", "a"]
    assert table(some).split()[:7] == ["trial", "density", "%", "min", "val", "loss", "early"]


def test_the_table_fits_a_line():
    long = {f"a.rather.long.hyperparameter_{n}": "and_a_long_value" for n in range(6)}
    text = table([dataclasses.replace(trial("trial_0", share=1 / 3), values=long), FAILED])
    assert all(len(line) <= 110 for line in text.splitlines())
    assert "steps %" in text and "33.33" in text
    assert text.endswith("failed failed: The loss is nan.")


def test_the_file_and_hparams_have_every_trial(tmp_path):
    some = [
        trial("trial_1"),
        Trial("trial_2", {"rate": 0.2, "fast": True, "name": "x"}, {"density": 0.1}),
        FAILED,
    ]
    trials.write_columns(tmp_path, {"rate": 0.1, "fast": False, "name": "y"}, "accuracy")
    for last in some:
        trials.write(tmp_path, some, last)
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*trials.COLUMNS, "rate", "fast", "name"]
    assert [(r["trial"], r["density"], r["rate"], r["failure"]) for r in rows] == [
        ("trial_1", "0.5", "0.1", ""),
        ("trial_2", "0.1", "0.2", ""),
        ("failed", "", "5.0", "The loss is nan."),
    ]
    board = Board(tmp_path / "tensorboard")
    columns = board.columns()
    assert {info.name for info in columns.hparam_infos} == {"rate", "fast", "name"}
    assert [info.name.tag for info in columns.metric_infos][:2] == ["trial/accuracy", "trial/density"]
    assert board.rows()["trial_2"][0] == {"rate": 0.2, "fast": True, "name": "x"}
    assert board.rows()["trial_1"][1]["trial/density"] == 0.5
    assert board.rows()["failed"] == ({"rate": 5.0}, {})
