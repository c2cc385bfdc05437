"""What masks and weights look like: graphs, signs, ranks, gradients; and a run's arms side by side."""

import contextlib
import csv
import dataclasses
import io
import math
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tf_lottery
from tf_lottery import cli
from tf_lottery.analysis import graphs, structure, structure_table
from tf_lottery.analysis.figures.structure import plot_structure
from tf_lottery.analysis.structure_table import Compared
from tf_lottery.experiments import networks
from tf_lottery.experiments.analyses import structure as analyses
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api import flavour, tfmot_wrappers
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.network import KerasNetwork
from tf_lottery.training import recorded
from tf_lottery.training.history import Result

ARMS = ("ticket", "reinit", "random_ticket")


def bools(*rows):
    return np.array(rows) == 1


def dense(*widths):
    return {f"fc{i}": np.ones(shape, bool) for i, shape in enumerate(zip(widths, widths[1:]))}


def random_kernel(rng, shape, kept):
    return rng.permutation(np.arange(math.prod(shape)) < kept).reshape(shape)


# Paths and dead units


def test_paths_are_counted():
    # To the hidden units lead 1, 2 and 1 paths; from them go 1, 1 and 0.
    mask = {"fc": bools([1, 1, 0], [0, 1, 1]), "output": bools([1], [1], [0])}
    assert graphs.log10_paths(mask) == pytest.approx(math.log10(3))
    assert graphs.log10_paths(dense(784, 300, 100, 10)) == pytest.approx(math.log10(784 * 300 * 100 * 10))
    # 100 to the power of 201, which no float holds.
    assert graphs.log10_paths(dense(*[100] * 201)) == pytest.approx(402)
    assert graphs.log10_paths({"fc": bools([1, 0]), "output": bools([0], [1])}) == -math.inf


def test_paths_go_through_windows_and_flattened_images():
    # One input channel, two filters with 4 and 9 kept weights, an image of 2 x 2 places, one class.
    conv = np.ones((3, 3, 1, 2), bool)
    conv[:, :, 0, 0].flat[4:] = False
    output = np.zeros((8, 1), bool)
    output[[0, 2, 7]] = True  # the first filter at two places, the second at one
    assert graphs.log10_paths({"conv": conv, "output": output}) == pytest.approx(math.log10(2 * 4 + 9))
    output[7] = False
    units = graphs.find_units({"conv": conv, "output": output})["conv"]
    assert units.dead.tolist() == [False, True]


def test_filters_of_a_depthwise_convolution_see_their_own_channel():
    # Three channels, two filters each; the second channel has no weight left.
    depthwise = np.ones((2, 2, 3, 2), bool)
    depthwise[:, :, 1] = False
    mask = {"dw/depthwise_kernel": depthwise, "output": np.ones((6, 1), bool)}
    assert graphs.find_units(mask)["dw/depthwise_kernel"].reached.tolist() == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert graphs.log10_paths(mask) == pytest.approx(math.log10(4 * 4))


def test_a_unit_fed_only_by_a_dead_unit_is_dead():
    mask = {
        "fc1": bools([1, 0, 1], [1, 0, 0]),  # nothing goes into the second unit
        "fc2": bools([1, 0, 0], [0, 1, 0], [0, 0, 1]),
        "output": bools([1], [1], [0]),  # nothing comes out of the third unit
    }
    units = graphs.find_units(mask)
    assert units["fc1"].reached.tolist() == [True, False, True]
    assert units["fc1"].heard.tolist() == [True, True, False]
    assert units["fc2"].reached.tolist() == [True, False, True]
    assert units["fc2"].heard.tolist() == [True, True, False]
    assert units["fc1"].dead.tolist() == units["fc2"].dead.tolist() == [False, True, True]
    assert units["output"].reached.tolist() == [True]


def test_what_is_no_chain_is_refused():
    mask = {"a": np.ones((2, 3), bool), "b": np.ones((4, 2), bool)}
    assert not graphs.is_chain(mask)
    with pytest.raises(ValueError, match=r"kernels in a chain.* Received: a \(2, 3\), b \(4, 2\)\."):
        graphs.log10_paths(mask)
    with pytest.raises(ValueError, match="Received: none"):
        graphs.find_units({})
    assert graphs.is_chain(dense(4, 3, 2)) and not graphs.is_chain({"a": np.ones(3, bool)})


