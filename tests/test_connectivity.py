"""Linear mode connectivity: lines with known barriers, batch statistics, and whole runs."""

import contextlib
import csv
import dataclasses
import io
import shutil
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tf_lottery
from tf_lottery import cli, files
from tf_lottery.analysis import connectivity, instability
from tf_lottery.analysis.connectivity import Path, path, relative_distance
from tf_lottery.analysis.figures.connectivity import plot_connectivity
from tf_lottery.analysis.instability import Pair
from tf_lottery.experiments.analyses import connectivity as analysis
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api import flavour, prunable
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.training.batch_norm import BatchStatistics
from tf_lottery.training.history import Result
from tf_lottery.training.loop import Loop
from tf_lottery.training.recorded import RunDirectoryError
from tf_lottery.training.trainer import Trainer


def line(*errors):
    return Path(np.linspace(0, 1, len(errors)), {"test_error": np.array(errors)})


@pytest.mark.parametrize(
    ("errors", "barrier"),
    [
        ((0.1, 0.1, 0.1), 0),
        ((0.1, 0.5, 0.3), 0.3),  # 0.5 - (0.1 + 0.3) / 2
        ((0.1, 0.2, 0.3), 0.1),  # the highest is an end: half of what they differ by
        ((0.3, 0.0, 0.3), 0),  # a valley is no barrier
    ],
)
def test_a_barrier_is_the_highest_point_above_the_mean_of_the_ends(errors, barrier):
    assert line(*errors).barrier("test_error") == pytest.approx(barrier)
    assert line(*errors).ends("test_error") == pytest.approx((errors[0] + errors[-1]) / 2)


def test_a_line_of_a_known_loss():
    # At a: w = 4a - 2, and w^2 is lowest in the middle; (w - 2)^2 rises all the way to the second.
    found = path(
        {"w": np.array([2.0])},
        {"w": np.array([-2.0])},
        lambda weights: {"even": weights["w"][0] ** 2, "odd": (weights["w"][0] - 2) ** 2},
        points=5,
    )
    assert found.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.curves["even"].tolist() == [4, 1, 0, 1, 4]
    assert found.curves["odd"].tolist() == [16, 9, 4, 1, 0]
    assert (found.barrier("even"), found.barrier("odd")) == (0, 8)


def test_what_both_ends_have_at_zero_stays_and_integers_are_not_interpolated():
    rng, seen = np.random.default_rng(0), []
    mask = rng.random((5, 4)) < 0.5
    first, second = (
        {"kernel": np.where(mask, rng.normal(size=(5, 4)), 0).astype(np.float32), "seed": np.array([n])}
        for n in (3, 8)
    )
    path(first, second, lambda weights: seen.append(weights) or {"loss": 0.0})
    assert len(seen) == 30
    for weights in seen:
        assert np.array_equal(weights["kernel"] != 0, mask)
        assert weights["kernel"].dtype == np.float32 and weights["seed"] == 3
    assert np.array_equal(seen[0]["kernel"], second["kernel"])
    assert np.array_equal(seen[-1]["kernel"], first["kernel"])


def test_lines_that_cannot_be_drawn():
    ends = {"w": np.zeros(2)}, {"w": np.ones(2)}
    with pytest.raises(ValueError, match="points must be 3 or more.*Received 2"):
        path(*ends, dict, points=2)
    with pytest.raises(ValueError, match=r"Received 'w' of shapes \(2,\) and \(3,\)"):
        path(ends[0], {"w": np.ones(3)}, dict)
    with pytest.raises(ValueError, match=r"Received 'v' of shapes None and \(2,\)"):
        path(ends[0], {"w": np.ones(2), "v": np.ones(2)}, dict)


def test_distances():
    start = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}

    def at(a, b):
        return {"a": np.array([a], np.float32), "b": np.array([b], np.float32), "bias": np.array([99.0])}

    assert relative_distance(start, at(3, 4), at(3, 4)) == 0
    assert relative_distance(start, at(1, 0), at(-1, 0)) == 2
    assert relative_distance(start, at(1, 0), at(0, 1)) == pytest.approx(np.sqrt(2))
    assert relative_distance(start, at(2, 0), at(4, 0)) == pytest.approx(2 / 3)
    assert np.isnan(relative_distance(start, at(0, 0), at(0, 0)))


