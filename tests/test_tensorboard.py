"""What TensorBoard has of a run, by its own readers, on both flavours."""

import re

import numpy as np
import pytest
from board import Board
from tensorboard.plugins.hparams import api_pb2

import tf_lottery
from tf_lottery.analysis import report, tensorboard
from tf_lottery.analysis.tensorboard import TensorBoard, mask_image
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import driver, outputs
from tf_lottery.experiments.analyses import report as report_command
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.training import recorded
from tf_lottery.training.events import Events
from tf_lottery.training.runs import ReplicateStore

DENSITIES = {0: "100", 1: "81.3", 2: "66.3"}  # 1184, 819 + 144 and 655 + 130 weights
pytestmark = pytest.mark.usefixtures("no_xla")

SEARCH = {"levels": 2, "steps": 40, "eval_every": 10, "batch_size": 32, "verbose": 0}


def small(**entries):
    """An experiment of seconds: 64 inputs, 16 units, 10 classes; three levels."""
    config = config_module.ExperimentConfig(**entries)
    config.network.name = "mlp:16"
    config.train.steps, config.train.eval_every_steps = 40, 10
    config.prune.levels = 2
    return config


def run_of(result):
    """What TensorBoard calls a network."""
    network = f"level_{result.level:02d}_{DENSITIES[result.level]}%/{result.arm}"
    return f"replicate_{result.replicate}/{network}"


def board_of(workdir):
    return Board(workdir / "tensorboard")


