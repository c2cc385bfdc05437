"""Tickets before any training: SynFlow."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.search import at_init
from tf_lottery.search.network import KerasNetwork
from tf_lottery.tickets import masks


def chain(keras, *weights, **arguments):
    """A network of dense layers without biases that has these weights."""
    layers = [keras.layers.Input((len(weights[0]),))]
    for i, weight in enumerate(weights):
        last = arguments if i == len(weights) - 1 else {"activation": "relu"}
        layers.append(keras.layers.Dense(np.shape(weight)[1], use_bias=False, name=f"fc{i}", **last))
    model = keras.Sequential(layers)
    model.set_weights([np.array(weight, np.float32) for weight in weights])
    return model


def test_scores_are_the_flow_of_all_paths_through_a_weight(keras):
    first, second = [[1.0, -2.0], [3.0, 0.5]], [[2.0], [-1.0]]
    masked = MaskedModel(chain(keras, first, second))
    network = KerasNetwork(masked, None, key=(), steps=0, batch_size=0)
    flow = network.flow(masked.state(), masked.mask())
    np.testing.assert_allclose(flow["fc0/kernel"] * np.abs(first), [[2, 2], [6, 0.5]])
    np.testing.assert_allclose(flow["fc1/kernel"] * np.abs(second), [[8], [2.5]])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "tanh"])
def test_the_activation_of_the_output_is_no_matter(keras, activation):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(6, 8)), rng.normal(size=(8, 3))]
    expected = at_init.synflow(MaskedModel(chain(keras, *weights)), 0.3)
    found = at_init.synflow(MaskedModel(chain(keras, *weights, activation=activation)), 0.3)
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path])


def test_the_count_is_exact_and_no_layer_collapses(keras):
    rng = np.random.default_rng(0)
    # One layer is far wider than the others: magnitudes over all layers would empty it last.
    weights = [rng.normal(size=(20, 40)), 0.01 * rng.normal(size=(40, 5)), rng.normal(size=(5, 4))]
    for density in (0.5, 0.1, 0.02):
        mask = at_init.synflow(MaskedModel(chain(keras, *weights)), density)
        assert masks.kept(mask) == round(density * 1020)
        assert all(array.any() for array in mask.values())


def test_every_weight_that_is_kept_lies_on_a_path(keras):
    rng = np.random.default_rng(0)
    model = chain(keras, rng.normal(size=(12, 10)), rng.normal(size=(10, 10)), rng.normal(size=(10, 3)))
    first, second, third = at_init.synflow(MaskedModel(model), 0.1).values()
    for above, below in ((first, second), (second, third)):
        np.testing.assert_array_equal(above.any(axis=0), below.any(axis=1))


def test_the_model_is_as_before(make_model, random_mask):
    model = make_model(batch_norm=True)
    masked = MaskedModel(model)
    before, activations = masked.state(), [getattr(layer, "activation", None) for layer in model.layers]
    at_init.synflow(masked, 0.2)
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)
    assert all(array.all() for array in masked.mask().values())
    assert [getattr(layer, "activation", None) for layer in model.layers] == activations


def test_find_ticket_without_data_gives_it_and_says_so(make_model, data, capsys):
    model = make_model(batch_norm=True)
    before = MaskedModel(model).fresh_state
    ticket = tf_lottery.find_ticket(model, target_density=0.25)
    said = capsys.readouterr().out
    assert "No data, so no training" in said and "SynFlow (2006.05467)" in said and "25" in said
    assert ticket.method.startswith("SynFlow (2006.05467) in 100 rounds, without data")
    assert ticket.density == pytest.approx(0.25, abs=0.002)
    assert "SynFlow" in ticket.summary() and ticket.plot().axes
    for path, kernel in MaskedModel(model).kernels().items():
        np.testing.assert_array_equal(kernel, np.where(ticket.mask[path], before[path], 0))
    model.fit(*data, verbose=0)
    for path, kernel in MaskedModel(model).kernels().items():
        assert (kernel[~ticket.mask[path]] == 0).all()


def test_levels_and_fraction_give_its_density(make_model):
    ticket = tf_lottery.find_ticket(make_model(), levels=2, prune_fraction=0.5, verbose=0)
    assert ticket.density == pytest.approx(0.25, abs=0.002)


def test_what_cannot_be_scored_is_refused(keras):
    model = chain(keras, np.ones((3, 2)))
    with pytest.raises(ValueError, match="target_density must be in .0, 1., and leave one of .* Received 2"):
        tf_lottery.find_ticket(model, target_density=2)
    with pytest.raises(ValueError, match="leave one of the 6 weights. Received 0.01"):
        tf_lottery.find_ticket(model, target_density=0.01)
    for layer in (keras.layers.Softmax(), keras.layers.LayerNormalization()):
        ends = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2), layer])
        with pytest.raises(ValueError, match=f"nothing flows through {type(layer).__name__} as"):
            tf_lottery.find_ticket(ends, verbose=0)
    with pytest.raises(ValueError, match="scores of .* are all 0"):
        tf_lottery.find_ticket(chain(keras, np.zeros((3, 2))), verbose=0)
    with pytest.raises(ValueError, match="nothing to do with validation_data, epochs, controls"):
        tf_lottery.find_ticket(model, epochs=2, controls=["reinit"], validation_data=(1, 2))
    deep = chain(keras, *[np.full((9, 9), 1e30)] * 2)
    with pytest.raises(ValueError, match="not finite: the network is too deep"):
        tf_lottery.find_ticket(deep, verbose=0)
    loose = keras.Sequential([keras.layers.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="inputs' shapes must be known"):
        tf_lottery.find_ticket(loose, verbose=0)