def pair(level, density, *errors, arm="ticket", step=0, orders=(1, 2), replicate=1, accuracies=(0.9, 0.9)):
    results = tuple(
        Result(replicate, level, f"{arm}_order_{order}", density, 10, accuracy, 0.1, accuracy, accuracy, 20)
        for order, accuracy in zip(orders, accuracies, strict=True)
    )
    curves = {name: np.array(errors) for name in ("test_error", "train_error", "test_loss", "train_loss")}
    return Pair(arm, step, orders, results, Path(np.linspace(0, 1, len(errors)), curves), 0.5)


PAIRS = [
    # Rises of 0.01 and 0.02 on average 0.015, of 0.03 and 0.05 0.04.
    pair(0, 1.0, 0.10, 0.11, 0.10),
    pair(0, 1.0, 0.10, 0.12, 0.10, orders=(1, 3)),
    pair(1, 0.5, 0.10, 0.10, 0.10, accuracies=(0.8985, 0.9)),
    pair(2, 0.25, 0.10, 0.13, 0.10, accuracies=(0.89, 0.9)),
    pair(2, 0.25, 0.10, 0.15, 0.10, orders=(1, 3), accuracies=(0.89, 0.9)),
]


def test_pairs_are_stable_below_2_points_and_matching_within_2_tenths():
    (levels,) = instability.gathered(PAIRS).values()
    assert [same.instability for same in levels.values()] == pytest.approx([0.015, 0, 0.04])
    assert [same.stable for same in levels.values()] == [True, True, False]
    assert not instability.gathered([pair(0, 1.0, 0.5, 0.52, 0.5)])["ticket", 0][0].stable
    # Copies 1, 2 at level 1 reach 0.89925 on average, those of the dense network 0.9.
    assert instability.matching_levels(instability.gathered(PAIRS), "ticket", 0) == [1]
    assert instability.matching_levels(instability.gathered(PAIRS[2:]), "ticket", 0) is None


def test_the_table_and_what_it_says():
    text = instability.table(PAIRS)
    cells = [text.splitlines()[n].split() for n in (2, 3, 4)]
    assert cells[0] == ["0", "100.00", "10.00", "1.50", "[2.00]", "1.50", "0.0150", "50", "yes", "-"]
    assert cells[1][3:] == ["0.00", "0.00", "0.0000", "50", "yes", "yes"]
    assert cells[2][-2:] == ["no", "no"]
    assert text.splitlines()[-2:] == [
        "From step 0, arm ticket: stable at levels 0-1 (100 to 50 % kept); not stable at level 2 "
        "(25 % kept); matching at level 1 (50 % kept).",
        "The dense network is stable from step 0 on.",
    ]
    assert max(map(len, text[: text.index("\n\n")].splitlines())) <= 110


def test_from_which_step_on_the_dense_network_is_stable():
    def said(*rises):
        pairs = [pair(0, 1.0, 0.1, 0.1 + rise, 0.1, step=step) for step, rise in enumerate(rises)]
        return instability.table(pairs).splitlines()[-1]

    assert said(0.5, 0, 0) == "The dense network is stable from step 1 on, of steps 0, 1, 2."
    assert said(0, 0.5, 0) == "The dense network is stable from step 2 on, of steps 0, 1, 2."
    assert said(0, 0.5) == "The dense network is not stable yet at step 1, of steps 0, 1."
    assert said(0) == "The dense network is stable from step 0 on."


def test_what_is_unstable_is_dashed():
    figure = plot_connectivity(PAIRS)
    lines, _, last = figure.axes  # between them, the bar of colors
    assert [drawn.get_linestyle() for drawn in lines.get_lines()] == ["-", "-", "--"]
    assert lines.get_lines()[2].get_ydata() == pytest.approx([10, 14, 10])
    assert last.get_lines()[0].get_ydata() == pytest.approx([1.5, 0, 4])
    for steps in (2, 5):  # more than there is room for in a row
        pairs = [dataclasses.replace(one, rewind_step=step) for one in PAIRS for step in range(steps)]
        assert len(plot_connectivity(pairs).axes) == steps + 2
    with pytest.raises(ValueError, match="at least one pair"):
        plot_connectivity([])


