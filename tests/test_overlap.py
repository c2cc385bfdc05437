"""Overlap of masks: Jaccard index, what it is by chance, hidden units matched; replicates of one init."""

import csv
import dataclasses
import itertools
import math
import pathlib
import runpy

import numpy as np
import pytest

from tf_lottery import cli, files
from tf_lottery.analysis import overlap as overlaps
from tf_lottery.analysis import permutation
from tf_lottery.analysis.figures.overlap import plot_between, plot_overlap
from tf_lottery.analysis.overlap import ALL, Overlap, Pair, by_chance, jaccards, matched_by_chance, overlap
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import driver, experiment
from tf_lottery.experiments.analyses import overlap as analysis
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.tickets import masks
from tf_lottery.training import recorded
from tf_lottery.training.history import Result

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "same_ticket.py"
DENSE = {"fc1/kernel": (12, 16), "fc2/kernel": (16, 8), "output/kernel": (8, 3)}
CONV = {
    "conv1/kernel": (3, 3, 2, 6),
    "conv2/kernel": (3, 3, 6, 8),
    "fc/kernel": (32, 10),
    "output/kernel": (10, 3),
}


def mask_of(*rows):
    return {"fc/kernel": np.array([[letter == "x" for letter in row] for row in rows])}


def permuted(weights, seed=0):
    """The same network with hidden units in another order."""
    rng, found, before = np.random.default_rng(seed), {}, None
    for path, array in weights.items():
        shape = array.shape
        if before is not None:
            array = array.reshape(*shape[:-2], -1, len(before), shape[-1])[..., before, :].reshape(shape)
        before = rng.permutation(shape[-1]) if path != "output/kernel" else np.arange(shape[-1])
        found[path] = array[..., before]
    return found


# The index


def test_jaccard_by_hand():
    a, b = mask_of("xx..", "x..."), mask_of("x.x.", "x..x")
    assert jaccards(a, b) == [2 / 5, 2 / 5]
    assert jaccards(a, a) == [1, 1]
    assert jaccards(a, {"fc/kernel": ~a["fc/kernel"]}) == [0, 0]


def test_all_layers_are_counted_together_not_averaged():
    a = {"one": np.array([[True, True, False, False]]), "two": np.array([[True] * 6])}
    b = {"one": np.array([[False, True, True, False]]), "two": np.array([[True] * 6])}
    assert jaccards(a, b) == [1 / 3, 1, 7 / 9]


def test_layers_of_which_both_keep_nothing_are_the_same():
    nothing = mask_of("..")
    assert jaccards(nothing, nothing) == [1, 1]
    assert by_chance((0,), (0,), (2,)) == (1, 0)
    assert jaccards(nothing, mask_of("x.")) == [0, 0]
    assert by_chance((0,), (1,), (2,)) == (0, 0)


# By chance


def enumerated(kept_a, kept_b, sizes):
    """Mean and deviation over all pairs of masks with so many weights in each layer."""
    choices = [
        [set(itertools.combinations(range(n), k)) for k, n in zip(kept, sizes, strict=True)]
        for kept in (kept_a, kept_b)
    ]
    values = []
    for a, b in itertools.product(*(itertools.product(*layers) for layers in choices)):
        both = sum(len(set(x) & set(y)) for x, y in zip(a, b, strict=True))
        values.append(both / (sum(kept_a) + sum(kept_b) - both))
    return np.mean(values), np.std(values)


@pytest.mark.parametrize(
    ("kept_a", "kept_b", "sizes"),
    [
        ((2,), (3,), (5,)),
        ((1,), (1,), (7,)),
        ((4,), (3,), (5,)),
        ((1, 2), (2, 2), (3, 4)),
        ((1, 1, 1), (1, 2, 0), (2, 3, 2)),
    ],
)
def test_chance_is_that_of_all_pairs_of_masks(kept_a, kept_b, sizes):
    assert by_chance(kept_a, kept_b, sizes) == pytest.approx(enumerated(kept_a, kept_b, sizes), abs=1e-12)