@pytest.fixture(params=FLAVOURS, scope="module")
def run(request, tmp_path_factory):
    """The workdir of a finished run of two replicates and two controls."""
    workdir = tmp_path_factory.mktemp("run")
    config = small(flavour=request.param, replicates=2, controls=("reinit", "shuffle"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        driver.run(config, str(workdir))
    return workdir


@pytest.fixture
def board(run):
    return board_of(run)


def test_a_run_for_each_network_with_its_density_and_for_each_arm(run, board):
    arms = {f"replicate_{r}/by_level/{arm}" for r in (1, 2) for arm in ("ticket", "reinit", "shuffle")}
    networks = {run_of(result) for result in recorded.results(run)}
    assert len(networks) == 14
    assert board.runs() == arms | networks | {"layout", "analysis/report"}


def test_a_card_for_all_densities_of_an_arm_and_one_for_all_arms_at_a_density(run, board):
    results = recorded.results(run)
    for arm in ("ticket", "reinit", "shuffle"):
        expected = {run_of(result) for result in results if result.arm == arm}
        assert board.runs_with(f"by_step/{arm}/test_accuracy") == expected
    for level in (0, 1, 2):
        expected = {run_of(result) for result in results if result.level == level}
        assert board.runs_with(f"level_{level:02d}/validation_loss") == expected


def test_curves_are_those_that_were_recorded(run, board):
    for network in recorded.networks(run):
        history, name = network.history(), run_of(network.result)
        groups = {f"by_step/{network.result.arm}", f"level_{network.result.level:02d}"}
        assert {tag.rpartition("/")[0] for tag in board.tags(name)} >= groups
        for curve, values in history.curves.items():
            expected = [(step, value) for step, value in zip(history.steps, values) if value == value]
            for group in groups:
                found = board.curve(name, f"{group}/{curve.replace('/', '_')}")
                np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert set(history.curves) == {
        f"{d}/{m}" for d in ("train", "validation", "test") for m in ("loss", "accuracy")
    }
    assert history.steps == [0, 10, 20, 30, 40]


def test_the_arms_by_level_are_those_of_the_results(run, board):
    results = recorded.results(run)
    for replicate in (1, 2):
        for arm in ("ticket", "reinit", "shuffle"):
            rows = [r for r in results if (r.replicate, r.arm) == (replicate, arm)]
            for field in ("early_stop_step", "test_accuracy_at_early_stop", "density", "search_steps"):
                found = board.curve(f"replicate_{replicate}/by_level/{arm}", f"by_level/{field}")
                np.testing.assert_allclose(found, [(r.level, getattr(r, field)) for r in rows], rtol=1e-6)


def test_hparams_has_a_row_for_each_network(run, board):
    results, rows = recorded.results(run), board.rows()
    assert rows.keys() == {run_of(result) for result in results}
    for result in results:
        settings, metrics = rows[run_of(result)]
        place = {name: getattr(result, name) for name in ("level", "density", "arm", "replicate")}
        assert settings == {**place, "criterion": "magnitude", "seed": 0}
        for name in ("early_stop_step", "test_accuracy_at_early_stop", "final_test_accuracy"):
            assert metrics[f"result/{name}"] == pytest.approx(getattr(result, name), rel=1e-6)


def test_hparams_has_typed_columns(board):
    columns = board.columns()
    number, text = api_pb2.DATA_TYPE_FLOAT64, api_pb2.DATA_TYPE_STRING
    assert {info.name: info.type for info in columns.hparam_infos} == {
        **dict.fromkeys(("density", "level", "replicate", "seed"), number),
        **dict.fromkeys(("arm", "criterion"), text),
    }
    arm = next(info for info in columns.hparam_infos if info.name == "arm")
    assert list(arm.domain_discrete) == ["ticket", "reinit", "shuffle"]
    assert [info.display_name for info in columns.metric_infos][:3] == [
        "early stop step",
        "test accuracy at early stop",
        "final test accuracy",
    ]


def test_hparams_sorts_by_numbers_and_filters(run, board):
    density = api_pb2.ColParams(hparam="density", order=api_pb2.ORDER_ASC)
    density.filter_interval.max_value = 0.9
    arm = api_pb2.ColParams(hparam="arm")
    arm.filter_discrete.values.add(string_value="ticket")
    found = [settings["level"] for settings, _ in board.rows(density, arm).values()]
    assert found == [2, 2, 1, 1]
    name = api_pb2.MetricName(tag="result/test_accuracy_at_early_stop")
    best = api_pb2.ColParams(metric=name, order=api_pb2.ORDER_DESC)
    accuracies = [metrics[name.tag] for _, metrics in board.rows(best).values()]
    assert accuracies == sorted(accuracies, reverse=True) and len(accuracies) == 14


def test_masks_are_images_of_each_layer_and_level(run, board):
    for network in recorded.networks(run):
        for path, mask in network.mask().items():
            tag = f"masks/{path}"
            if network.result.arm == "reinit":  # which has the ticket's
                assert tag not in board.tags(run_of(network.result))
                continue
            step, pixels = board.image(run_of(network.result), tag)
            assert step == network.result.level
            np.testing.assert_array_equal(pixels, np.where(mask, 0, 229))


def test_distributions_are_those_of_surviving_weights(run, board):
    for network in recorded.networks(run):
        result, mask = network.result, network.mask()
        name = f"replicate_{result.replicate}/by_level/{result.arm}"
        for kind, weights in (("initial", network.start()), ("final", network.end())):
            for path, kept in mask.items():
                bins = dict(board.points(name, f"{kind}_weights/{path}"))[result.level]
                values = weights[path][kept]
                assert bins.shape == (30, 3) and bins[:, 2].sum() == np.count_nonzero(kept)
                np.testing.assert_allclose([bins[0, 0], bins[-1, 1]], [values.min(), values.max()])


def test_every_chart_of_the_layout_has_its_curves(board):
    layout = board.layout()
    assert list(layout) == [
        "search, by level",
        "ticket, all densities",
        "reinit, all densities",
        "shuffle, all densities",
    ]
    tags = set().union(*map(board.tags, board.runs()))
    for category, charts in layout.items():
        for title, expressions in charts.items():
            for expression in expressions:
                assert len([tag for tag in tags if re.match(expression, tag)]) == 1, (category, title)


def test_the_report_is_a_text(run, board):
    [(step, text)] = board.curve("analysis/report", "report")
    *tables, sentence = report.text(recorded.results(run)).split("\n\n")
    assert step == 0 and len(tables) > 1
    assert text.decode() == "\n\n".join([*(f"```\n{table}\n```" for table in tables), sentence])


def test_the_command_s_report_takes_the_place_of_the_live_one(tmp_path):
    driver.run(small(controls=()), str(tmp_path))
    outputs.write(tmp_path, "report", report_command.analyze(tmp_path))
    board = board_of(tmp_path)
    assert board.tags("analysis/report") == {"report", "figures/search"}
    assert board.runs_with("figures/search") == board.runs_with("report") == {"analysis/report"}
    assert len(board.points("analysis/report", "report")) == 1


def without_figures(workdir):
    everything = board_of(workdir).everything()
    everything["analysis/report"].pop("figures/search", None)
    return everything


def stopping_at(count, method):
    """The method; its call of that number, which is not carried out, is where the user stops the run."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            raise KeyboardInterrupt
        return method(*arguments)

    return call


def test_what_is_stopped_and_goes_on_is_as_if_it_never_was(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    driver.run(small(replicates=2), str(whole))
    monkeypatch.setattr(ReplicateStore, "wants_progress", lambda self: True)
    # In the middle of a network, and when one is done that TensorBoard has not heard of to the end.
    for method, count in {"evaluated": 13, "finished": 5}.items():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TensorBoard, method, stopping_at(count, getattr(TensorBoard, method)))
            driver.run(small(replicates=2), str(parts))
    driver.run(small(replicates=2), str(parts))
    assert without_figures(parts) == without_figures(whole)
    assert board_of(parts).rows() == board_of(whole).rows()


def test_levels_and_controls_that_are_added_join_the_others(tmp_path):
    config = small(controls=())
    config.prune.levels = 1
    driver.run(config, str(tmp_path))
    driver.run(small(controls=("reinit",)), str(tmp_path))
    board = board_of(tmp_path)
    assert board.rows().keys() == {run_of(result) for result in recorded.results(tmp_path)}
    assert [step for step, _ in board.points("replicate_1/by_level/ticket", "by_level/density")] == [0, 1, 2]
    assert [step for step, _ in board.points("replicate_1/by_level/reinit", "by_level/density")] == [1, 2]
    assert "reinit, all densities" in board.layout()


def test_figures_are_drawn_while_it_runs_but_rarely(tmp_path, monkeypatch):
    drawn, draw = [], TensorBoard._draw
    monkeypatch.setattr(tensorboard, "_FIRST_FIGURE", 0)
    monkeypatch.setattr(tensorboard, "_SHARE", 1e-6)  # which leaves a run of seconds time for one
    monkeypatch.setattr(TensorBoard, "_draw", lambda self, rows: (drawn.append(len(rows)), draw(self, rows)))
    driver.run(small(), str(tmp_path))
    assert drawn == [1]
    step, pixels = board_of(tmp_path).image("analysis/report", "figures/search")
    assert step == 0 and pixels.shape[1:] == (1000, 4) and (pixels[..., :3].min(2) < 128).any()


def test_find_ticket_is_seen_too(make_model, data, tmp_path):
    test_data = (data[0][:60], data[1][:60])
    found = {"controls": ("reinit",), "criterion": "random", "seed": 7, "test_data": test_data}
    tf_lottery.find_ticket(make_model(), *data, **SEARCH, **found, workdir=tmp_path)
    board, results = board_of(tmp_path), recorded.results(tmp_path)
    rows = board.rows()
    assert len(rows) == len(results) == 5
    assert {(s["criterion"], s["seed"]) for s, _ in rows.values()} == {("random", 7)}
    assert sorted(s["density"] for s, _ in rows.values()) == sorted(r.density for r in results)
    assert board.tags("analysis/report") == {"report", "figures/search"}
    assert len(board.runs_with("by_step/ticket/test_accuracy")) == 3
    assert len(board.runs_with("masks/fc1/kernel")) == 3


def test_what_a_model_has_not_is_no_column(keras, make_inner_product, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 10)).astype(np.float32)
    tf_lottery.find_ticket(make_inner_product(), x, x @ np.ones((10, 1)), **SEARCH, workdir=tmp_path)
    board = board_of(tmp_path)
    shown = [info.name.tag for info in board.columns().metric_infos]
    assert shown == ["result/early_stop_step", "result/min_validation_loss"]
    assert all(metrics.keys() == set(shown) for _, metrics in board.rows().values())
    assert board.layout()["ticket, all densities"] == {
        "validation loss": [r"^by_step/ticket/validation_loss$"]
    }


def test_a_mask_of_a_convolution_has_a_column_for_each_unit():
    mask = np.zeros((3, 3, 2, 5), bool)
    mask[1, 2, 0, 4] = True  # row (1 * 3 + 2) * 2 + 0
    image = mask_image(mask)
    assert image.shape == (18, 5, 1)
    assert np.argwhere(image == 0).tolist() == [[10, 4, 0]]


def test_a_large_mask_is_shown_in_blocks():
    mask = np.zeros((2049, 2), bool)  # blocks of 3 rows, in 683 rows
    mask[:3, 0] = True
    mask[3, 1] = True
    mask[2046:2048, 0] = True
    image = mask_image(mask)[..., 0]
    assert image.shape == (683, 2)
    np.testing.assert_allclose(image[[0, 1, 682]], [[0, 0.9], [0.9, 0.6], [0.3, 0.9]], atol=1e-6)
    ragged = np.zeros((1, 1026), bool)  # blocks of 2 columns
    ragged[0, [0, 1025]] = True
    np.testing.assert_allclose(mask_image(ragged)[0, [0, 1, 512], 0], [0.45, 0.9, 0.45], atol=1e-6)
    last = np.zeros((1025, 1), bool)  # whose last block is a single row
    last[1024] = True
    np.testing.assert_allclose(mask_image(last)[[511, 512], 0, 0], [0.9, 0], atol=1e-6)


def test_events_replace_those_before_them_and_show_at_once(tmp_path):
    first = Events(tmp_path / "a")
    first.scalars({"x": 1.0, "y": float("nan")}, 3)
    assert Board(tmp_path).everything() == {"a": {"x": [(3, 1.0)]}}
    first.close()
    second = Events(tmp_path / "a")
    second.text("t", "one line\n\na  b\n1  2\n")
    assert Board(tmp_path).everything() == {"a": {"t": [(0, b"one line\n\n```\na  b\n1  2\n```")]}}
    second.close()


def test_a_histogram_leaves_out_what_is_not_finite_and_bears_an_empty_layer(tmp_path):
    events = Events(tmp_path)
    events.histogram("x", np.array([0, 1, 15, 30, np.nan, np.inf]))
    events.histogram("nothing", np.zeros(0, np.float32))
    events.close()
    [run] = Board(tmp_path).runs()
    [(_, bins)] = Board(tmp_path).points(run, "x")
    assert {tuple(row) for row in bins if row[2]} == {(0, 1, 1), (1, 2, 1), (15, 16, 1), (29, 30, 1)}
    [(_, empty)] = Board(tmp_path).points(run, "nothing")
    assert empty.shape == (30, 3) and not empty[:, 2].any()