@pytest.fixture
def normalized(keras):
    """A convolution, BatchNorm, BatchNorm after a dense layer, one that is frozen, and its inputs."""
    layers = keras.layers
    frozen = layers.BatchNormalization(name="frozen")
    frozen.trainable = False
    model = keras.Sequential(
        [
            layers.Input((4, 4, 1)),
            layers.Conv2D(3, 3, name="conv"),
            layers.BatchNormalization(momentum=0.7, name="bn1"),
            layers.Flatten(),
            layers.Dense(5, name="fc"),
            layers.BatchNormalization(name="bn2"),
            frozen,
        ]
    )
    return model, np.random.default_rng(0).normal(2, 3, (23, 4, 4, 1)).astype(np.float32)


def test_batch_statistics_are_those_by_hand(normalized):
    model, x = normalized
    variables = {path: slot.variable for path, slot in prunable.slots(model).items()}
    before = {path: variable.numpy() for path, variable in variables.items()}
    BatchStatistics(model, x, 5).estimate()
    after = {path: variable.numpy() for path, variable in variables.items()}
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {f"bn{n}/moving_{what}" for n in (1, 2) for what in ("mean", "variance")}

    kernel = before["conv/kernel"][:, :, 0]
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 3), axis=(1, 2))
    batches = [np.einsum("nhwij,ijc->nhwc", windows[i : i + 5], kernel) for i in range(0, 20, 5)]
    # TensorFlow's fused layer, which only tf_keras has, takes the unbiased variance of its 5 x 2 x 2 values.
    unbiased = 20 / 19 if flavour.flavour_of(model) == "tf_keras" else 1
    check(after, "bn1", [b.reshape(-1, 3) for b in batches], unbiased)
    means, variances = zip(*[(b.mean((0, 1, 2)), b.var((0, 1, 2))) for b in batches], strict=True)
    hidden = [
        ((b - mean) / np.sqrt(variance + 1e-3)).reshape(5, -1) @ before["fc/kernel"]
        for b, mean, variance in zip(batches, means, variances, strict=True)
    ]
    check(after, "bn2", hidden, 1)
    # Once more, from what is there now: nothing of it is left.
    BatchStatistics(model, x, 5).estimate()
    assert all(np.array_equal(variable.numpy(), after[name]) for name, variable in variables.items())


def check(after, name, batches, factor):
    """Statistics are the means over the batches of those of each, at whatever momentum."""
    means = np.mean([batch.mean(0) for batch in batches], axis=0)
    variances = np.mean([batch.var(0) for batch in batches], axis=0)
    np.testing.assert_allclose(after[f"{name}/moving_mean"], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[f"{name}/moving_variance"], factor * variances, rtol=1e-4)