@pytest.mark.parametrize(("level", "expected"), [(7, 0.1186), (9, 0.0735), (15, 0.0198)])
def test_chance_of_lenet(level, expected):
    """LeNet-300-100 on MNIST; large layers are near d / (2 - d)."""
    sizes = (235_200, 30_000, 1000)
    kept = tuple(round(n * p**level) for n, p in zip(sizes, (0.8, 0.8, 0.9), strict=True))
    mean, deviation = by_chance(kept, kept, sizes)
    assert mean == pytest.approx(expected, abs=5e-5) and 0 < deviation < 0.002
    density = kept[0] / sizes[0]
    assert by_chance(kept[:1], kept[:1], sizes[:1])[0] == pytest.approx(density / (2 - density), abs=1e-5)


def test_chance_of_layers_of_any_size():
    assert by_chance((10**7,), (10**7,), (2 * 10**7,))[0] == pytest.approx(1 / 3, abs=1e-6)
    assert by_chance((5,), (4,), (5,)) == pytest.approx((0.8, 0), abs=1e-12)
    assert by_chance((1,), (1,), (1,)) == (1, 0)


def test_chance_is_the_mean_over_random_masks():
    rng, sizes, kept = np.random.default_rng(0), (60, 24), (20, 9)
    values = []
    for _ in range(2000):
        a, b = ({n: rng.permutation(n) < k for n, k in zip(sizes, kept, strict=True)} for _ in range(2))
        values.append(jaccards(a, b)[-1])
    mean, deviation = by_chance(kept, kept, sizes)
    assert np.mean(values) == pytest.approx(mean, abs=4 * deviation / math.sqrt(len(values)))
    assert np.std(values) == pytest.approx(deviation, rel=0.1)


# Two masks


def test_overlap_of_every_layer_and_of_all(random_mask):
    a, b = random_mask(DENSE, 0.4), random_mask(DENSE, 0.2, seed=1)
    found = overlap(a, b)
    assert [one.layer for one in found] == [*DENSE, ALL]
    assert [one.jaccard for one in found] == jaccards(a, b)
    kept = [tuple(int(array.sum()) for array in mask.values()) for mask in (a, b)]
    sizes = (192, 128, 24)
    for i, one in enumerate(found[:-1]):
        counts = [(kept[0][i],), (kept[1][i],), (sizes[i],)]
        assert (one.expected, one.deviation) == by_chance(*counts)
        assert one.densities == (kept[0][i] / sizes[i], kept[1][i] / sizes[i])
    assert (found[-1].expected, found[-1].deviation) == by_chance(*kept, sizes)
    assert found[-1].densities == (sum(kept[0]) / 344, sum(kept[1]) / 344)
    assert [one.matched for one in found] == jaccards(a, permutation.match(b, a))
    assert overlap(a, b) == found


def test_what_are_no_two_masks_of_one_network(random_mask):
    mask = random_mask(DENSE)
    with pytest.raises(ValueError, match="same shapes"):
        overlap(mask, random_mask(CONV))
    with pytest.raises(TypeError, match="a mask holds bools"):
        overlap(mask, {path: array.astype(float) for path, array in mask.items()})


# Hidden units matched


@pytest.mark.parametrize("shapes", [DENSE, CONV], ids=["dense", "convolutions"])
@pytest.mark.parametrize("share", [0.15, 0.5])
def test_a_network_whose_units_changed_places_is_matched_back(random_mask, shapes, share):
    mask = random_mask(shapes, share)
    other = permuted(mask)
    assert jaccards(mask, other)[-1] < 0.6
    for path, array in permutation.match(other, mask).items():
        np.testing.assert_array_equal(array, mask[path])
    assert [one.matched for one in overlap(mask, other)] == [1] * (len(shapes) + 1)