# Degrees


def test_degrees_by_hand():
    kept = bools([1, 1, 0], [1, 0, 0])
    units, inputs = graphs.degrees(kept, axis=0), graphs.degrees(kept, axis=1)
    # Units have 2, 1, 0 weights. Of 6 weights 3 are kept, and 2 are a unit's: 2 (1/2) (1/2) 4/5.
    assert dataclasses.astuple(units) == pytest.approx((3, 1, 2 / 3, 0.4))
    assert units.times_random == pytest.approx(5 / 3)
    assert units.variation == pytest.approx(math.sqrt(2 / 3))
    # Inputs have 2, 1: 3 (1/2) (1/2) 3/5.
    assert dataclasses.astuple(inputs) == pytest.approx((2, 1.5, 0.25, 0.45))
    for empty in (np.zeros((2, 3), bool), np.ones((2, 3), bool)):
        assert math.isnan(graphs.degrees(empty, 0).times_random)
    assert math.isnan(graphs.degrees(np.zeros((2, 3), bool), 0).variation)


@pytest.mark.parametrize("axis", [0, 1])
def test_random_masks_have_the_variance_of_random_masks(axis):
    rng = np.random.default_rng(0)
    ratios = [graphs.degrees(random_kernel(rng, (30, 20), 120), axis).times_random for _ in range(400)]
    # A ratio scatters by sqrt(2 / 20) at most, their mean by a twentieth of that.
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)


def test_random_masks_have_the_paths_of_random_masks():
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(100):
        mask = {"fc1": random_kernel(rng, (20, 15), 60), "fc2": random_kernel(rng, (15, 4), 30)}
        weights = {path: np.ones(kept.shape) for path, kept in mask.items()}
        looks = structure.measure(mask, weights, weights)
        ratios.append(looks.network.paths_times_random)
        assert looks.network.path_share == pytest.approx(10**looks.network.log10_paths / (20 * 15 * 4))
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)  # more than three standard errors


# The spectral gap


def cycle(n):
    """The mask whose graph is a cycle of 2 n nodes."""
    return (np.eye(n) + np.roll(np.eye(n), 1, axis=1)) > 0


def test_gaps_that_are_known():
    assert graphs.spectral_gap(np.ones((5, 3), bool)) == pytest.approx(1)
    for n in (3, 8, 21):
        # The adjacency of a cycle of 2 n nodes has the eigenvalues 2 cos(pi k / n); each degree is 2.
        assert graphs.spectral_gap(cycle(n)) == pytest.approx(1 - math.cos(math.pi / n))
    # A path of three nodes has the eigenvalues 1, 0, -1, as every star.
    assert graphs.spectral_gap(np.ones((2, 1), bool)) == 1
    # A path of four nodes is normalized to [[1/2, 1/sqrt 2], [1/sqrt 2, 0]]: sigma_1 = 1 and |det| = 1/2.
    assert graphs.spectral_gap(bools([1, 1], [0, 1])) == pytest.approx(1 / 2)


def test_a_layer_in_pieces_has_no_gap():
    blocks = np.kron(np.eye(2), np.ones((3, 2))) > 0
    assert graphs.components(blocks) == 2
    assert graphs.spectral_gap(blocks) == 0
    joined = blocks.copy()
    joined[0, -1] = True
    assert graphs.components(joined) == 1
    assert 0 < graphs.spectral_gap(joined) < 0.5


def test_nodes_without_weights_are_left_out_of_the_graph():
    padded = np.pad(cycle(5), ((1, 2), (0, 3)))
    assert graphs.components(padded) == 1
    assert graphs.spectral_gap(padded) == pytest.approx(graphs.spectral_gap(cycle(5)))
    nothing = np.zeros((3, 2), bool)
    assert graphs.components(nothing) == 0
    assert math.isnan(graphs.spectral_gap(nothing))


# Signs, ranks, gradients


def test_signs_of_kept_weights_are_compared():
    mask = bools([1, 1, 1], [1, 0, 0])
    start, end = np.array([[1.0, -1, 2], [0, 5, 5]]), np.array([[3.0, -0.1, -2], [1, -5, -5]])
    assert structure.sign_agreement(mask, start, end) == 0.5
    assert math.isnan(structure.sign_agreement(np.zeros((2, 3), bool), start, end))