def test_a_model_without_batch_norm_has_nothing_to_estimate(make_model, data):
    model = make_model()
    before = model.get_weights()
    BatchStatistics(model, data[0], 60).estimate()
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.fixture(scope="module")
def made(keras_name, tmp_path_factory):
    """A finished run of two replicates that rewinds to step 10."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    words = ["run", f"--workdir={workdir}", f"--config.flavour={keras_name}", "--config.network.name=mlp:16"]
    words += [
        "--config.train.steps=40",
        "--config.train.eval_every_steps=20",
        "--config.prune.rewind_step=10",
    ]
    words += ["--config.prune.levels=1", "--config.prune.fraction=0.5", "--config.replicates=2"]
    with without_xla():
        assert cli.main(words) == 0
    return workdir


@pytest.fixture(scope="module", params=flavour.FLAVOURS)
def keras_name(request):
    return request.param


@pytest.fixture(scope="module")
def looked_at(made, tmp_path_factory):
    """The run after the command, and what that has printed."""
    run, out = shutil.copytree(made, tmp_path_factory.mktemp("runs") / "run"), io.StringIO()
    with without_xla(), contextlib.redirect_stdout(out):
        assert cli.main([*COMMAND, str(run)]) == 0
    return run, out.getvalue()


COMMAND = ["connectivity", "--points=5", "--orders=3"]


@contextlib.contextmanager
def without_xla():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        yield


@pytest.fixture
def run(made, tmp_path, no_xla):
    return shutil.copytree(made, tmp_path / "run")


def tensors(folder, name):
    return files.read_tensors(folder / f"{name}.safetensors")[0]


def copy_of(run, replicate, level, order, arm="ticket", step=10):
    folder = run / "connectivity" / f"rewind_step_{step}" / f"replicate_{replicate}"
    return folder / f"level_{level:02d}" / f"{arm}_order_{order}"


def rows_of(run):
    with open(run / "analysis" / "connectivity.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_from_the_command_line(looked_at):
    run, out = looked_at
    assert f"14 networks to train, to be kept in {run / 'connectivity'}." in out  # 2 x (2 x 3 + 1)
    assert "From step 10, arm ticket: stable at level" in out
    rows = rows_of(run)
    assert len(rows) == 2 * 2 * 3 * 5
    assert {row["rewind_step"] for row in rows} == {"10"}
    # Each line has the copies' own errors at its ends.
    for row in rows:
        if float(row["alpha"]) in (0, 1):
            order = row["pair"].split("-")[1 - int(float(row["alpha"]))]
            folder = copy_of(run, int(row["replicate"]), int(row["level"]), order)
            accuracy = files.read_json(folder / "result.json")["final_test_accuracy"]
            assert float(row["test_error"]) == pytest.approx(1 - accuracy, abs=1e-6)
    assert (run / "figures" / "connectivity.svg").is_file()
    logs = run / "tensorboard" / "analysis" / "connectivity" / "ticket_from_step_10"
    assert len(EventAccumulator(str(logs)).Reload().Scalars("connectivity/instability")) == 2


def test_a_second_call_trains_nothing_and_finds_the_same(looked_at, capsys, monkeypatch, no_xla):
    run, out = looked_at
    rows = rows_of(run)
    monkeypatch.setattr(Loop, "train", None)
    assert cli.main([*COMMAND, str(run)]) == 0
    again = capsys.readouterr().out
    assert again.startswith("arm ticket") and again in out
    assert rows_of(run) == rows


def test_copies_start_where_the_tickets_do_and_end_apart(looked_at):
    run, _ = looked_at
    for level in (0, 1):
        ticket = run / "replicate_2" / f"level_{level:02d}" / "ticket"
        folders = [copy_of(run, 2, level, order) for order in (1, 2, 3)]
        if level:  # the run's dense network starts at step 0
            theirs = tensors(ticket, "start")
            for ours in (tensors(folder, "start") for folder in folders):
                assert ours.keys() == theirs.keys()
                assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
        for name, mask in tensors(ticket, "mask").items():
            ends = [tensors(folder, "end")[name] for folder in folders]
            assert not any(map(np.array_equal, ends, ends[1:] + ends[:1]))
            assert not any(end[~mask].any() for end in ends)


def test_one_order_is_one_network_and_others_are_others(run):
    experiment = Experiment.of_run(run)
    start = next(experiment.finished(experiment.directory(run).replicate(1))).start
    orders = [("order", 1), ("order", 1), ("order", 2)]
    one, again, other = (experiment.train(start, 1, order=order).final for order in orders)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one)


def test_a_call_that_was_stopped_goes_on(run, looked_at, capsys, monkeypatch):
    train, calls = Trainer._train, []

    def stopped(self, start):
        calls.append(start)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(self, start)

    monkeypatch.setattr(Trainer, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        analysis.analyze(run, points=5)
    capsys.readouterr()
    found = analysis.analyze(run, points=5)
    assert "6 networks to train" in capsys.readouterr().out  # of 10, of which 4 are done
    assert len(calls) == 5 + 6
    uninterrupted = [row for row in rows_of(looked_at[0]) if row["pair"] == "1-2"]
    assert [{name: str(value) for name, value in row.items()} for row in found.rows] == uninterrupted


def test_controls_have_their_own_weights(run):
    found = analysis.analyze(run, arms=("reinit",), levels=(1,), rewind_steps=(0, 20), points=3)
    assert {(row["arm"], row["level"], row["rewind_step"]) for row in found.rows} == {
        ("reinit", 1, step) for step in (0, 20)
    }
    assert "arm reinit: " in found.text and "dense network" not in found.text
    theirs = tensors(run / "replicate_1" / "level_01" / "reinit", "start")
    ours = tensors(copy_of(run, 1, 1, 1, "reinit", 0), "start")
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    # At step 20, it is they that were trained whole, and then masked.
    whole = tensors(copy_of(run, 1, 1, 1, "reinit", 20).with_name("reinit_dense"), "end")
    ours = tensors(copy_of(run, 1, 1, 1, "reinit", 20), "start")
    for name, mask in tensors(run / "replicate_1" / "level_01" / "reinit", "mask").items():
        assert not np.array_equal(whole[name][mask], theirs[name][mask])
        assert np.array_equal(ours[name], np.where(mask, whole[name], 0))


def test_between_networks_of_different_inits_the_barrier_is_ten_times_higher(tmp_path, no_xla):
    workdir = tmp_path / "run"
    words = ["--config.prune.levels=0", "--config.train.steps=200", "--config.replicates=2"]
    assert cli.main(["run", *words, "--config.network.name=mlp:100", f"--workdir={workdir}"]) == 0
    found = analysis.analyze(workdir, points=11)
    same = [row["loss_barrier"] for row in found.rows]
    experiment = Experiment.of_run(workdir)
    ends = [next(experiment.finished(experiment.directory(workdir).replicate(n))).final for n in (1, 2)]
    different = path(*ends, analysis._Evaluation(experiment), 11).barrier("test_loss")
    assert max(same) < 0.05 and different > 10 * max(same) and different > 0.3
    assert max(row["instability"] for row in found.rows) < connectivity.STABLE


def test_statistics_are_estimated_at_each_point(make_model, data):
    train = types.SimpleNamespace(batch_size=60)
    experiment = types.SimpleNamespace(
        model=MaskedModel(make_model(batch_norm=True)),
        data=types.SimpleNamespace(train=data, test=tuple(part[:50] for part in data)),
        config=types.SimpleNamespace(seed=0, train=train),
    )
    evaluate = analysis._Evaluation(experiment)
    weights = experiment.model.state()
    found = evaluate(weights)
    assert found.keys() == {"test_error", "test_loss", "train_error", "train_loss"}
    state = experiment.model.state()
    hidden = np.maximum(data[0] @ weights["fc1/kernel"], 0)  # without its bias, which is 0
    # Batches of any order hold all 240 examples: their means have the mean of all.
    np.testing.assert_allclose(state["bn1/moving_mean"], hidden.mean(0), rtol=1e-4)
    assert np.array_equal(state["fc1/kernel"], weights["fc1/kernel"])
    # What was there before makes no difference.
    assert evaluate({**weights, "bn1/moving_mean": weights["bn1/moving_mean"] + 5}) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewind_steps": (0, 40)}, r"rewind_steps must be in \[0, 40\), .*Received 40"),
        ({"rewind_steps": (-1,)}, "Received -1"),
        ({"levels": (1, 3)}, "no trained network of arm ticket at level 3. There are levels: 0, 1"),
        ({"arms": ("reinti",)}, "Unknown arm 'reinti'. Did you mean 'reinit'"),
        ({"orders": 1}, "orders must be 2 or more. Received 1"),
        ({"points": 2}, "points must be 3 or more. Received 2"),
    ],
)
def test_what_cannot_be_looked_at(made, options, message):
    with pytest.raises(ValueError, match=message):
        analysis.analyze(made, **options)


def test_a_run_without_networks(made, tmp_path):
    shutil.copy(made / "config.json", tmp_path)
    assert analysis.analyze(tmp_path).text == "No network is trained yet."


def test_what_find_ticket_wrote_is_refused(tmp_path, make_model, data, no_xla):
    tf_lottery.find_ticket(make_model(), *data, levels=0, steps=1, workdir=tmp_path, verbose=0)
    with pytest.raises(RunDirectoryError, match="was written by find_ticket"):
        analysis.analyze(tmp_path)
