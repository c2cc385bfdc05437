"""The driver, whole: what a run leaves behind, on both flavours."""

import csv
import pathlib
import runpy

import numpy as np
import pytest

from tf_lottery import files
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import driver
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import masks

MNIST = pathlib.Path(__file__).parent.parent / "configs" / "mnist_lenet.py"


def small(config=None, **entries):
    """An experiment of seconds; `entries` are named as flags are, with __ for the dot."""
    config = config or config_module.ExperimentConfig()
    config.network.name = "mlp:16"
    config.train.steps, config.train.eval_every_steps = 40, 10
    config.prune.levels = 2
    for name, value in entries.items():
        *sections, entry = name.split("__")
        section = config
        for part in sections:
            section = getattr(section, part)
        setattr(section, entry, value)
    return config


@pytest.fixture(params=FLAVOURS, scope="module")
def run(request, tmp_path_factory):
    """A finished run of two replicates and two controls, and its results."""
    workdir = tmp_path_factory.mktemp("run")
    config = small(flavour=request.param, replicates=2, controls=("reinit", "shuffle"))
    return workdir, driver.run(config, str(workdir))


def tensors(workdir, replicate, level, arm, name):
    folder = workdir / f"replicate_{replicate}" / f"level_{level:02d}" / arm
    return files.read_tensors(folder / f"{name}.safetensors")[0]


