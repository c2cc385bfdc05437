"""Searches in one process, one after another and at once, do not touch each other."""

import threading

import matplotlib
import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel

pytestmark = pytest.mark.usefixtures("no_xla")
WIDTHS = (8, 12)


@pytest.fixture
def search(keras, data):
    """Searches with a model of that width, which has random states and statistics of its own."""

    def run(width, workdir):
        layers = [keras.layers.Input((8,))]
        for number, units in enumerate((width, width)):
            draw = keras.initializers.GlorotNormal(seed=number)
            layers += [
                keras.layers.Dense(units, "relu", kernel_initializer=draw, name=f"fc{number}"),
                keras.layers.BatchNormalization(name=f"bn{number}"),
                keras.layers.Dropout(0.2, seed=number, name=f"dropout{number}"),
            ]
        draw = keras.initializers.GlorotNormal(seed=9)
        model = keras.Sequential([*layers, keras.layers.Dense(3, kernel_initializer=draw, name="output")])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
        given = {"steps": 12, "eval_every": 4, "levels": 1, "controls": ["reinit"], "verbose": 0}
        ticket = tf_lottery.find_ticket(model, *data, workdir=workdir, **given)
        ticket.plot()
        return ticket, MaskedModel(model)

    return run


def assert_same(one, other):
    """Bit for bit: what was found, and what the model was left as."""
    (ticket, model), (other_ticket, other_model) = one, other
    assert ticket.history == other_ticket.history and len(ticket.history) == 3
    assert ticket.verdict == other_ticket.verdict and ticket.level == other_ticket.level
    pairs = [(ticket.mask, other_ticket.mask), (ticket.weights, other_ticket.weights)]
    for arrays, others in [*pairs, (model.state(), other_model.state())]:
        assert list(arrays) == list(others)
        for path, array in arrays.items():
            np.testing.assert_array_equal(array, others[path], err_msg=path)


def test_searches_after_and_beside_each_other_are_as_alone(search, tmp_path):
    alone = {width: search(width, tmp_path / f"alone_{width}") for width in WIDTHS}
    assert_same(search(WIDTHS[0], tmp_path / "again"), alone[WIDTHS[0]])
    found, errors, style = {}, [], dict(matplotlib.rcParams)
    running = set(threading.enumerate())

    def beside(width):
        try:
            found[width] = search(width, tmp_path / f"beside_{width}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=beside, args=(width,)) for width in WIDTHS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for width in WIDTHS:
        assert_same(found[width], alone[width])
        stored = [tmp_path / f"{how}_{width}" / "results.csv" for how in ("beside", "alone")]
        assert stored[0].read_bytes() == stored[1].read_bytes()
    assert dict(matplotlib.rcParams) == style
    assert set(threading.enumerate()) == running


def test_figures_drawn_at_once_leave_the_style_as_it_was(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 3.5)
    before, started = dict(matplotlib.rcParams), threading.Barrier(8)
    ticket = tf_lottery.Ticket({"fc/kernel": np.eye(3) > 0}, {"fc/kernel": np.eye(3)}, level=1)
    widths = []

    def draw():
        started.wait()
        widths.append(ticket.plot().get_size_inches()[0])

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert widths == [10] * 8
    assert dict(matplotlib.rcParams) == before


def test_layers_get_the_names_of_a_fresh_process_and_settings_stay(keras):
    """What the trials of a tuning need, in which a search goes on by the names of its layers."""
    from tf_lottery.keras_api import flavour

    keras.layers.Dense(1)
    before = keras.backend.epsilon(), keras.mixed_precision.global_policy().name
    keras.backend.set_epsilon(1e-5)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        flavour.forget_names()
        assert [keras.layers.Dense(1).name for _ in range(2)] == ["dense", "dense_1"]
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
        assert keras.backend.epsilon() == 1e-5
    finally:
        keras.backend.set_epsilon(before[0])
        keras.mixed_precision.set_global_policy(before[1])


def test_a_dropout_without_seed_is_the_same_whatever_the_state_of_the_program(data):
    """Of tf_keras, whose layers would draw it when the search begins; those of Keras 3 have drawn it then."""
    import tf_keras

    found, draw = [], tf_keras.initializers.GlorotNormal
    for seed in (1, 2):
        tf_keras.utils.set_random_seed(seed)
        hidden = tf_keras.layers.Dense(8, kernel_initializer=draw(seed=1))
        layers = [
            hidden,
            tf_keras.layers.Dropout(0.5),
            tf_keras.layers.Dense(3, kernel_initializer=draw(seed=2)),
        ]
        model = tf_keras.Sequential([tf_keras.layers.Input((8,)), *layers])
        model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        found.append(tf_lottery.find_ticket(model, *data, steps=8, eval_every=8, levels=0, verbose=0).history)
    assert found[0] == found[1]