def test_units_that_change_places_are_the_same_network(keras):
    """What matching takes for a symmetry is one, through a flatten too."""
    model = keras.Sequential(
        [
            keras.layers.Input((4, 4, 2)),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu", use_bias=False),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "relu", use_bias=False),
            keras.layers.Dense(3, use_bias=False),
        ]
    )
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32)
    before = np.asarray(model(x))
    names = ("conv/kernel", "fc/kernel", "output/kernel")
    weights = dict(zip(names, model.get_weights(), strict=True))
    assert permutation.has_order(weights)
    other = permuted(weights)
    model.set_weights(list(other.values()))
    np.testing.assert_allclose(np.asarray(model(x)), before, atol=1e-5)
    found = permutation.match({p: w > 0 for p, w in other.items()}, {p: w > 0 for p, w in weights.items()})
    for path, array in found.items():
        np.testing.assert_array_equal(array, weights[path] > 0)


@pytest.mark.parametrize("shapes", [DENSE, CONV], ids=["dense", "convolutions"])
@pytest.mark.parametrize("seed", range(5))
def test_matching_moves_whole_units_and_never_loses(random_mask, shapes, seed):
    a, b = random_mask(shapes, 0.3, seed), random_mask(shapes, 0.3, seed + 100)
    found = permutation.match(b, a)
    both = [sum(int((mask[p] & a[p]).sum()) for p in a) for mask in (b, found)]
    assert both[1] > both[0]
    for path, array in found.items():
        assert array.dtype == bool and array.shape == b[path].shape
        kept = [sorted(m.reshape(-1, m.shape[-1]).sum(0)) for m in (array, b[path])]
        assert kept[0] == kept[1]
    first = next(iter(shapes))
    columns = [sorted(map(bytes, m[first].reshape(-1, shapes[first][-1]).T)) for m in (found, b)]
    assert columns[0] == columns[1]
    half = {
        path: array & (np.random.default_rng(seed).random(array.shape) < 0.9) for path, array in a.items()
    }
    for path, array in permutation.match(half, a).items():
        np.testing.assert_array_equal(array, half[path])  # which has all in common as it is


def test_matching_finds_overlap_in_noise_and_its_baseline_too(random_mask):
    shapes = {"fc1/kernel": (50, 40), "fc2/kernel": (40, 30), "output/kernel": (30, 10)}
    found = overlap(random_mask(shapes, 0.1, 5), random_mask(shapes, 0.1, 6))[-1]
    assert found.jaccard == pytest.approx(found.expected, abs=4 * found.deviation)
    assert found.matched > 2 * found.expected
    assert found.matched == pytest.approx(found.matched_expected, rel=0.1)


def test_the_baseline_of_matching_is_drawn_from_masks_with_those_counts():
    shapes = tuple(DENSE.items())
    kept, other = (60, 40, 10), (30, 20, 5)
    first = matched_by_chance(kept, other, shapes, 4)
    matched_by_chance.cache_clear()
    assert matched_by_chance(kept, other, shapes, 4) == first != matched_by_chance(kept, other, shapes, 1)
    full = tuple(math.prod(shape) for shape in DENSE.values())
    assert matched_by_chance(full, full, shapes, 1) == (1, 1, 1, 1)
    assert matched_by_chance(full, kept, shapes, 1)[:3] == (60 / 192, 40 / 128, 10 / 24)


@pytest.mark.parametrize(
    "shapes",
    [
        {"fc1/kernel": (4, 8), "output/kernel": (16, 2)},
        {"conv1/kernel": (3, 3, 1, 4), "shortcut/kernel": (1, 1, 4, 8), "conv2/kernel": (3, 3, 4, 8)},
        {"a/depthwise_kernel": (3, 3, 1, 1), "a/pointwise_kernel": (1, 1, 1, 4)},
        {"rnn/kernel": (5, 8), "rnn/recurrent_kernel": (8, 8), "output/kernel": (8, 2)},
        {"lstm/kernel": (5, 32), "lstm/recurrent_kernel": (8, 32)},
    ],
    ids=["divides without a convolution", "resnet", "separable", "rnn", "lstm"],
)
def test_kernels_that_are_no_chain_are_not_matched(random_mask, shapes):
    mask = random_mask(shapes, 0.7)
    assert not permutation.has_order(mask)
    found = overlap(mask, random_mask(shapes, 0.7, seed=1))[-1]
    assert math.isnan(found.matched) and math.isnan(found.matched_expected) and found.expected > 0
    with pytest.raises(ValueError, match=rf"{list(shapes)[0]} \({shapes[list(shapes)[0]][0]}, "):
        permutation.match(mask, mask)