def test_effective_ranks_that_are_known():
    assert structure.effective_rank(np.eye(7)) == pytest.approx(7)
    assert structure.effective_rank(np.outer([1.0, 2, 3], [4.0, 5])) == pytest.approx(1)
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert structure.effective_rank(np.array([[0, 3.0, 0], [-1, 0, 0]])) == pytest.approx(expected)
    assert structure.effective_rank(np.zeros((3, 2))) == 0
    assert math.isnan(structure.effective_rank(np.array([[1.0, math.nan]])))


def test_the_gradient_norm_is_that_of_a_softmax_model_by_hand(keras):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(0, 3, 30)
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(3, name="output")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    masked = MaskedModel(model)
    (path,) = masked.shapes
    mask = {path: rng.random((5, 3)) < 0.5}
    network = KerasNetwork(masked, (x, y), key=(0, 1), steps=1, batch_size=10)
    weights = network_weights(masked.state())
    gradient = network.gradient(weights, mask, 30)
    likely = np.exp(x @ (weights[path] * mask[path]))
    likely /= likely.sum(1, keepdims=True)
    by_hand = x.T @ (likely - np.eye(3)[y]) / 30
    expected = math.sqrt((by_hand**2)[mask[path]].sum())
    assert structure.gradient_norm(mask[path], gradient[path]) == pytest.approx(expected, rel=1e-5)
    looks = structure.measure(mask, weights, weights, gradient)
    assert looks.network.gradient_norm == pytest.approx(expected, rel=1e-5)


# A whole network


def test_a_network_is_its_layers_together():
    mask = {"fc": bools([1, 1, 0], [1, 0, 0]), "output": bools([1, 1], [0, 0], [0, 1])}
    start = {"fc": np.ones((2, 3)), "output": np.array([[1.0, -1], [1, 1], [1, 1]]), "bias": np.ones(3)}
    end = {"fc": np.ones((2, 3)), "output": -np.ones((3, 2)), "bias": np.ones(3)}
    gradient = {"fc": np.full((2, 3), 2.0), "output": np.full((3, 2), 1.0)}
    looks = structure.measure(mask, start, end, gradient)
    network, fc, output = looks.network, looks.layers["fc"], looks.layers["output"]
    assert (network.weights, network.kept, network.hidden_units) == (12, 6, 3)
    # The second unit is not heard, the third not reached.
    assert (network.dead_units, network.cut_from_input, network.cut_from_output) == (2, 1, 1)
    assert (fc.dead_units, fc.hidden_units, output.hidden_units) == (2, 3, 0)
    assert math.isnan(output.dead_units) and math.isnan(fc.log10_paths)
    # Through the first unit go 2 x 2 paths, of the dense network's 12; random masks have 12 / 4 of them.
    assert network.log10_paths == pytest.approx(math.log10(4))
    assert network.path_share == pytest.approx(4 / 12)
    assert network.paths_times_random == pytest.approx(4 / 3)
    assert network.sign_agreement == pytest.approx((3 + 1) / 6)
    assert fc.gradient_norm == pytest.approx(math.sqrt(12))
    assert network.gradient_norm == pytest.approx(math.sqrt(12 + 3))
    assert network.in_degree_mean == pytest.approx(6 / 5)
    # Three units with variance 2/3 and two with 1/4, over 0.4 and 3 (1/2) (1/2) 3/5.
    ratio = (3 * 2 / 3 + 2 * 1 / 4) / (3 * 0.4 + 2 * 0.45)
    assert network.in_degree_times_random == pytest.approx(ratio)
    assert network.components == fc.components + output.components == 2
    assert network.spectral_gap == pytest.approx((fc.spectral_gap + output.spectral_gap) / 2)
    assert fc.effective_rank_end == pytest.approx(structure.effective_rank(mask["fc"]))


def test_an_empty_layer_and_a_network_with_shortcuts():
    mask = {"fc": np.zeros((2, 3), bool), "output": np.ones((3, 2), bool)}
    weights = {path: np.ones(kept.shape) for path, kept in mask.items()}
    network = structure.measure(mask, weights, weights).network
    assert (network.dead_units, network.log10_paths, network.path_share) == (3, -math.inf, 0)
    assert network.paths_times_random == 0
    assert network.spectral_gap == pytest.approx(1)  # of the layer that has one
    for shortcuts in (
        structure.measure(mask, weights, weights, chain=False),
        structure.measure({"a": mask["fc"], "b": mask["fc"]}, *[dict.fromkeys("ab", weights["fc"])] * 2),
    ):
        assert shortcuts.network.hidden_units == 0
        assert math.isnan(shortcuts.network.dead_units) and math.isnan(shortcuts.network.log10_paths)


