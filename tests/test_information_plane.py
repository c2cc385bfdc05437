"""The information plane: outputs of layers, points, figure, and the command on a run."""

import csv
import re
import shutil

import numpy as np
import pytest
import tf_keras
from matplotlib.colors import to_hex
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_lottery import cli, files
from tf_lottery.analysis import information_plane as plane
from tf_lottery.analysis import verdict
from tf_lottery.analysis.figures.information_plane import plot_plane, plot_training
from tf_lottery.analysis.information_plane import BINNING, KERNEL_DENSITY, LayerOutputs, Point
from tf_lottery.experiments.analyses import infoplane
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.training import recorded
from tf_lottery.training.trainer import Trainer

RNG = np.random.default_rng(0)
KERNEL = np.array([[1.0, -1.0], [0.5, 2.0]], np.float32)
X = np.array([[1, 0], [0, 1], [2, -2]], np.float32)


def tiny(keras, last="linear", units=2):
    """Two inputs, two tanh units, two ReLUs, and an output layer."""
    layers = [
        keras.layers.Input((2,)),
        keras.layers.Dense(2, "tanh", name="hidden"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(2, "relu", name="rectified"),
        keras.layers.Dense(units, last, name="output"),
    ]
    model = keras.Sequential(layers)
    ones = np.ones((2, units), np.float32)
    ones[1] = 2
    model.set_weights([KERNEL, np.array([0, 0.5]), KERNEL, np.zeros(2), ones, np.arange(units)])
    return model


def by_hand():
    hidden = np.tanh(X @ KERNEL + [0, 0.5])
    rectified = np.maximum(hidden @ KERNEL, 0)
    return hidden, rectified, (rectified @ [[1, 1], [2, 2]]) + [0, 1]


def check(layers):
    outputs = layers(X)
    assert list(outputs) == ["hidden", "rectified", "output"] == list(layers.names)
    hidden, rectified, logits = by_hand()
    np.testing.assert_allclose(outputs["hidden"], hidden, rtol=1e-5)
    np.testing.assert_allclose(outputs["rectified"], rectified, rtol=1e-5, atol=1e-6)
    # The second logit is one above the first: probabilities 1/(1+e) and e/(1+e).
    np.testing.assert_allclose(outputs["output"], np.tile([1, np.e], (3, 1)) / (1 + np.e), rtol=1e-5)
    assert layers.bounded == {"hidden", "output"}


def test_outputs_of_layers_by_hand(keras):
    check(LayerOutputs(tiny(keras)))


def test_outputs_in_pruning_wrappers():
    from tf_lottery.keras_api import tfmot_wrappers

    check(LayerOutputs(tfmot_wrappers.wrap(tiny(tf_keras))))


def test_an_activation_of_the_last_layer_is_left_alone(keras):
    softmax, sigmoid, logit = (
        LayerOutputs(tiny(keras, *how)) for how in (("softmax", 2), ("sigmoid", 1), ("linear", 1))
    )
    np.testing.assert_allclose(softmax(X)["output"], LayerOutputs(tiny(keras))(X)["output"], rtol=1e-5)
    first = by_hand()[2][:, :1]
    np.testing.assert_allclose(sigmoid(X)["output"], 1 / (1 + np.exp(-first)), rtol=1e-5)
    np.testing.assert_allclose(logit(X)["output"], first, rtol=1e-5, atol=1e-6)
    assert "output" in sigmoid.bounded and "output" not in logit.bounded


def test_images_are_flattened_and_weights_are_those_of_the_moment(keras):
    model = keras.Sequential(
        [
            keras.layers.Input((4, 4, 1)),
            keras.layers.Conv2D(3, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, name="output"),
        ]
    )
    layers, x = LayerOutputs(model), np.ones((7, 4, 4, 1), np.float32)
    assert {name: t.shape for name, t in layers(x).items()} == {"conv": (7, 12), "output": (7, 5)}
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    np.testing.assert_allclose(layers(x)["conv"], 10)


def test_a_subclassed_model_is_refused(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(X)
    with pytest.raises(ValueError, match="is a subclassed Own. Build it as a Sequential or functional model"):
        LayerOutputs(model)


def test_points_of_layers_with_known_information():
    labels = np.repeat([0, 1], 32)
    random = np.tanh(RNG.normal(size=(64, 6)))
    outputs = {
        0: {"fc1": random, "fc2": np.zeros((64, 1))},
        5: {"fc1": random, "fc2": np.where(labels, 50.0, -50.0)[:, None]},
    }
    found = {(p.layer, p.step, p.estimator): p for p in plane.points(outputs, labels, bounded={"fc1"})}
    assert len(found) == 8
    for estimator, bins in ((BINNING, 100), (KERNEL_DENSITY, 0)):
        assert found["fc2", 0, estimator] == Point("fc2", 0, estimator, bins, 0, 0, False)
        last = found["fc2", 5, estimator]
        assert (last.i_xt, last.i_ty, last.saturated) == (pytest.approx(1), pytest.approx(1), False)
    first = found["fc1", 0, BINNING]
    assert (first.i_xt, first.i_ty, first.saturated, first.bins) == (6, 1, True, 30)


def test_bins_of_unbounded_layers_span_the_whole_training():
    labels = np.arange(4) % 2
    early, late = np.array([[0.0], [1], [2], [3]]), np.array([[0.0], [0], [0], [1000]])
    found = plane.points({0: {"fc": early}, 1: {"fc": late}}, labels)
    binned = [p.i_xt for p in found if p.estimator == BINNING]
    # Of bins of width 10, one holds all early outputs: H = 0, then H(1/4).
    np.testing.assert_allclose(binned, [0, 0.8112781], atol=1e-6)
    alone = plane.points({0: {"fc": early}}, labels)
    assert alone[0].i_xt == 2


def test_kernel_density_takes_a_part_of_many_inputs(monkeypatch):
    monkeypatch.setattr(plane, "KERNEL_EXAMPLES", 16)
    t = 100 * np.arange(64.0)[:, None]
    (_, noisy) = plane.points({0: {"fc": t}}, np.zeros(64))
    assert noisy.i_xt == 4 and noisy.saturated


def made(layer="fc", xts=(5.0, 6, 5), step=10, saturated=(), estimator=BINNING):
    bins = 30 if estimator == BINNING else 0
    return [Point(layer, step * i, estimator, bins, xt, xt / 10, i in saturated) for i, xt in enumerate(xts)]


def test_curves_are_means_over_replicates():
    curve = plane.curves([made(), made(xts=(7, 8, 4), saturated=[1])], BINNING)["fc"]
    assert curve.steps.tolist() == [0, 10, 20]
    assert curve.i_xt.tolist() == [6, 7, 4.5] and curve.i_ty.tolist() == [0.6, 0.7, 0.45]
    assert curve.saturated.tolist() == [False, True, False]
    assert curve.fall == 2.5 and curve.name == "30 bins"


def both(layer, binned, noisy, saturated=()):
    one = made(layer, binned, saturated=saturated)
    return one + made(layer, noisy, estimator=KERNEL_DENSITY)


@pytest.fixture
def readable():
    """Layer fc1 saturates in the dense network only; fc2 in none, and is compressed in the ticket."""
    networks = {
        "dense": [both("fc1", (12, 12, 11), (9, 9, 8.9), [0, 1]) + both("fc2", (5, 6, 5.9), (3, 3, 3))],
        "ticket": [both("fc1", (11, 9, 8), (8, 7, 7), []) + both("fc2", (5, 6, 4), (3, 3, 3))],
    }
    return plane.readable(networks)


def test_a_layer_that_saturates_in_one_network_is_estimated_by_kernel_density_in_all(readable):
    estimators = {name: [c.estimator for c in curves.values()] for name, curves in readable.items()}
    assert estimators == dict.fromkeys(("dense", "ticket"), [KERNEL_DENSITY, BINNING])
    assert readable["dense"]["fc1"].i_xt.tolist() == [9, 9, 8.9]


def test_the_table_and_what_it_says(readable):
    lines = plane.table(readable).split("\n")
    assert lines[0].split() == "network layer estimate by I(X;T) start highest end I(T;Y) start end".split()
    assert lines[1].split() == "dense fc1 kernel density 9.00 9.00 8.90 0.90 0.89".split()
    assert lines[4].split() == "ticket fc2 30 bins 5.00 6.00 4.00 0.50 0.40".split()
    text = "\n".join(lines[5:])
    assert "kernel density, with noise of variance 0.1" in text and "* saturated" not in text
    assert "more than 0.5 bits below its highest:\n  dense: in no layer\n" in text
    assert "  ticket: fc1 (-1.00), fc2 (-2.00)\n" in text
    assert "depends on nonlinearity, bins and noise (Saxe et al., ICLR 2018)" in text
    assert max(map(len, lines)) <= 110


def test_what_is_saturated_is_marked_and_never_called_a_compression():
    curves = plane.curves([made(xts=(12, 8, 7), saturated=[0])], BINNING)
    assert plane.compressing(curves) == {} and curves["fc"].fall == 5
    text = plane.table({"dense": curves})
    assert "12.00*" in text and "8.00*" not in text and "* saturated: at the ceiling" in text
    assert "dense: in no layer" in text


def rows_of(saturated):
    layers = plane.curves([made("fc1", saturated=saturated) + made("output", (1, 2, 3))], BINNING)
    return {"binning": {"dense": layers, "ticket 20 %": layers}}


def test_saturated_points_of_the_plane_are_grey_and_hollow():
    figure = plot_plane(rows_of([0, 1]))
    dense, ticket = figure.axes[:2]
    assert (dense.get_title(), ticket.get_title()) == ("dense", "ticket 20 %")
    assert dense.get_xlabel() == "I(X;T) (bits)" and "I(T;Y) (bits)" in dense.get_ylabel()
    lost, read, none, output = dense.collections
    assert (
        lost.get_offsets().tolist() == [[5, 0.5], [6, 0.6]] and to_hex(lost.get_facecolor()[0]) == "#ffffff"
    )
    assert to_hex(lost.get_edgecolor()[0]) == "#aaaaaa"
    assert read.get_offsets().tolist() == [[5, 0.5]] and read.get_array().tolist() == [20]
    assert len(none.get_offsets()) == 0 and output.get_array().tolist() == [0, 10, 20]
    assert not np.array_equal(read.get_paths()[0].vertices, output.get_paths()[0].vertices)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["fc1", "output", "saturated: tells nothing"]
    assert figure.axes[-1].get_ylabel() == "training step"


def test_a_plane_without_saturation_says_nothing_of_it():
    legend = plot_plane(rows_of([])).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["fc1", "output"]


def test_information_against_the_step():
    axes = plot_training(rows_of([1])).axes[0]
    line, hollow = axes.get_lines()[:2]
    np.testing.assert_array_equal(line.get_ydata(), [5, np.nan, 5])
    assert hollow.get_xydata().tolist() == [[10, 6]] and hollow.get_markerfacecolor() == "white"
    assert axes.get_xscale() == "symlog"


# Below: the command.

TINY = [
    "--config.network.name=tanh:6,4",
    "--config.train.steps=30",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=2",
    "--config.controls=reinit,shuffle",
    "--config.control_levels=1",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Flavour -> a finished run."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        for flavour in FLAVOURS:
            made[flavour] = tmp_path_factory.mktemp(flavour)
            assert cli.main(["run", *TINY, f"--workdir={made[flavour]}", f"--config.flavour={flavour}"]) == 0
    return made


@pytest.fixture
def run(runs, keras, tmp_path, no_xla):
    return shutil.copytree(runs[keras.__name__], tmp_path / "run")


@pytest.fixture
def wrapped_run(runs, tmp_path, no_xla):
    return shutil.copytree(runs["tf_keras"], tmp_path / "run")


@pytest.fixture
def trained(monkeypatch):
    """Counts the networks that are trained from here on."""
    counted, train = [], Trainer._train
    monkeypatch.setattr(
        Trainer, "_train", lambda self, start: counted.append(start.arm) or train(self, start)
    )
    return counted


def look(run, capsys, *words):
    capsys.readouterr()
    assert cli.main(["infoplane", str(run), "--levels=0,1", "--points=6", "--examples=300", *words]) == 0
    return capsys.readouterr().out


def test_the_command_trains_again_bit_for_bit_and_only_once(run, trained, capsys):
    out = look(run, capsys)
    assert trained == ["ticket", "ticket", "reinit"]
    assert "X: 300 of 1,797 examples, so I(X;T) <= 8.23 and I(T;Y) <= H(Y) = 3.32 bits." in out
    assert "not to the same bits" not in out
    kept = run / "infoplane" / "6_points" / "replicate_1"
    for network in ("level_00/ticket", "level_01/ticket", "level_01/reinit"):
        ends = [files.read_tensors(root / network / "end.safetensors")[0] for root in (kept, run / kept.name)]
        assert ends[0].keys() == ends[1].keys()
        for path, array in ends[0].items():
            np.testing.assert_array_equal(array, ends[1][path])
    written = [run / "figures" / f"information_plane.{kind}" for kind in ("png", "svg")]
    bytes_before = [path.read_bytes() for path in (*written, run / "analysis" / "infoplane.csv")]
    trained.clear()
    # What was trained before is told too, as a run that goes on does.
    assert look(run, capsys) == out and trained == []
    assert [path.read_bytes() for path in (*written, run / "analysis" / "infoplane.csv")] == bytes_before


def test_what_the_command_writes(wrapped_run, capsys):
    out = look(wrapped_run, capsys, "--arms=ticket,reinit")
    with open(wrapped_run / "analysis" / "infoplane.csv") as file:
        rows = list(csv.DictReader(file))
    columns = "replicate level arm density layer step estimator bins i_xt i_ty saturated"
    assert list(rows[0]) == columns.split()
    steps = sorted({int(row["step"]) for row in rows})
    assert steps[0] == 0 and steps[-1] == 30 and len(steps) == 6
    # Three networks, six steps, three layers, two estimators.
    assert len(rows) == 3 * 6 * 3 * 2
    assert {(row["estimator"], row["bins"]) for row in rows} == {(BINNING, "30"), (KERNEL_DENSITY, "0")}
    for row in rows:
        assert 0 <= float(row["i_ty"]) <= float(row["i_xt"]) <= np.log2(300)
    names = [line.split()[0] for line in out.splitlines() if " fc1 " in line]
    assert names == ["dense", "ticket", "reinit"]
    last = [row for row in rows if (row["layer"], row["arm"], row["step"]) == ("output", "reinit", "30")]
    logs = wrapped_run / "tensorboard" / "analysis" / "infoplane" / "reinit_level_01"
    scalar = EventAccumulator(str(logs)).Reload().Scalars("information_about_labels/output")[-1]
    assert scalar.step == 30
    assert any(scalar.value == pytest.approx(float(row["i_ty"])) for row in last)


def test_an_end_that_is_not_the_run_s_is_told(wrapped_run):
    path = wrapped_run / "replicate_1" / "level_01" / "reinit" / "end.safetensors"
    tensors, described = files.read_tensors(path)
    tensors["fc1/kernel"] = tensors["fc1/kernel"] + np.float32(1e-6)
    files.write_tensors(path, tensors, described)
    text = infoplane.analyze(wrapped_run, levels=(1,), arms=("reinit",), points=3, examples=50).text
    assert re.search(r"Trained again, but not to the same bits .*: reinit [\d.]+ % of replicate 1\.$", text)


def test_by_default_the_levels_are_those_of_the_verdict(wrapped_run):
    findings = infoplane.analyze(wrapped_run, points=3, examples=50)
    level = verdict.judge(recorded.results(wrapped_run)).level or 2
    networks = {(row["level"], row["arm"]) for row in findings.rows}
    assert networks == {(0, "ticket"), (level, "ticket")} | ({(1, "reinit")} if level == 1 else set())
    assert set(findings.figures) == {"information_plane", "information_through_training"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--levels=0,7"], r"--levels must be in 0\.\.2, those of the run\. Received 7\."),
        (["--arms=renit"], r"Unknown arm 'renit'\. Did you mean 'reinit'\?"),
        (["--arms=shuffle", "--levels=2"], "The run has no network of --arms=shuffle at --levels=2"),
        (["--points=1"], r"--points must be 2 or more\. Received 1\."),
        (["--examples=0"], r"--examples must be 2 or more\. Received 0\."),
    ],
)
def test_what_cannot_be_looked_at(runs, words, message, capsys):
    assert cli.main(["infoplane", str(runs["keras"]), *words]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_steps_begin_and_end_with_the_training():
    assert infoplane._steps(0, 20, 4) == {0, 1, 4, 20}
    assert infoplane._steps(100, 120, 4) == {100, 101, 104, 120}
    assert infoplane._steps(0, 1, 40) == {0, 1}
    many = infoplane._steps(0, 20_000, 40)
    assert {0, 1, 20_000} <= many and 30 <= len(many) <= 40
