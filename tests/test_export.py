"""Tickets as files: each opens in its own runtime alone, computes the same, and is measured as it is."""

import csv
import functools
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import tf_lottery
from tf_lottery import cli, files, paths
from tf_lottery.analysis import shipped
from tf_lottery.experiments import models, outputs, variants
from tf_lottery.experiments.analyses import export
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api import exporting, flavour, prunable
from tf_lottery.training import recorded
from tf_lottery.training.streams import Stream

TINY = [
    "--config.network.name=mlp:24,12",
    "--config.train.steps=300",
    "--config.train.eval_every_steps=50",
    "--config.prune.levels=4",
    "--config.prune.fraction=0.6",
    "--config.controls=",
]
SUFFIX = {"keras": ".keras", "savedmodel": "", "tflite": ".tflite", "safetensors": ".safetensors"}
# A program of others: the files, and the arrays that they are to give.
PROGRAM = """
import sys
import {flavour}
import numpy as np
import tensorflow as tf

*paths, x, y = sys.argv[1:]
x = np.load(x)
by_keras = {flavour}.saving.load_model(paths[0]).predict(x)
loaded = tf.saved_model.load(paths[1])
(by_saved_model,) = loaded.signatures["serving_default"](tf.constant(x)).values()
interpreter = tf.lite.Interpreter(paths[2])
interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
interpreter.invoke()
by_tflite = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
np.save(y, [by_keras, by_saved_model.numpy(), by_tflite])
names = {{name.partition(".")[0] for name in sys.modules}}
assert not names & {{"tf_lottery", "tensorflow_model_optimization"}}, names
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Flavour -> a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        for name in flavour.FLAVOURS:
            assert cli.main(["run", *TINY, f"--workdir={folder / name}", f"--config.flavour={name}"]) == 0
    return {name: folder / name for name in flavour.FLAVOURS}


@pytest.fixture(params=flavour.FLAVOURS)
def run(request, runs):
    return runs[request.param]


@pytest.fixture
def tf_keras_run(runs):
    return runs["tf_keras"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(shipped, "ROUNDS", 3)


@functools.cache
def experiment_of(workdir):
    return Experiment.of_run(workdir)


def ticket(workdir, level):
    """A network of a run in Keras, its test images, their labels, and what is recorded of it."""
    made = experiment_of(workdir)
    network = next(n for n in recorded.networks(workdir) if n.result.level == level)
    made.model.set_weights(network.end())
    return made.model.model, *made.data.test, network


def exported(workdir, format, **options):
    findings = export.analyze(workdir, format=format, **options)
    (path,) = findings.files
    return path, findings


@pytest.mark.parametrize("format", SUFFIX)
def test_a_file_computes_what_the_network_does(run, format, tmp_path):
    path, findings = exported(run, format, level=4, output=tmp_path)
    assert path == tmp_path / f"{run.name}_level_04_ticket_replicate_1{SUFFIX[format]}"
    assert os.listdir(tmp_path) == [path.name]
    model, x, y, network = ticket(run, 4)
    expected = model.predict(x, verbose=0)
    made = experiment_of(run)
    opened = exporting.FORMATS[format].open(path, models.plain(made.config, made.data))
    np.testing.assert_allclose(opened(x), expected, atol=1e-5, rtol=1e-5)
    dense, small = findings.rows
    assert (dense["network"], small["network"]) == ("dense", "ticket")
    assert small["density"] == pytest.approx(network.result.density)
    assert dense["density"] == 1
    for row, level in ((dense, 0), (small, 4)):
        result = ticket(run, level)[-1].result
        assert row["test_accuracy"] == row["keras_test_accuracy"]
        assert row["test_accuracy"] == pytest.approx(result.final_test_accuracy, abs=1e-6)
    assert small["test_accuracy"] == pytest.approx(np.mean(expected.argmax(-1) == y))
    assert small["gzipped_bytes"] < 0.6 * dense["gzipped_bytes"]
    assert 0 < small["ms_batch_1_low"] <= small["ms_batch_1"] <= small["ms_batch_1_high"]


def test_files_open_without_tf_lottery(run, tmp_path):
    written = [exported(run, format, level=4, output=tmp_path)[0] for format in SUFFIX][:3]
    model, x, _, _ = ticket(run, 4)
    np.save(tmp_path / "x.npy", x)
    program = PROGRAM.format(flavour=run.name)
    words = [*map(str, written), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    # As one who has never heard of this package.
    hidden = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env=hidden, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = model.predict(x, verbose=0)
    for outputs_of_one in np.load(tmp_path / "y.npy"):
        np.testing.assert_allclose(outputs_of_one, expected, atol=1e-5, rtol=1e-5)


def test_a_safetensors_file_has_the_variables_by_path(run, tmp_path):
    path, _ = exported(run, "safetensors", level=4, output=tmp_path)
    tensors = safetensors.numpy.load(path.read_bytes())
    end = ticket(run, 4)[-1].end()
    assert set(tensors) == {f"{layer}/{v}" for layer in ("fc1", "fc2", "output") for v in ("kernel", "bias")}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, end[name])


@pytest.mark.parametrize("format", ["keras", "tflite"])
def test_a_compacted_file_is_smaller_and_computes_the_same(run, format, tmp_path):
    path, findings = exported(run, format, level=4, compact=True, output=tmp_path)
    assert path.name == f"{run.name}_level_04_ticket_replicate_1_compacted{SUFFIX[format]}"
    assert [row["network"] for row in findings.rows] == ["dense", "ticket", "compacted ticket"]
    model, x, _, _ = ticket(run, 4)
    small, kept = tf_lottery.compact(model)
    assert small.count_params() < model.count_params()
    opened = exporting.FORMATS[format].open(path, small)
    np.testing.assert_allclose(opened(x), model.predict(x, verbose=0), atol=1e-5, rtol=0)
    _, whole, compacted = findings.rows
    assert compacted["test_accuracy"] == whole["test_accuracy"] == compacted["keras_test_accuracy"]
    if format != "tflite":  # where the indices of the inputs that it picks outweigh so small a gain
        assert compacted["bytes"] < whole["bytes"]


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated:UserWarning")
def test_a_quantized_file_keeps_its_zeros(tf_keras_run, tmp_path):
    path, findings = exported(
        tf_keras_run, "tflite", level=2, quantize=True, quantize_steps=300, output=tmp_path
    )
    assert path.name == "tf_keras_level_02_ticket_replicate_1_8_bit.tflite"
    dense, whole, small = findings.rows
    assert small["network"] == "8-bit ticket"
    assert small["bytes"] < whole["bytes"] and small["gzipped_bytes"] < whole["gzipped_bytes"]
    mask = ticket(tf_keras_run, 2)[-1].mask()
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    kernels = {}
    for details in interpreter.get_tensor_details():
        if details["dtype"] == np.int8 and len(details["shape"]) == 2 and details["shape"][0] > 1:
            kernels[tuple(details["shape"])] = interpreter.get_tensor(details["index"])
            assert not details["quantization_parameters"]["zero_points"].any()  # 0 is 0
    for kept in mask.values():
        assert not kernels[kept.T.shape][~kept.T].any()
        assert kernels[kept.T.shape][kept.T].astype(bool).mean() > 0.9
    # One example of 596 is 0.17 points.
    assert abs(small["test_accuracy"] - small["keras_test_accuracy"]) < 3.5 / 596


def test_the_command_says_what_it_wrote(run, tmp_path, capfd):
    workdir = shutil.copytree(run, tmp_path / "run")
    for _ in range(2):  # what there is is replaced
        assert cli.main(["export", str(workdir), "--format=savedmodel"]) == 0
        out, err = capfd.readouterr()
        assert err == ""
    level = next(row for row in csv.DictReader(open(workdir / "analysis" / "export.csv")))["level"]
    name = f"run_level_{int(level):02d}_ticket_replicate_1"
    assert os.listdir(workdir / "export") == [name]
    assert f"export/{name}\n" in out and "analysis/export.csv\n" in out
    assert out.startswith(f"Level {level} of arm 'ticket', replicate 1, as savedmodel.")
    assert "are those at the end of training (step 300)" in out
    assert "Beside dense, ticket is as large on disk, " in out and "Saved artifact" not in out


def test_files_are_named_after_the_run(tf_keras_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tf_keras_run / "replicate_1")
    path, findings = exported("..", "safetensors", level=1, output=tmp_path)
    assert path.name == "tf_keras_level_01_ticket_replicate_1.safetensors"
    assert "--config.data.input_scaling=unit" in findings.text
    assert "those of a Keras model that it is read into, compiled" in findings.text


def test_what_tflite_cannot_hold_is_told(keras, tmp_path):
    class Beta(keras.layers.Layer):
        def call(self, x):
            return tf.math.betainc(x, x, x)

    model = keras.Sequential([keras.Input((4,)), Beta()], name="beta")
    with pytest.raises(ValueError, match="^TFLite cannot hold the network 'beta': "):
        exporting.FORMATS["tflite"].write(model, tmp_path / "model.tflite")


def test_dense_can_be_exported_too(tf_keras_run, tmp_path):
    path, findings = exported(tf_keras_run, "tflite", level=0, output=tmp_path)
    assert [row["network"] for row in findings.rows] == ["dense"]
    assert path.name == "tf_keras_level_00_ticket_replicate_1.tflite"


def test_the_help(capsys):
    assert cli.main(["export", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("  tf-lottery export WORKDIR ... [--FLAG=VALUE ...]")
    assert all(f"--{flag}" in out for flag in ("level=-1", "format=keras", "compact", "quantize", "output="))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format=tflit"], "Unknown format 'tflit'. Did you mean 'tflite'?"),
        (
            ["--level=7"],
            "No network of arm 'ticket', level 7, replicate 1 is trained. There are: --arm=ticket "
            "--replicate=1 with --level=0, 1, 2, 3, 4.",
        ),
        (["--replicate=2"], "replicate 2 is trained"),
        (["--arm=reinit", "--level=1"], "No network of arm 'reinit', level 1"),
        (["--quantize"], "--quantize --format=tflite. Received keras."),
        (["--compact", "--format=safetensors"], "--compact --format=keras, savedmodel or tflite."),
        (["--format=savedmodel", "--output=ram://exported"], "--output=exported"),
        (["--quantize", "--format=tflite", "--quantize_steps=0"], "--quantize_steps=1000. Received: 0."),
        (
            ["--level=4", "--compact", "--quantize", "--format=tflite"],
            "Leave out --quantize, or try without --compact.",
        ),
    ],
)
def test_words_that_do_not_go_together(tf_keras_run, words, message, capsys):
    assert cli.main(["export", str(tf_keras_run), *words]) == 1
    assert message in capsys.readouterr().err


def test_keras_3_is_not_quantized(runs, capsys):
    assert cli.main(["export", str(runs["keras"]), "--quantize", "--format=tflite"]) == 1
    assert "--config.flavour=tf_keras" in capsys.readouterr().err


def test_without_a_dense_network_there_is_nothing_to_compare_with(tf_keras_run, tmp_path, capsys):
    workdir = shutil.copytree(tf_keras_run, tmp_path / "run")
    shutil.rmtree(workdir / "replicate_1" / "level_00")
    assert cli.main(["export", str(workdir), "--level=1"]) == 1
    err = capsys.readouterr().err
    assert "level 0, replicate 1 is trained, with which others are compared. There are: " in err
    assert cli.main(["export", str(workdir)]) == 1
    assert "Expected a result of the dense network" in capsys.readouterr().err
    shutil.rmtree(workdir / "replicate_1")
    assert cli.main(["export", str(workdir)]) == 0
    assert capsys.readouterr().out.startswith("No network is trained yet.")


def test_workdirs_of_find_ticket_have_no_model(make_model, data, tmp_path, capsys):
    x, y = data
    tf_lottery.find_ticket(make_model(), x, y, steps=5, levels=1, workdir=tmp_path, verbose=0)
    assert cli.main(["export", str(tmp_path)]) == 1
    assert "was written by find_ticket" in capsys.readouterr().err


def test_a_remote_folder_takes_files(tf_keras_run):
    path, _ = exported(tf_keras_run, "tflite", level=1, output="ram://exported")
    assert isinstance(path, paths.RemotePath) and path.read_bytes()[4:8] == b"TFL3"


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("first", "second"):
        made = tmp_path / content
        made.mkdir()
        (made / content).write_text(content)
        export._replace(made, tmp_path / "there")
    assert os.listdir(tmp_path / "there") == ["second"]
    assert sorted(os.listdir(tmp_path)) == ["first", "second", "there"]


def test_a_folder_comes_back_where_one_is_interrupted(tmp_path, monkeypatch):
    for content in ("there", "new"):
        (tmp_path / content).mkdir()
        (tmp_path / content / content).write_text(content)
    rename, calls = pathlib.Path.rename, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export._replace(tmp_path / "new", tmp_path / "there")
    assert os.listdir(tmp_path / "there") == ["there"]
    assert sorted(os.listdir(tmp_path)) == ["new", "there"]


def test_streams_are_tested_on_whole():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 4)).astype(np.float32), rng.integers(0, 4, 100).astype(np.int32)
    stream = Stream("test", tf.data.Dataset.from_tensor_slices((x, y)).batch(30))
    expected = np.mean(x.argmax(-1) == y)
    assert shipped.accuracy(lambda x: x, (x, y)) == shipped.accuracy(lambda x: x, stream) == expected
    for source in ((x, y), stream):
        batches = shipped.inputs(source)
        assert {n: batch.shape for n, batch in batches.items()} == {1: (1, 4), 64: (64, 4)}
        np.testing.assert_array_equal(batches[64][:30], x[:30])


def test_quantized_networks_train_on_arrays_and_on_streams():
    x, y = np.arange(20, dtype=np.float32)[:, None], np.arange(20, dtype=np.int32)
    stream = Stream("training", tf.data.Dataset.from_tensor_slices((x, y)).batch(5))
    for source in ((x, y), stream):
        batches = list(variants._batches(source, 5, 8, 0, 1, "quantize"))
        assert [(len(images), images.shape[1:]) for images, _ in batches] == [(5, (1,))] * 8
        for half in (batches[:4], batches[4:]):  # two passes
            assert sorted(np.concatenate([labels for _, labels in half])) == list(range(20))
        assert all((images[:, 0] == labels).all() for images, labels in batches)


def test_what_is_slower_is_told_from_what_is_as_fast():
    def spin(calls):
        return lambda batch: sum(range(calls * len(batch)))

    measured = shipped.latencies({"a": spin(2000), "c": spin(20_000)}, {1: "x", 64: "x" * 64})
    made = {name: shipped.Shipped(name, 1, 10, 10, ms, 1, 1) for name, ms in measured.items()}
    said = shipped.sentences(made["a"], [made["c"]])
    assert said.count("times slower") == 1 + ("at batch 1" in said)
    assert "times faster" in shipped.sentences(made["c"], [made["a"]])


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        ((0.5, 0.5, 0.6), "2.0 times faster"),
        ((3.0, 3.0, 2.0), "3.0 times slower"),
        ((0.97, 0.98, 0.99), "as fast"),
        ((0.9, 1.02, 1.1), "as fast"),
        ((0.5, 0.6, 1.2), "not surely faster or slower"),
    ],
)
def test_faster_is_what_rounds_agree_on_and_more_than_a_little(rounds, words):
    def made(rounds):
        return shipped.Shipped("it", 1, 10, 10, {n: shipped.Latency(rounds) for n in (1, 64)}, 1, 1)

    said = shipped.sentences(made((1.0, 1.0, 1.0)), [made(rounds)])
    assert said == f"Beside dense, it is as large on disk, as large gzipped, and {words}."


def test_augmentation_and_initializers_of_ones_own_stay_behind(keras, tmp_path):
    config = ExperimentConfig()
    config.flavour, config.network.initializer = flavour.flavour_of(keras.Sequential()), "signed_constant"
    config.network.name, config.train.augment, config.train.weight_decay = "conv_2", "crop_flip", 1e-4
    made = Experiment(config)
    model = models.plain(config, made.data)
    exporting.fill(model, {p: a for p, a in made.model.state().items() if p in prunable.slots(model)})
    exporting.FORMATS["keras"].write(model, tmp_path / "model.keras")
    opened = exporting.FORMATS["keras"].open(tmp_path / "model.keras", model)
    x = made.data.test[0][:20]
    np.testing.assert_allclose(opened(x), made.model.model.predict(x, verbose=0), atol=1e-5, rtol=1e-5)
    assert b"tf_lottery" not in (tmp_path / "model.keras").read_bytes()


def test_what_is_said_meanwhile_is_heard_only_where_it_fails(capfd):
    with exporting.quietly():
        print("progress")
        os.write(2, b"noise\n")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="no"), exporting.quietly():
        print("progress")
        os.write(2, b"the cause\n")
        raise ValueError("no")
    assert "the cause" in capfd.readouterr().err


def test_outputs_name_what_an_analysis_has_written_itself(tmp_path):
    from tf_lottery.analysis.findings import Findings

    files.write_text(tmp_path / "made", "")
    assert outputs.write(tmp_path, "made_up", Findings("", files=[tmp_path / "made"])) == [tmp_path / "made"]