# Tables, sentences, figures


def pair(group, level, jaccard, expected=0.1, matched=math.nan, by_match=math.nan):
    layers = [
        Overlap(layer, (0.8**level,) * 2, jaccard, expected, 0.01, matched, by_match)
        for layer in (*DENSE, ALL)
    ]
    return Pair(group, level, ("a", "b"), layers)


def test_the_table_has_means_over_pairs_and_chance_in_parentheses():
    pairs = [
        pair("x", 0, 1, 1, 1, 1),
        pair("x", 1, 0.2, 0.1, 0.5, 0.25),
        pair("x", 1, 0.4, 0.1, 0.75, 0.25),
        pair("y", 1, 0),
    ]
    assert overlaps.table(pairs).splitlines() == [
        "                                 x                             y",
        "level  density %        overlap %        matched %     overlap %  matched %",
        "    0     100.00  100.00 (100.00)  100.00 (100.00)             -          -",
        "    1      80.00    30.00 (10.00)    62.50 (25.00)  0.00 (10.00)          -",
    ]
    lines = overlaps.layer_table([pair("x", 1, 0.2)]).splitlines()
    assert lines[1].split() == ["level", "density", "%", "fc1", "fc2", "output"]
    assert lines[2].split()[2:] == ["20.00", "(10.00)"] * 3
    assert "matched" not in overlaps.table([pair("x", 1, 0.2)])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1, 0.1), "the same, 100 % of the way from chance to the same mask."),
        ((0.96, 0.2), "nearly the same, 95 % of the way from chance to the same mask."),
        (
            (0.55, 0.1, 0.6, 0.2),
            "in part the same, 50 % of the way from chance to the same mask, 50 % with units matched.",
        ),
        (
            (0.1, 0.1, 0.84, 0.2),
            "in part the same, 0 % of the way from chance to the same mask, 80 % with units matched.",
        ),
        (
            (0.1, 0.12, 0.24, 0.2),
            "different, -2 % of the way from chance to the same mask, 5 % with units matched.",
        ),
        ((1, 1), "the same, 100 % of the way from chance to the same mask."),
    ],
)
def test_the_sentence_says_what_the_sparsest_level_means(numbers, words):
    assert overlaps.sentence([pair("x", 1, 0), pair("x", 2, *numbers)]) == f"x, 64.00 % kept: {words}"


