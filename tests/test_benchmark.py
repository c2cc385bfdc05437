"""The benchmark: contenders do what they are timed for, and its figures are of the work that they name."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def run(*words):
    return subprocess.run(
        [sys.executable, TOOLS / "benchmark.py", *words], capture_output=True, text=True, timeout=300
    )


@pytest.mark.usefixtures("tools")
def test_products_are_those_of_a_step():
    import keras
    from benchmarks import products, works

    lenet = works.WORKS["lenet"]
    found = products.of(lenet.network(keras), 60)
    forward = 2 * 60 * (784 * 300 + 300 * 100 + 100 * 10)
    # Back twice as many, but for the gradient of the images.
    assert sum(p.numbers() for p in found) == 3 * forward - 2 * 60 * 784 * 300
    resnet = products.of(works.WORKS["resnet_20"].network(keras), 1)
    assert sum(p.rows * p.inner * p.columns for p in resnet) == pytest.approx(40.8e6, rel=0.02)  # 1512.03385
    lstm = products.of(works.WORKS["lstm"].network(keras), 64)
    assert lstm[0] == (64 * 28, 28, 4 * 128, 1, True)
    assert lstm[1] == (64, 128, 4 * 128, 28, False)
    transformer = products.of(works.WORKS["transformer"].network(keras), 64)
    assert not any(p.reaches_inputs for p in transformer)
    assert transformer[1] == (64, 16, 64, 64 * 4, False)  # queries and keys, of each example and head
    for run_products in (products.by_numpy(found), products.by_tensorflow(found, jit=False)):
        assert run_products(3) > 0


@pytest.mark.usefixtures("tools")
def test_ratios_are_of_one_round_each():
    from benchmarks.speed import ratio

    assert ratio([2.0, 40.0, 6.0], [1.0, 20.0, 2.0]) == {"median": 2.0, "low": 2.0, "high": 2.5}


@pytest.mark.usefixtures("tools")
def test_who_cannot_take_part_is_named_and_the_others_go_on(monkeypatch):
    from benchmarks import speed

    names = ("tf_lottery", "Keras fit", "no such contender", "products, OpenBLAS")
    report = speed.measure("mlp:16:60", 2, names)
    assert list(report["contenders"]) == ["tf_lottery", "Keras fit", "products, OpenBLAS"]
    assert "no such contender" in report["left_out"]
    for row in report["contenders"].values():
        assert 0 < row["low"] <= row["median"] <= row["high"]
        assert row["peak_mib"] > 50
    assert "Keras fit / tf_lottery" in speed.text(report)


def test_a_search_is_measured_as_the_driver_does_it(tmp_path):
    file = tmp_path / "numbers.json"
    done = run("search", "--levels=2", "--steps=200", f"--json={file}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "5 networks of 200 steps" in done.stdout
    report = json.loads(file.read_text())
    assert report["networks"] == 5 and report["traces"] == [3]
    seconds = report["seconds"]
    assert {"training", "evaluation: validation", "evaluation: test", "TensorBoard", "results"} <= set(
        seconds
    )
    assert sum(seconds.values()) - seconds["all of each network"] < report["total_seconds"]
    assert np.isfinite(report["late_over_early"])


def test_commands_are_named():
    done = run("sped")
    assert done.returncode != 0
    assert "Name one command: speed, scaling, masking, xla, search." in done.stdout + done.stderr