def test_every_network_has_its_row(run):
    workdir, results = run
    with open(workdir / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [
        (replicate, level, arm)
        for replicate in (1, 2)
        for level in (0, 1, 2)
        for arm in (("ticket", "reinit", "shuffle") if level else ("ticket",))
    ]
    assert [(int(row["replicate"]), int(row["level"]), row["arm"]) for row in rows] == expected
    assert [float(row["test_accuracy_at_early_stop"]) for row in rows] == [
        result.test_accuracy_at_early_stop for result in results
    ]
    assert rows[0]["density"] == "1.0"
    assert all(0 <= int(row["early_stop_step"]) <= 40 for row in rows)


def test_times_are_kept_apart_from_results(run):
    workdir, results = run
    with open(workdir / "timings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["replicate"]), int(r["level"]), r["arm"]) for r in rows] == [
        (result.replicate, result.level, result.arm) for result in results
    ]
    assert all(int(row["steps"]) == 40 and float(row["seconds"]) > 0 for row in rows)


def test_start_weights_are_mask_times_the_initial_ones_bit_for_bit(run):
    workdir, _ = run
    for replicate in (1, 2):
        initial, _ = files.read_tensors(workdir / f"replicate_{replicate}" / "initial.safetensors")
        for level in (0, 1, 2):
            mask = tensors(workdir, replicate, level, "ticket", "mask")
            start = tensors(workdir, replicate, level, "ticket", "start")
            assert set(start) == {path for path in initial if not path.startswith("/optimizer/")}
            for path, array in start.items():
                expected = np.where(mask[path], initial[path], 0) if path in mask else initial[path]
                np.testing.assert_array_equal(array, expected)


def test_masks_only_shrink_and_hold(run):
    workdir, _ = run
    for replicate in (1, 2):
        before = tensors(workdir, replicate, 0, "ticket", "mask")
        for level in (1, 2):
            mask = tensors(workdir, replicate, level, "ticket", "mask")
            assert masks.kept(mask) < masks.kept(before)
            for arm in ("ticket", "reinit", "shuffle"):
                held = tensors(workdir, replicate, level, arm, "mask")
                end = tensors(workdir, replicate, level, arm, "end")
                assert masks.kept(held) == masks.kept(mask)
                assert all((end[path][~array] == 0).all() for path, array in held.items())
            assert all((mask[path] <= before[path]).all() for path in mask)
            before = mask


def test_controls_differ_from_the_ticket_in_what_they_should(run):
    workdir, _ = run
    ticket, reinit, shuffle = (
        {name: tensors(workdir, 1, 2, arm, name) for name in ("mask", "start")}
        for arm in ("ticket", "reinit", "shuffle")
    )
    initial, _ = files.read_tensors(workdir / "replicate_1" / "initial.safetensors")
    for path, mask in ticket["mask"].items():
        np.testing.assert_array_equal(reinit["mask"][path], mask)
        assert not np.isin(reinit["start"][path][mask], initial[path]).any()
        assert not np.array_equal(shuffle["mask"][path], mask)
        kept = shuffle["mask"][path]
        np.testing.assert_array_equal(shuffle["start"][path][kept], initial[path][kept])


def test_every_replicate_starts_dense_and_from_other_weights(run):
    workdir, results = run
    densities = [[r.density for r in results if r.replicate == replicate] for replicate in (1, 2)]
    assert densities[0] == densities[1] and densities[0][0] == 1
    one, two = (tensors(workdir, replicate, 0, "ticket", "start") for replicate in (1, 2))
    assert not np.array_equal(one["fc1/kernel"], two["fc1/kernel"])


def test_each_level_leaves_a_ticket_that_loads(run):
    workdir, _ = run
    ticket = Ticket.load(workdir / "replicate_1" / "level_02" / "ticket" / "ticket.safetensors")
    assert (ticket.level, ticket.rewind_step) == (2, 0)
    mask = tensors(workdir, 1, 2, "ticket", "mask")
    assert all(np.array_equal(ticket.mask[path], array) for path, array in mask.items())


def test_a_ticket_tells_what_made_it(run):
    workdir, _ = run
    config = files.read_json(workdir / "config.json")
    for replicate in (1, 2):
        folder = workdir / f"replicate_{replicate}" / "level_02" / "ticket"
        made = Ticket.load(folder / "ticket.safetensors").provenance
        assert (made["key"], made["config"], made["flavour"]) == ([0, replicate], config, config["flavour"])
        assert {"python", "tf_lottery", "tensorflow", "keras", "tf_keras", "numpy"} <= made["versions"].keys()


def test_more_levels_and_controls_may_be_added_to_a_finished_run(tmp_path):
    first = driver.run(small(controls=(), prune__levels=1), str(tmp_path / "grown"))
    grown = driver.run(small(), str(tmp_path / "grown"))
    whole = driver.run(small(), str(tmp_path / "whole"))
    assert len(first) == 2
    assert grown == whole
    for name in ("results.csv", "replicate_1/level_02/reinit/end.safetensors"):
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_late_rewinding_starts_from_the_state_at_its_step(tmp_path):
    driver.run(small(prune__rewind_step=15, controls=()), str(tmp_path))
    snapshots = tensors(tmp_path, 1, 0, "ticket", "snapshots")
    snapshot = {path.removeprefix("15/"): array for path, array in snapshots.items()}
    start, mask = (tensors(tmp_path, 1, 1, "ticket", name) for name in ("start", "mask"))
    for path, array in start.items():
        expected = np.where(mask[path], snapshot[path], 0) if path in mask else snapshot[path]
        np.testing.assert_array_equal(array, expected)
    initial, _ = files.read_tensors(tmp_path / "replicate_1" / "initial.safetensors")
    assert not np.array_equal(snapshot["fc1/kernel"], initial["fc1/kernel"])


def test_the_paper_s_protocol_is_in_the_mnist_config():
    config = runpy.run_path(str(MNIST))["get_config"]()
    entries = {name: config_module.get(config, name) for name in config_module.fields()}
    assert entries["network.name"] == "lenet_300_100"
    assert entries["network.initializer"] == "glorot_normal"
    assert (entries["train.optimizer"], entries["train.learning_rate"]) == ("adam", 1.2e-3)
    assert (entries["train.batch_size"], entries["train.steps"]) == (60, 50_000)
    assert entries["train.eval_every_steps"] == 100
    assert (entries["data.input_scaling"], entries["data.validation_size"]) == ("unit", 5000)
    assert (entries["prune.fraction"], entries["prune.output_fraction"]) == (0.2, 0.1)
    assert (entries["prune.scope"], entries["prune.criterion"]) == ("layer", "magnitude")


def test_tickets_beat_reinitialized_networks_on_digits(tmp_path):
    config = config_module.ExperimentConfig()
    config.prune.levels = 11
    config.control_levels = (5, 6, 7, 8, 9, 10, 11)
    results = driver.run(config, str(tmp_path))
    between = {
        arm: [r for r in results if r.arm == arm and 0.09 <= r.density <= 0.34]
        for arm in ("ticket", "reinit")
    }
    assert [len(rows) for rows in between.values()] == [7, 7]
    steps = {arm: np.mean([r.early_stop_step for r in rows]) for arm, rows in between.items()}
    accuracy = {arm: np.mean([r.test_accuracy_at_early_stop for r in rows]) for arm, rows in between.items()}
    assert steps["ticket"] < steps["reinit"]
    assert accuracy["ticket"] > accuracy["reinit"]
