"""Several worker processes that train one network together."""

import json
import os
import signal
import textwrap
import time

import numpy as np
import pytest
from cluster import config, finish, start
from image_sets import photograph, store

from tf_lottery import cli

_PROGRAM = """
import sys
import numpy as np
from tf_lottery.training import strategies
from tf_lottery.keras_api import flavour
import tf_lottery

name, workdir, results = sys.argv[1:]
strategy = strategies.make("auto")
keras = flavour.keras_module(name)
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 240).astype(np.int32)
x = (rng.normal(size=(240, 8)) + 1.5 * np.eye(3, 8)[y]).astype(np.float32)
with strategy.scope():
    layers = [keras.layers.Input((8,))]
    for i, (units, activation) in enumerate([(16, "relu"), (3, None)], 1):
        drawn = keras.initializers.GlorotNormal(seed=i)
        layers.append(keras.layers.Dense(units, activation, kernel_initializer=drawn, name=f"fc{i}"))
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
ticket = tf_lottery.find_ticket(
    model, x, y, test_data=(x[:101], y[:101]), batch_size=24, steps=40, levels=2, controls=["reinit"],
    eval_every=10, rewind_step=5, verbose=1, workdir=workdir or None,
)
_, index = strategies.workers()
ticket.save(f"{results}/{strategy.num_replicas_in_sync}_{index}.ticket")
"""


@pytest.mark.parametrize("flavour, count", [("keras", 2), ("tf_keras", 3)])
def test_workers_find_the_ticket_of_one_device(tmp_path, flavour, count):
    import tf_lottery

    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(_PROGRAM))
    workdir, results = tmp_path / "run", tmp_path / "results"
    results.mkdir()
    for workers in (1, count):
        ended = finish(start(workers, program, flavour, workdir if workers > 1 else "", results))
        assert [status for status, _, _ in ended] == [0] * workers, ended
    alone = tf_lottery.Ticket.load(results / "1_0.ticket")
    for index in range(count):
        ticket = tf_lottery.Ticket.load(results / f"{count}_{index}.ticket")
        for path, mask in alone.mask.items():
            np.testing.assert_array_equal(ticket.mask[path], mask)
        for path, weights in alone.weights.items():
            np.testing.assert_allclose(ticket.weights[path], weights, atol=1e-5)
        assert ticket.verdict == alone.verdict
    # The chief alone shows progress and writes: what it wrote is whole, by one process.
    assert "level  2" in ended[0][1]
    assert not any(output for _, output, _ in ended[1:])
    assert len((workdir / "results.csv").read_text().splitlines()) == 6
    # A finished run is told to every worker, and is not trained again.
    timings = (workdir / "timings.csv").read_text()
    again = finish(start(count, program, flavour, workdir, results))
    assert [status for status, _, _ in again] == [0] * count, again
    assert (workdir / "timings.csv").read_text() == timings


_DRIVER = [
    "--config.network.name=mlp:8",
    "--config.train.optimizer=sgd",
    "--config.train.learning_rate=0.1",
    "--config.train.steps=100",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=1",
    "--config.prune.rewind_step=20",
    "--config.replicates=2",
]


