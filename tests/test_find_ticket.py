"""`find_ticket` on compiled models and arrays."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.training import locks
from tf_lottery.training.recorded import RunDirectoryError, results
from tf_lottery.training.trainer import NonFiniteError

SMALL = {"steps": 30, "batch_size": 16, "levels": 2, "eval_every": 10, "verbose": 0}


def kernels(model):
    return model.get_weights()[::2]


def test_the_model_is_left_as_the_ticket_and_stays_it(make_model, data):
    model = make_model()
    before = kernels(model)
    ticket = tf_lottery.find_ticket(model, *data, **SMALL)
    assert ticket.level in (1, 2)
    assert ticket.density == pytest.approx({1: 0.81, 2: 0.66}[ticket.level], abs=0.02)
    for kernel, first, mask in zip(kernels(model), before, ticket.mask.values()):
        np.testing.assert_array_equal(kernel, np.where(mask, first, 0))
    assert int(np.asarray(model.optimizer.iterations)) == 0
    model.fit(*data, epochs=2, verbose=0)
    for kernel, first, mask in zip(kernels(model), before, ticket.mask.values()):
        assert (kernel[~mask] == 0).all()
        assert not np.array_equal(kernel[mask], first[mask])


def test_the_ticket_tells_the_whole_search(make_model, data):
    ticket = tf_lottery.find_ticket(
        make_model(), *data, **SMALL, test_data=data, controls=["reinit", "shuffle"]
    )
    arms = [(row["level"], row["arm"]) for row in ticket.history]
    assert arms[:4] == [(0, "ticket"), (1, "ticket"), (1, "reinit"), (1, "shuffle")]
    assert all(0 <= row["test_accuracy_at_early_stop"] <= 1 for row in ticket.history)
    assert "icket" in ticket.verdict
    assert ticket.method == "iterative pruning by magnitude, scope layer"
    assert "reinit" in ticket.summary() and ticket.summary().endswith(ticket.verdict)


@pytest.mark.usefixtures("no_xla")
def test_the_ticket_tells_what_made_it(make_model, keras, data, tmp_path):
    ticket = tf_lottery.find_ticket(make_model(), *data, **SMALL, seed=7, prune_fraction=0.4)
    made = ticket.provenance
    assert made["versions"]["tf_lottery"] == tf_lottery.__version__
    assert made["versions"][keras.__name__] == keras.__version__
    assert {"python", "tensorflow", "numpy"} <= made["versions"].keys()
    assert (made["flavour"], made["key"][0], made["levels"], made["steps"]) == (keras.__name__, 7, 2, 30)
    assert made["fractions"] == {"fc1/kernel": 0.4, "fc2/kernel": 0.4, "output/kernel": 0.2}
    assert (made["optimizer"], made["batch_size"], made["criterion"]) == ("Adam", 16, "magnitude")
    ticket.save(tmp_path / "the.ticket")
    assert tf_lottery.Ticket.load(tmp_path / "the.ticket").provenance == made


@pytest.mark.usefixtures("no_xla")
def test_the_same_seed_gives_the_same_ticket(make_model, data):
    tickets = [
        tf_lottery.find_ticket(make_model(), *data, **SMALL, seed=seed, controls=["reinit"])
        for seed in (0, 0, 1)
    ]
    assert repr(tickets[0].history) == repr(tickets[1].history)
    assert repr(tickets[0].history) != repr(tickets[2].history)
    for path, mask in tickets[0].mask.items():
        np.testing.assert_array_equal(mask, tickets[1].mask[path])


@pytest.mark.usefixtures("no_xla")
def test_a_target_density_sets_the_levels(make_model, data):
    small = {**SMALL, "levels": 99, "target_density": 0.6}
    ticket = tf_lottery.find_ticket(make_model(), *data, **small)
    densities = [row["density"] for row in ticket.history]
    assert densities[-1] <= 0.6 < densities[-2]


@pytest.mark.usefixtures("no_xla")
def test_a_workdir_lets_a_search_go_on(make_model, data, tmp_path):
    whole = tf_lottery.find_ticket(make_model(), *data, **SMALL)
    calls = []

    def stopping(evidence):
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tf_lottery.CRITERIA["magnitude"](evidence)

    def going_on(evidence):
        return tf_lottery.CRITERIA["magnitude"](evidence)

    stopping.__name__ = going_on.__name__ = "magnitude"
    model = make_model()
    before = kernels(model)
    with pytest.raises(KeyboardInterrupt):
        tf_lottery.find_ticket(model, *data, **SMALL, criterion=stopping, workdir=tmp_path)
    for kernel, first in zip(kernels(model), before):
        np.testing.assert_array_equal(kernel, first)
    assert [result.level for result in results(tmp_path)] == [0, 1]
    finished = tf_lottery.find_ticket(make_model(), *data, **SMALL, criterion=going_on, workdir=tmp_path)
    assert repr(finished.history) == repr(whole.history)
    for path, mask in whole.mask.items():
        np.testing.assert_array_equal(finished.mask[path], mask)
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))
    assert (tmp_path / "results.csv").exists()


@pytest.mark.usefixtures("no_xla")
def test_a_workdir_of_another_search_is_refused(make_model, data, tmp_path):
    tf_lottery.find_ticket(make_model(), *data, **{**SMALL, "levels": 0}, workdir=tmp_path)
    with pytest.raises(RunDirectoryError, match="batch_size: 16 there, 8 now"):
        tf_lottery.find_ticket(make_model(), *data, **{**SMALL, "batch_size": 8}, workdir=tmp_path)


@pytest.mark.usefixtures("no_xla")
def test_progress_is_shown_unless_it_is_not_wanted(make_model, data, capsys):
    tf_lottery.find_ticket(make_model(), *data, **{**SMALL, "verbose": "auto"})
    shown = capsys.readouterr().out
    assert "level  0" in shown and "level  2" in shown
    tf_lottery.find_ticket(make_model(), *data, **SMALL)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 5, "epochs": 1}, "Give epochs or steps, not both"),
        ({"steps": 0}, "steps must be 1 or more. Received 0"),
        ({"batch_size": 0}, "batch_size must be 1 to 216, the training examples. Received 0"),
        ({"batch_size": 217}, "batch_size must be 1 to 216, the training examples. Received 217"),
        ({"eval_every": 0}, "eval_every must be 1 or more. Received 0"),
        ({"levels": -1}, "levels must be 0 or more"),
        ({"prune_fraction": 1.0}, r"fraction to prune must be in \[0, 1\)"),
        ({"target_density": 2.0}, r"target_density must be in \(0, 1\)"),
        ({"rewind_step": 30}, r"rewind_step must be in \[0, 30\)"),
        ({"scope": "layr"}, "Unknown scope 'layr'. Did you mean 'layer'"),
        ({"criterion": "magnitud"}, "Unknown criterion 'magnitud'. Did you mean 'magnitude'"),
        ({"controls": ["reinnit"]}, "Unknown control 'reinnit'. Did you mean 'reinit'"),
        ({"layer_fractions": {"fc9": 0.1}}, "Unknown kernel in layer_fractions 'fc9'"),
        ({"validation_split": 0.0}, "validation_split must be in"),
        ({"verbose": "loud"}, "verbose must be 0, 1 or 'auto'. Received 'loud'"),
    ],
)
def test_arguments_out_of_range_are_refused(make_model, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_lottery.find_ticket(make_model(), *data, **{**SMALL, **arguments})


@pytest.mark.usefixtures("no_xla")
def test_data_that_do_not_fit_are_refused(make_model, data):
    x, y = data
    with pytest.raises(ValueError, match=r"takes inputs of shape \(8,\). The training x has \(7,\)"):
        tf_lottery.find_ticket(make_model(), x[:, :7], y, **SMALL)
    with pytest.raises(
        ValueError, match="has 3 outputs, for labels 0 to 2. The training y has labels 1 to 3"
    ):
        tf_lottery.find_ticket(make_model(), x, y + 1, **SMALL)
    with pytest.raises(ValueError, match="The test x has"):
        tf_lottery.find_ticket(make_model(), x, y, **SMALL, test_data=(x[:, :3], y))
    with pytest.raises(ValueError, match="compiled with a loss, and the training data have no y for it"):
        tf_lottery.find_ticket(make_model(), x, **SMALL)
    with pytest.raises(TypeError, match="training data are a generator, which can be read once"):
        tf_lottery.find_ticket(make_model(), (x for _ in range(3)), **SMALL)
    with pytest.raises(TypeError, match="validation_data must be .x, y.*Received: ndarray"):
        tf_lottery.find_ticket(make_model(), x, y, **SMALL, validation_data=x)


def test_a_model_that_cannot_be_searched_is_refused(keras, data):
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="has no weights yet. Build it first"):
        tf_lottery.find_ticket(unbuilt, *data)
    uncompiled = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="is not compiled. Call model.compile"):
        tf_lottery.find_ticket(uncompiled, *data)
    nothing = keras.Sequential([keras.layers.Input((8,)), keras.layers.Activation("relu")])
    nothing.compile("sgd", "mse")
    with pytest.raises(ValueError, match="has nothing to prune"):
        tf_lottery.find_ticket(nothing, *data)
    with pytest.raises(TypeError, match="Expected a keras.Model"):
        tf_lottery.find_ticket("model", *data)


@pytest.mark.usefixtures("no_xla")
def test_a_loss_that_is_nan_is_said_and_the_model_is_as_before(keras, make_model, data):
    model = make_model(keras.optimizers.SGD(1e30))
    before = kernels(model)
    with pytest.raises(NonFiniteError, match="level 0, arm 'ticket'"):
        tf_lottery.find_ticket(model, *data, **SMALL)
    for kernel, first in zip(kernels(model), before):
        np.testing.assert_array_equal(kernel, first)
    assert type(model) is keras.Sequential and getattr(model.layers[0].kernel, "constraint", None) is None


def test_a_second_search_in_a_workdir_is_refused_and_leaves_it_alone(make_model, data, tmp_path):
    tf_lottery.find_ticket(make_model(), *data, **SMALL, workdir=tmp_path)
    config = (tmp_path / "config.json").read_bytes()
    with locks.held(tmp_path / "replicate_1" / locks.LOCK):
        with pytest.raises(ValueError, match=r"is in use by another run \(process "):
            tf_lottery.find_ticket(make_model(), *data, **{**SMALL, "levels": 7}, workdir=tmp_path)
    assert (tmp_path / "config.json").read_bytes() == config