# The table


def compared(arm, replicate=1, level=1, **values):
    result = Result(replicate, level, arm, 0.25, 40, 0.9, 0.1, 0.9, 0.9, 100)
    return Compared.of(result, structure.Quantities(weights=8, kept=2, hidden_units=4, **values))


def test_the_table_of_a_level():
    rows = [
        compared("ticket", dead_units=1, sign_agreement=0.5),
        compared("ticket", 2, dead_units=2, sign_agreement=0.5),
        compared("shuffle", dead_units=0, sign_agreement=0.5),
    ]
    assert structure_table.table(rows) == "\n".join(
        [
            "Level 1: 25 % of the weights, 4 hidden units",
            "                                   ticket  shuffle",
            "test acc %            90.00 [90.00 90.00]    90.00",
            "early stop                     40 [40 40]       40",
            "dead units                      1.5 [1 2]        0",
            "connected components                    0        0",
            "sign agreement %                     50.0     50.0",
            "Means over 1 to 2 replicates, [lowest highest].",
        ]
    )


def test_the_sentence_names_what_is_outside_the_range_of_random_masks():
    rows = [
        compared("ticket", dead_units=3, sign_agreement=0.9, spectral_gap=0.1, gradient_norm=1.0),
        compared("ticket", 2, dead_units=2, sign_agreement=0.8, spectral_gap=0.2, gradient_norm=1.0),
        compared("shuffle", dead_units=1, sign_agreement=0.9, spectral_gap=0.4),
        compared("random_ticket_2", dead_units=1, sign_agreement=0.7, spectral_gap=0.3),
        compared("reinit", dead_units=9, sign_agreement=0.1, spectral_gap=0.15),
    ]
    assert structure_table.sentence(rows).splitlines() == [
        "The ticket beside all 2 networks with a random mask (random_ticket_2, shuffle):",
        "  higher:         dead units",
        "  lower:          spectral gap",
        "  not told apart: connected components, sign agreement %",
    ]
    assert structure_table.sentence(rows[:2]) == structure_table.sentence(rows[2:]) == ""
    assert "beside the network with" in structure_table.sentence(rows[:3])


def test_the_figure_has_what_the_networks_have():
    rows = [
        compared("ticket", level=0, sign_agreement=0.8, spectral_gap=1.0),
        compared("ticket", sign_agreement=0.9, spectral_gap=0.5),
        compared("reinit", sign_agreement=0.6, spectral_gap=0.5),
        compared("shuffle", sign_agreement=0.7, spectral_gap=0.4),
    ]
    figure = plot_structure(rows)
    titles = ["Test accuracy at early stop", "Spectral gap", "Signs kept through training"]
    assert [axes.get_title() for axes in figure.axes] == titles
    gap, signs = figure.axes[1:]
    assert gap.get_legend_handles_labels()[1] == [
        "ticket",
        "shuffle",
        "dense",
        "without a line: as the ticket",
    ]
    assert signs.get_legend_handles_labels()[1] == ["ticket", "reinit", "shuffle", "dense"]


# Runs