def test_a_killed_worker_stops_the_others_and_all_go_on(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    words = ["-m", "tf_lottery", "run", *_DRIVER]
    (ended,) = finish(start(1, *words, "--config.strategy=one_device", f"--workdir={alone}"))
    assert ended[0] == 0, ended
    processes = start(2, *words, f"--workdir={together}")
    finished = together / "replicate_1/level_00/ticket/result.json"
    waited = time.monotonic()
    while not finished.exists():
        assert all(process.poll() is None for process in processes), finish(processes)
        assert time.monotonic() - waited < 200
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (status, _, said), _ = finish(processes)
    assert status == 1
    assert "Another worker of this training has stopped" in said
    assert "Traceback" not in said
    assert time.monotonic() - killed < 120
    ended = finish(start(2, *words, f"--workdir={together}"))
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert "Goes on in" in ended[0][1]
    assert not ended[1][1]
    assert _close(alone, together, networks=2 * (2 + 1))
    # Which devices did it is not of the results: a run may go on with others.
    assert "strategy" not in json.loads((together / "config.json").read_text())


def _close(alone, together, networks):
    """Whether two runs come to the same networks, weights to 1e-5."""
    from tf_lottery.training import recorded

    ones, others = recorded.networks(alone), recorded.networks(together)
    assert len(ones) == len(others) == networks
    for one, other in zip(ones, others):
        for path, mask in one.mask().items():
            np.testing.assert_array_equal(other.mask()[path], mask)
        end, other_end = one.end(), other.end()
        for path, weights in end.items():
            np.testing.assert_allclose(other_end[path], weights, atol=1e-5)
        assert os.path.exists(other.folder / "ticket.safetensors") == (one.result.arm == "ticket")
    return True


def test_workers_share_images_that_stream(tmp_path):
    """Each decodes its part of every batch; evaluation batches need not be even."""
    store(tmp_path / "data", "photographs", photograph, (None, None, 3), sizes=(90, 13))
    words = [
        "-m",
        "tf_lottery",
        "run",
        "--config.data.name=photographs",
        f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.data.image_size=8",
        "--config.data.validation_size=21",
        "--config.network.name=mlp:4",
        "--config.train.augment=random_resized_crop",
        "--config.train.optimizer=sgd",
        "--config.train.learning_rate=0.01",
        "--config.train.batch_size=8",
        "--config.train.steps=20",
        "--config.prune.levels=1",
        "--config.flavour=keras",
    ]
    alone, together = tmp_path / "alone", tmp_path / "together"
    folders = [tmp_path / "of the chief", tmp_path / "of the other"]
    for folder in folders:
        folder.mkdir()
    for count, workdir in ((1, alone), (2, together)):
        ended = finish(start(count, *words, f"--workdir={workdir}", own=lambda i: ([], folders[i])))
        assert [status for status, _, _ in ended] == [0] * count, ended
    assert _close(alone, together, networks=3)
    # The other says nothing and leaves nothing.
    assert ended[1][1] == "" and list(folders[1].iterdir()) == []
    # One that has not the data ends all, and each says why in a line.
    (folders[0] / "data").symlink_to(tmp_path / "data")
    words[4] = "--config.data.data_dir=data"
    (status, _, said), (_, _, reason) = finish(start(2, *words, own=lambda i: ([], folders[i])))
    assert status == 1 and said.splitlines()[-1].startswith("tf-lottery: Another worker of this training has")
    assert reason.splitlines()[-1].startswith("tf-lottery: Unknown data set 'photographs'.")
    assert "Traceback" not in said + reason


def test_workers_with_other_settings_are_refused():
    words = ["-m", "tf_lottery", "run", *_DRIVER, "--config.train.steps=30"]
    chief, other = finish(start(2, *words, own=lambda i: ([f"--config.seed={i}"], None)))
    assert chief[0] == other[0] == 1
    assert "Another worker of this training has stopped" in chief[2]
    assert "was started with other settings than this one:\n  seed: 0 there, 1 now\nStart all" in other[2]
    assert "Traceback" not in chief[2] + other[2]


def test_what_workers_cannot_do_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TF_CONFIG", config(["localhost:1", "localhost:2"], 0))
    words = ["run", *_DRIVER, f"--workdir={tmp_path / 'run'}"]
    assert cli.main([*words, "--jobs=2"]) == 1
    assert "and TF_CONFIG names other workers: leave one of them out." in capsys.readouterr().err
    (tmp_path / "mixed.py").write_text(_MIXED)
    assert cli.main(["run", f"--config={tmp_path / 'mixed.py'}", f"--workdir={tmp_path / 'run'}"]) == 1
    assert "for one machine, and some for all that TF_CONFIG names" in capsys.readouterr().err
    assert cli.main([*words, "--config.strategy=mirrored", "--tpu=mine"]) == 1
    assert "The strategy 'mirrored' has no use for the TPU 'mine'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


_MIXED = """
from tf_lottery.experiments.config import ExperimentConfig

def get_config():
    return {"all": ExperimentConfig(), "one": ExperimentConfig(strategy="default")}
"""
