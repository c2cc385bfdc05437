"""The benchmark: contenders do what they are timed for, and its figures are of the work that they name."""

import itertools
import json
import multiprocessing
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

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
    assert sum(p.operations() for p in found) == 3 * forward - 2 * 60 * 784 * 300
    resnet = products.of(works.WORKS["resnet_20"].network(keras), 1)
    assert sum(p.rows * p.inner * p.columns for p in resnet) == pytest.approx(40.8e6, rel=0.02)  # 1512.03385
    lstm = products.of(works.WORKS["lstm"].network(keras), 64)
    assert lstm[0] == (64 * 28, 28, 4 * 128, 1, 1, True)
    assert lstm[1] == (64, 128, 4 * 128, 28, 1, False)
    transformer = products.of(works.WORKS["transformer"].network(keras), 64)
    assert not any(p.reaches_inputs for p in transformer)
    assert transformer[1] == (64, 16, 64, 1, 64 * 4, False)  # queries and keys, of each example and head
    assert transformer[1].shapes == [(256, 64, 16), (256, 16, 64), (256, 64, 64)]
    for made in (found, lstm[1:], transformer[1:3]):
        for jit in (False, True):
            assert products.by_tensorflow(made, jit)(3) > 0
        assert products.by_numpy(made)(3) > 0


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("several", [False, True])
def test_fit_is_stopped_and_timed_at_the_steps_that_were_asked_for(several, monkeypatch):
    import keras
    from benchmarks import contenders, works

    work = works.mlp(8, 5500)  # 10 batches in an epoch
    model = work.compiled(keras, steps_per_execution=5 if several else 1)
    # A clock that is looked at as each step begins, or each call of several.
    monkeypatch.setattr(contenders, "time", types.SimpleNamespace(perf_counter=itertools.count().__next__))
    seconds = contenders._fitting(keras, model, work)(10)
    assert seconds == (2 if several else 10)
    # It stops as the step after the 20th begins, which Keras takes to its end, with all of the same call.
    assert int(model.optimizer.iterations) == (25 if several else 21)


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("name", ["lenet", "conv_2", "resnet_20", "transformer", "lstm"])
def test_pytorch_trains_the_same_networks(name):
    pytest.importorskip("torch")
    import keras
    from benchmarks import torch_loop, works

    in_torch = sum(p.numel() for p in torch_loop._NETWORKS[name]().parameters())
    in_keras = sum(int(np.prod(v.shape)) for v in works.WORKS[name].network(keras).trainable_variables)
    # A transformer's biases and an LSTM's second one are the libraries' own.
    assert in_torch == pytest.approx(in_keras, rel=0.01)


@pytest.mark.usefixtures("tools")
def test_what_xla_cannot_compile_is_told():
    import keras
    from benchmarks import xla

    class InPython(keras.layers.Layer):
        def call(self, x):
            return x + tf.reshape(tf.py_function(lambda: np.float32(1), [], tf.float32), [])

    rows = {
        "dense": xla._row(keras, (4,), [keras.layers.Dense(3)], 2),
        "in Python": xla._row(keras, (4,), [InPython()], 2),
    }
    assert all(row["rule"] and row["xla"]["median"] > 0 for row in rows.values())
    assert [row["compiles"] for row in rows.values()] == [True, False]
    assert xla.text({"networks": rows}).count("XLA cannot compile it") == 1


@pytest.mark.usefixtures("tools")
def test_ratios_are_of_one_round_each():
    from benchmarks.speed import ratio

    assert ratio([2.0, 40.0, 6.0], [1.0, 20.0, 2.0]) == {"median": 2.0, "low": 2.0, "high": 2.5}


@pytest.mark.usefixtures("tools")
def test_who_dies_is_left_out_and_the_others_go_on(monkeypatch):
    from benchmarks import processes, speed

    turn, turns = processes.Contender.turn, []

    def dying(self):
        turns.append(self)
        if len(turns) == 4:  # of the second round
            first = min(multiprocessing.active_children(), key=lambda process: process.pid)
            first.kill()
            first.join()
        return turn(self)

    monkeypatch.setattr(processes.Contender, "turn", dying)
    report = speed.measure("mlp:16:60", 3, ["Keras fit", "products, OpenBLAS", "tf_lottery"])
    assert report["left_out"] == {"Keras fit": "its process died"}
    assert list(report["contenders"]) == ["products, OpenBLAS", "tf_lottery"]
    assert list(report["ratios"]) == ["share of the bound, the fastest products"]


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
    text = speed.text(report)
    assert "Keras fit / tf_lottery" in text and "Keras fit at its best" not in text


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


def test_a_file_that_cannot_be_written_is_told_first(tmp_path):
    done = run("search", "--steps=10000000", f"--json={tmp_path / 'no' / 'numbers.json'}")
    assert done.returncode == 1 and "No such file or directory" in done.stderr


def test_commands_are_named():
    done = run("sped")
    assert done.returncode != 0
    assert "Name one command: speed, scaling, masking, xla, search." in done.stdout + done.stderr