def test_the_figure_has_a_panel_for_each_layer():
    pairs = [pair("x", n, 0.9**n, 0.5**n, 0.95**n, 0.6**n) for n in (0, 1, 2)] + [pair("x", 2, 0.41)]
    figure = plot_overlap(pairs)
    assert [axes.get_title() for axes in figure.axes] == [ALL, *DENSE]
    lines = {line.get_linestyle(): line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 3}
    np.testing.assert_allclose(lines["-"].get_xdata(), [100, 80, 64])
    np.testing.assert_allclose(lines["-"].get_ydata(), [1, 0.9, (0.81 + 0.41) / 2])
    np.testing.assert_allclose(lines[":"].get_ydata(), [1, 0.5, (0.25 + 0.1) / 2])
    assert figure.axes[0].get_xlim()[0] > figure.axes[0].get_xlim()[1]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["x", "as they are", "hidden units matched", "by chance", "by chance, matched"]
    alone = plot_overlap([pair("x", 1, 0.5), pair("y", 1, 0.5, expected=0.3)])
    dotted = [line.get_color() for line in alone.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert len(set(dotted)) == 2  # what differs by chance has its group's color
    assert "hidden units matched" not in [text.get_text() for text in alone.legends[0].get_texts()]


def test_the_square_of_runs():
    figure = plot_between(["one", "two", "three"], {("one", "three"): [pair("", 1, 0.25)]}, "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["25.0\n(10.0)"] * 2
    table = figure.axes[0].get_images()[0].get_array().filled(np.nan)
    assert table[0, 2] == table[2, 0] == 25 and np.isnan(table).sum() == 7


# Runs


def run(workdir, flavour="tf_keras", **entries):
    config = config_module.ExperimentConfig(flavour=flavour, replicates=2, **entries)
    config.network.name = "mlp:16"
    config.train.steps, config.train.eval_every_steps, config.prune.levels = 30, 10, 2
    with pytest.MonkeyPatch.context() as patch:  # XLA takes seconds to compile
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        driver.run(config, str(workdir))
    return workdir


@pytest.fixture(scope="module", params=FLAVOURS)
def same_init(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "same"
    return run(workdir, request.param, same_init=True, controls=("reinit", "shuffle"), control_levels=(1,))


@pytest.fixture(scope="module")
def study(same_init):
    """A folder with that run and one whose replicates have other initial weights."""
    entries = files.read_json(same_init / "config.json")
    run(same_init.parent / "other", entries["flavour"], controls=())
    return same_init.parent


def network(workdir, replicate, level, arm="ticket"):
    place = (replicate, level, arm)
    return next(
        n for n in recorded.networks(workdir) if (n.result.replicate, n.result.level, n.result.arm) == place
    )


def equal(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(array, b[path]) for path, array in a.items())


def test_replicates_of_one_init_begin_alike_and_end_apart(same_init):
    initial = [files.read_tensors(same_init / f"replicate_{r}/initial.safetensors")[0] for r in (1, 2)]
    assert equal(*initial)
    first, second = (network(same_init, r, 0) for r in (1, 2))
    assert equal(first.start(), second.start()) and not equal(first.end(), second.end())
    assert first.history().curves != second.history().curves
    assert not equal(network(same_init, 1, 2).mask(), network(same_init, 2, 2).mask())
    for arm, what in (("reinit", "start"), ("shuffle", "mask")):
        kernels = [getattr(network(same_init, r, 1, arm), what)()["fc1/kernel"] for r in (1, 2)]
        assert not np.array_equal(*kernels)


def test_replicates_have_other_inits_unless_asked(study):
    first, second = (network(study / "other", r, 0) for r in (1, 2))
    assert not equal(first.start(), second.start())
    for level in (0, 1, 2):  # the first replicate is the same in both
        assert equal(network(study / "other", 1, level).end(), network(study / "same", 1, level).end())
    assert equal(network(study / "same", 2, 0).start(), first.start())


def test_a_run_from_before_there_was_the_entry_is_read(same_init):
    entries = files.read_json(same_init / "config.json")
    assert experiment.config_of(entries).same_init is True
    del entries["same_init"]
    assert experiment.config_of(entries).same_init is False


def test_a_run_by_command(study, capsys):
    assert cli.main(["overlap", str(study / "same")]) == 0
    out = capsys.readouterr().out
    assert "Replicates start from the same initial weights" in out and "are nested" in out
    assert "Left out, as their masks are the ticket's: reinit." in out
    assert "ticket between replicates, " in out and "Matched: " in out
    for name in ("analysis/overlap.csv", "figures/overlap.png", "figures/overlap.svg"):
        assert (study / "same" / name).exists()
    with open(study / "same/analysis/overlap.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    levels = {}
    for row in rows:
        levels.setdefault((row["pair"], row["layer"]), []).append(row["level"])
    layers = ("fc1/kernel", "output/kernel", ALL)
    assert levels == {
        **{("ticket between replicates", layer): ["0", "1", "2"] for layer in layers},
        **{("ticket and shuffle", layer): ["1", "1"] for layer in layers},
        **{("shuffle between replicates", layer): ["1"] for layer in layers},
    }
    last = [row for row in rows if row["level"] == "2"]
    assert (last[0]["a"], last[0]["b"]) == ("replicate 1, level 2, ticket", "replicate 2, level 2, ticket")
    found = overlap(network(study / "same", 1, 2).mask(), network(study / "same", 2, 2).mask())
    for row, one in zip(last, found, strict=True):
        for name in ("jaccard", "expected", "deviation", "matched", "matched_expected"):
            assert float(row[name]) == getattr(one, name)
        assert (float(row["density_a"]), float(row["density_b"])) == one.densities


def test_two_runs_side_by_side(study):
    findings = analysis.compare({"other": study / "other", "same": study / "same"})
    by_group = overlaps_by_group(findings)
    assert list(by_group) == ["other", "same", "other and same"]
    assert "Left out, as it is the same in other and same: replicate 1." in findings.text
    at_the_end = {group: [row for row in rows if row["level"] == 2][-1] for group, rows in by_group.items()}
    # By how much is said of real runs; so few steps leave the order of magnitudes as it was.
    assert at_the_end["same"]["jaccard"] > 1.5 * at_the_end["other"]["jaccard"]
    assert at_the_end["other"]["matched"] >= at_the_end["other"]["jaccard"]
    assert list(findings.figures) == ["overlap"]
    assert {scalar.tag for scalar in findings.scalars} == {
        f"overlap/{x}" for x in ("fc1/kernel", "output/kernel", ALL)
    }
    assert {scalar.run for scalar in findings.scalars} > {"same", "same, matched", "other, by chance"}


def overlaps_by_group(findings):
    found = {}
    for row in findings.rows:
        found.setdefault(row["pair"], []).append(row)
    return found


def test_three_runs_make_a_square(study):
    runs = {name: study / folder for name, folder in (("one", "same"), ("two", "other"), ("three", "same"))}
    findings = analysis.compare(runs)
    assert set(findings.figures) == {"overlap", "overlap_between"}
    square = findings.text[findings.text.index("Overlap of tickets that keep ") :].splitlines()
    assert [line.split()[0] for line in square[1:5]] == ["one", "one", "two", "three"]
    assert square[2].split()[1:] == ["-", square[3].split()[1], "100.00"]  # one and three are the same run
    rows = overlaps_by_group(findings)["one and three"]
    assert {row["a"] for row in rows} == {
        f"one, replicate {r}, level {n}, ticket" for r in (1, 2) for n in (0, 1, 2)
    }
    assert all(row["matched"] == "" for row in rows)  # units are what they are in the other run


RESNET = {"conv1/kernel": (3, 3, 1, 4), "shortcut/kernel": (1, 1, 4, 8), "conv2/kernel": (3, 3, 4, 8)}


@pytest.fixture
def recorded_run(tmp_path, random_mask):
    """Writes the tickets of a network, dense and at 30 %, as a run leaves them."""

    def write(name, shapes, replicates=2):
        for replicate, level in itertools.product(range(1, replicates + 1), (0, 1)):
            mask = random_mask(shapes, 0.3 if level else 1.1, seed=replicate)
            folder = tmp_path / name / f"replicate_{replicate}/level_{level:02d}/ticket"
            files.write_tensors(folder / "mask.safetensors", mask, list(mask))
            start = {path: array.astype(np.float32) for path, array in random_mask(shapes).items()}
            files.write_tensors(folder / "start.safetensors", start, None)
            row = Result(
                replicate,
                level,
                "ticket",
                masks.density(mask),
                1,
                0.9,
                0.1,
                0.9,
                0.9,
                2,
                0.1,
                final_training_accuracy=0.9,
            )
            files.write_json(folder / "result.json", dataclasses.asdict(row))
        files.write_json(tmp_path / name / "config.json", {})
        return tmp_path / name

    return write


def test_a_network_that_is_no_chain_has_no_matched_column(recorded_run):
    findings = analysis.analyze(recorded_run("resnet", RESNET))
    assert "Hidden units are not matched: that takes kernels that each" in findings.text
    assert "matched %" not in findings.text and "with units matched" not in findings.text
    assert {row["matched"] for row in findings.rows} == {""}
    assert "Replicates have initial weights" in findings.text


def test_runs_of_other_networks_are_not_compared(recorded_run, tmp_path):
    runs = {"dense": recorded_run("dense", DENSE), "resnet": recorded_run("resnet", RESNET), "none": tmp_path}
    for names in (["dense", "resnet"], list(runs)):
        findings = analysis.compare({name: runs[name] for name in names})
        assert list(overlaps_by_group(findings)) == ["dense", "resnet"]
        assert "Not compared, as their networks differ or are none yet: dense and resnet." in findings.text
        assert [axes.get_title() for axes in findings.figures["overlap"].axes] == [ALL]
    assert "none yet: dense and none." in findings.text


def test_two_runs_that_start_alike_are_not_matched(recorded_run):
    runs = {"a": recorded_run("a", DENSE, replicates=1), "b": recorded_run("b", DENSE, replicates=2)}
    files.write_tensors(
        runs["b"] / "replicate_1/level_01/ticket/mask.safetensors",
        *files.read_tensors(runs["b"] / "replicate_2/level_01/ticket/mask.safetensors"),
    )
    findings = analysis.compare(runs)
    rows = overlaps_by_group(findings)
    assert all(row["matched"] == "" for row in rows["a and b"]) and rows["a and b"][-1]["jaccard"] < 0.5
    assert rows["b"][-1]["matched"] == 1
    del runs["b"]
    runs["c"] = recorded_run("c", DENSE, replicates=1)
    text = analysis.compare(runs).text  # the same masks, and all there is: not left out
    assert (
        "the runs start from the same weights" in text and "a and c, " in text and "kept: the same, " in text
    )


def test_levels_are_paired_by_density():
    def tickets(*densities):
        return {n: Ticket(d) for n, d in enumerate(densities)}

    assert analysis._nearest(tickets(1, 0.5, 0.25), tickets(1, 0.7, 0.49, 0.34, 0.24)) == [
        (0, 0),
        (1, 2),
        (2, 4),
    ]
    assert analysis._nearest(tickets(1, 0.1, 0.01), tickets(1, 0.8)) == [(0, 0)]
    assert analysis._nearest(tickets(1, 0.5, 0), tickets(1, 0)) == [(0, 0), (2, 1)]


class Ticket:
    """A ticket of that density."""

    def __init__(self, density):
        self.result = self
        self.density = density


def test_tickets_that_take_weights_back_are_told(study):
    tickets = analysis._tickets(recorded.networks(study / "same"))
    assert analysis._is_nested(tickets)
    assert not analysis._is_nested({(1, 0): tickets[1, 1], (1, 1): tickets[1, 0]})


def test_a_run_with_nothing_to_compare(study, tmp_path):
    alone = tmp_path / "alone"
    source = study / "other"
    for path in [source / "config.json", *source.glob("replicate_1/**/*.*")]:
        target = alone / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    findings = analysis.analyze(alone)
    assert findings.text.startswith("There are no two masks to compare: ") and not findings.rows
    assert "--config.replicates=3" in findings.text
    (tmp_path / "none").mkdir()
    assert analysis.analyze(tmp_path / "none").text == "No network is trained yet."


def test_the_study_differs_in_the_init_only():
    configs = runpy.run_path(str(CONFIG))["get_config"]()
    assert list(configs) == ["other_init", "same_init"]
    other, same = ({n: config_module.get(c, n) for n in config_module.fields()} for c in configs.values())
    assert {name for name in other if other[name] != same[name]} == {"same_init"}
    assert same["same_init"] is True and same["replicates"] == 3 and not same["controls"]