@pytest.fixture(scope="module", params=flavour.FLAVOURS)
def run(request, tmp_path_factory):
    """A finished run with arms that have the ticket's mask and a random one, and what was said of it."""
    folder, out = tmp_path_factory.mktemp(request.param), io.StringIO()
    words = ["--config.network.name=mlp:16", "--config.train.steps=20", "--config.train.eval_every_steps=10"]
    words += ["--config.prune.levels=2", "--config.controls=reinit,random_ticket"]
    words += [f"--config.flavour={request.param}", f"--workdir={folder}"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        assert cli.main(["run", *words]) == 0
        out.truncate(0)
        assert cli.main(["structure", str(folder), "--levels=2,1", "--examples=100000"]) == 0
    return folder, out.getvalue()


def read_rows(folder):
    with open(folder / "analysis" / "structure.csv", newline="") as file:
        return {(int(row["level"]), row["arm"], row["layer"]): row for row in csv.DictReader(file)}


def test_a_run_with_a_random_mask(run):
    folder, out = run
    assert out.index("Level 2: ") < out.index("Level 1: ")
    assert out.count("The ticket beside the network with a random mask (random_ticket):") == 2
    assert "left out" not in out and "To add" not in out
    assert (folder / "figures" / "structure.svg").is_file()
    rows = read_rows(folder)
    layers = ["fc1/kernel", "output/kernel", ""]
    trained = [(0, "ticket")] + [(level, arm) for level in (1, 2) for arm in ARMS]
    assert set(rows) == {(*network, layer) for network in trained for layer in layers}
    assert rows[0, "ticket", ""]["dead_units"] == "0"
    assert rows[0, "ticket", "output/kernel"]["dead_units"] == ""
    for layer in layers:
        ticket, reinit, random = (rows[2, arm, layer] for arm in ARMS)
        assert ticket["density"] == reinit["density"] == random["density"]
        assert ticket["spectral_gap"] == reinit["spectral_gap"] != random["spectral_gap"]
    logs = EventAccumulator(str(folder / "tensorboard" / "analysis" / "structure" / "reinit")).Reload()
    events = logs.Scalars("structure/gradient_norm")
    assert [event.step for event in events] == [1, 2]
    assert events[1].value == pytest.approx(float(rows[2, "reinit", ""]["gradient_norm"]), rel=1e-5)


def test_gradients_of_a_run_are_those_before_training(run):
    folder, _ = run
    x, y = Experiment.of_run(folder).data.train
    x, rows = np.reshape(x, (len(x), -1)).astype(np.float64), read_rows(folder)
    for network in recorded.networks(folder):
        start, level, arm = network.start(), network.result.level, network.result.arm
        hidden = np.maximum(x @ start["fc1/kernel"] + start["fc1/bias"], 0)
        likely = np.exp(hidden @ start["output/kernel"] + start["output/bias"])
        errors = likely / likely.sum(1, keepdims=True) - np.eye(10)[y]
        gradients = {
            "fc1/kernel": x.T @ ((errors @ start["output/kernel"].T) * (hidden > 0)) / len(x),
            "output/kernel": hidden.T @ errors / len(x),
        }
        for path, mask in network.mask().items():
            expected = np.linalg.norm(gradients[path][mask])
            assert float(rows[level, arm, path]["gradient_norm"]) == pytest.approx(expected, rel=1e-4)


def test_levels_and_random_masks_that_the_run_does_not_have(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    with pytest.raises(ValueError, match=r"levels are some of 0, 1, 2\. Received: 7\."):
        analyses.analyze(folder, levels=(1, 7))
    shutil.rmtree(folder / "replicate_1" / "level_02" / "random_ticket")
    text = analyses.analyze(folder, levels=(0, 2), examples=1).text
    assert "Not every level has an arm with a random mask to hold tickets against: --levels=1 have." in text
    shutil.rmtree(folder / "replicate_1" / "level_01" / "random_ticket")
    text = analyses.analyze(folder, levels=(1,), examples=1).text
    assert "'tf-lottery run' again, with --config.controls=reinit,shuffle,random_ticket." in text
    shutil.rmtree(folder / "replicate_1")
    assert analyses.analyze(folder).text == "No network is trained yet."


def test_find_ticket_keeps_no_data(make_model, data, tmp_path, no_xla):
    x, y = data
    tf_lottery.find_ticket(
        make_model(), x, y, epochs=1, levels=1, controls=("reinit",), workdir=tmp_path, verbose=0
    )
    found = analyses.analyze(tmp_path, levels=(1,))
    out = found.text
    assert "gradient norm is left out: find_ticket keeps neither model nor data" in out
    assert "call find_ticket again with controls=['reinit', 'shuffle', 'random_ticket']" in out
    assert "gradient norm at start" not in out and "dead units" in out
    assert {row["gradient_norm"] for row in found.rows} == {None}


def test_shortcuts_are_found(keras):
    models = [networks.build(name, keras, (8, 8, 1), 10) for name in ("resnet_8", "conv_2")]
    if keras.__name__ == "tf_keras":
        models = [tfmot_wrappers.wrap(model) for model in models]
    assert [analyses.has_shortcuts(model) for model in models] == [True, False]
