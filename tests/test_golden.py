"""Values that OpenLTH, TF-MOT, JaxPruner and lottery_ticket_pruner (LTP) pin in their own tests.

Where their rule is not `round(p * n)` of the remaining weights, ties from the back, ours is tested.
"""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel, apply_mask, network_weights
from tf_lottery.search.imp import iterative_pruning
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import masks, scores
from tf_lottery.tickets.rewinding import Rewinding
from tf_lottery.tickets.scores import Evidence
from tf_lottery.training.listener import Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.trainer import Trainer

ONES, TARGET = np.ones((1, 10), np.float32), np.full((1, 1), 40, np.float32)
NO_BOOLS = [np.ones((10, 1), int), np.full((10, 1), 0.5)]
SHAPES = {"a": (50, 100), "b": (100, 40), "c": (40, 10)}
EVERY_OTHER = {"inner/kernel": np.array([1, 0] * 5, bool).reshape(10, 1)}


def output(model):
    return float(model(ONES)[0, 0])


def step(model):
    # Moves each kept weight by -0.01 * 2 * (output - 40).
    model.train_on_batch(ONES, TARGET)


def by_magnitude(weights, fraction, mask=None, scope="layer"):
    """Prunes layers of raw weights, signs and all; fraction is one for all layers or one for each."""
    weights = {path: np.asarray(array, float) for path, array in weights.items()}
    mask = masks.ones({path: array.shape for path, array in weights.items()}) if mask is None else mask
    scored = scores.magnitude(Evidence(mask, {}, weights, np.random.default_rng(0)))
    fractions = fraction if isinstance(fraction, dict) else dict.fromkeys(mask, fraction)
    return tf_lottery.prune(mask, scored, fractions, scope)


def kept(weights, fraction, mask=None):
    mask = None if mask is None else {"a": np.array(mask, bool)}
    return by_magnitude({"a": weights}, fraction, mask)["a"].astype(int).tolist()


def test_openlth_a_dense_step_of_an_inner_product(make_inner_product):
    model = make_inner_product()
    assert output(model) == 45
    step(model)
    assert output(model) == pytest.approx(44, abs=1e-4)


def test_openlth_a_masked_step_of_an_inner_product(make_inner_product):
    model = apply_mask(make_inner_product(), EVERY_OTHER)
    assert output(model) == 20
    step(model)
    assert output(model) == pytest.approx(22, abs=1e-4)
    moved = np.array([0.4, 0, 2.4, 0, 4.4, 0, 6.4, 0, 8.4, 0])
    np.testing.assert_allclose(model.get_weights()[0].ravel(), moved, atol=1e-5)


def test_openlth_a_step_then_save_and_load_then_a_step(make_inner_product, tmp_path):
    model = apply_mask(make_inner_product(range(10, 20)), EVERY_OTHER)
    assert output(model) == 70
    step(model)
    assert output(model) == pytest.approx(67, abs=1e-4)
    path = tmp_path / "inner.ticket"
    tf_lottery.Ticket(EVERY_OTHER, network_weights(MaskedModel(model).state()), level=1).save(path)
    other = tf_lottery.Ticket.load(path).apply(make_inner_product())
    assert output(other) == pytest.approx(67, abs=1e-4)
    step(other)
    assert output(other) == pytest.approx(64.3, abs=1e-4)
    assert not other.get_weights()[0].ravel()[1::2].any()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({}, "inner/kernel: nothing, the model has shape"),
        ({**EVERY_OTHER, "outer/kernel": np.ones((1, 1), bool)}, "outer/kernel: .*the model has nothing"),
        ({"inner/kernel": np.ones((10, 2), bool)}, r"shape \(10, 2\), the model has shape \(10, 1\)"),
    ],
    ids=["missing", "extra", "wrong shape"],
)
def test_openlth_a_mask_that_does_not_fit_is_refused(make_inner_product, mask, message):
    with pytest.raises(ValueError, match=message):
        apply_mask(make_inner_product(), mask)


@pytest.mark.parametrize("array", NO_BOOLS, ids=["ints", "floats"])
def test_openlth_a_mask_holds_bools(array):
    with pytest.raises(TypeError, match="a mask holds bools"):
        tf_lottery.density({"inner/kernel": array})
    with pytest.raises(TypeError, match="a mask holds bools"):
        tf_lottery.Ticket({"inner/kernel": array}, {"inner/kernel": np.ones((10, 1))}, level=1)
    with pytest.raises(TypeError, match="a mask holds bools"):
        tf_lottery.prune({"inner/kernel": array}, {"inner/kernel": np.ones((10, 1))}, {"inner/kernel": 0.5})


@pytest.mark.parametrize("array", NO_BOOLS, ids=["ints", "floats"])
def test_openlth_a_mask_on_a_model_holds_bools(make_inner_product, array):
    with pytest.raises(TypeError, match="a mask holds bools"):
        apply_mask(make_inner_product(), {"inner/kernel": array})


def normal_weights():
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape) for path, shape in SHAPES.items()}


def assert_the_smallest_are_gone(weights, pruned, before=None):
    before = before or masks.ones(SHAPES)
    left = np.concatenate([np.abs(weights[path])[pruned[path]] for path in pruned])
    gone = np.concatenate([np.abs(weights[path])[before[path] & ~pruned[path]] for path in pruned])
    assert left.min() > gone.max()


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.87])
def test_openlth_global_pruning_takes_its_share_of_all_weights_twice(fraction):
    weights, total = normal_weights(), 9400
    first = by_magnitude(weights, fraction, scope="global")
    # OpenLTH removes up to two weights more, hence its bound of f + 1e-4; ours is to half a weight.
    assert abs(total - masks.kept(first) - fraction * total) <= 0.5
    assert_the_smallest_are_gone(weights, first)
    second = by_magnitude(weights, fraction, first, scope="global")
    assert abs(masks.kept(first) - masks.kept(second) - fraction * masks.kept(first)) <= 0.5
    assert masks.density(second) == pytest.approx((1 - fraction) ** 2, abs=1e-4)
    assert all((second[path] <= first[path]).all() for path in SHAPES)
    assert_the_smallest_are_gone(weights, second, first)


def test_openlth_global_pruning_leaves_exempt_layers_whole_and_the_share_of_the_others_exact():
    weights = normal_weights()
    # Ours is a share of the layers in the pool; OpenLTH means one of all, exempt ones too.
    pruned = by_magnitude(weights, {"a": 0.3, "b": 0.0, "c": 0.3}, scope="global")
    assert pruned["b"].all()
    assert pruned["a"].sum() + pruned["c"].sum() == 5400 - 1620
    pool = {path: pruned[path] for path in ("a", "c")}
    assert_the_smallest_are_gone(weights, pool)
    assert pruned["a"].sum() != 3500  # not layer by layer


def test_openlth_the_levels_of_a_search(make_model, data):
    model = make_model(batch_norm=True)
    model.run_eagerly = True
    starts = []

    def fit(model):
        starts.append(network_weights(MaskedModel(model).state()))
        model.train_on_batch(data[0][:32], data[1][:32])

    tickets = tf_lottery.iterative_magnitude_pruning(model, fit, levels=3, layer_fractions={})
    for level, ticket in enumerate(tickets):
        assert ticket.density == pytest.approx(0.8**level, abs=0.01)
        assert len(starts[level]) == 14
        for path, array in starts[0].items():
            expected = np.where(ticket.mask.get(path, True), array, 0)
            np.testing.assert_array_equal(starts[level][path], expected, err_msg=path)
        if level == 0:
            assert all(mask.all() for mask in ticket.mask.values())
    assert len(starts) == 4


class Recorder(Listener):
    """Keeps the model's state at each level's start and at step 2 of level 0."""

    def __init__(self, masked):
        self.masked = masked
        self.starts = {}
        self.at_two = None

    def started(self, start, history):
        self.starts[start.level] = (start.step, self.masked.state())

    def stepped(self, start, step, logs):
        if (start.level, step) == (0, 2):
            self.at_two = self.masked.state()


def test_openlth_the_levels_of_a_search_that_rewinds_to_step_2(make_model, data):
    model = make_model(batch_norm=True)
    masked = MaskedModel(model)
    recorder = Recorder(masked)
    loop = Loop(model, data, {"validation": data}, batch_size=16, chunk=2, jit=False)
    trainer = Trainer(masked, loop, steps=6, eval_every=3, order_key=(0, 1), listeners=[recorder])
    plan = Plan(2, dict.fromkeys(masked.shapes, 0.2), rewinding=Rewinding(restore=2, restart=2))
    searched = {
        trained.start.level: trained
        for trained in iterative_pruning(plan, trainer, masked.state(), masked.mask())
    }
    assert {level: step for level, (step, _) in recorder.starts.items()} == {0: 0, 1: 2, 2: 2}
    for level in (1, 2):
        mask = searched[level].start.mask
        for path, array in recorder.starts[level][1].items():
            expected = np.where(mask.get(path, True), recorder.at_two[path], 0)
            np.testing.assert_array_equal(array, expected, err_msg=path)
    first = recorder.starts[0][1]
    assert not np.array_equal(recorder.at_two["fc1/kernel"], first["fc1/kernel"])


def test_tfmot_the_smallest_of_ten_go_whatever_their_sign():
    weights = np.arange(1, 11) * np.array([1, -1] * 5)
    assert kept(weights, 0.2) == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


# At .9999 TF-MOT leaves one weight, for it keeps no layer empty; round(99.99) is all of them.
@pytest.mark.filterwarnings("ignore::tf_lottery.tickets.masks.LayerCollapse")
@pytest.mark.parametrize(("fraction", "left"), [(0.5, 50), (0.99, 1), (0.9999, 0)])
def test_tfmot_the_smallest_of_a_hundred_go(fraction, left):
    assert kept(np.arange(1, 101), fraction) == [0] * (100 - left) + [1] * left


def test_tfmot_a_rising_sparsity_goes_from_one_count_to_the_next():
    mask, counts = {"a": np.ones(100, bool)}, []
    before = 0.0
    for sparsity in [0, 0.1, 0.1, 0.3, 0.3, 0.5]:
        # Theirs is the sparsity of the whole, ours the share of what is left.
        fraction = (sparsity - before) / (1 - before)
        mask = by_magnitude({"a": np.arange(1, 101)}, fraction, mask)
        counts.append(masks.kept(mask))
        before = sparsity
    assert counts == [100, 90, 90, 70, 70, 50]


def test_tfmot_nothing_pruned_trains_as_the_model_alone_bit_for_bit(make_model, data):
    alone, masked = make_model(batch_norm=True), make_model(batch_norm=True)
    apply_mask(masked, masks.ones(MaskedModel(masked).shapes))
    for model in (alone, masked):
        model.fit(*data, epochs=1, batch_size=60, shuffle=False, verbose=0)
    for one, other in zip(alone.get_weights(), masked.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_tfmot_making_a_model_maskable_leaves_its_predictions(make_model, data):
    model = make_model(batch_norm=True)
    before = np.array(model(data[0]))
    MaskedModel(model)
    np.testing.assert_array_equal(np.array(model(data[0])), before)


def test_tfmot_wrapping_and_stripping_leave_predictions(keras, make_model, data, random_mask):
    if keras.__name__ != "tf_keras":
        pytest.skip("TF-MOT wraps tf_keras models only")
    model = make_model(batch_norm=True)
    apply_mask(model, random_mask(MaskedModel(model).shapes))
    before = np.array(model(data[0]))
    wrapped = tf_lottery.wrap(model)
    np.testing.assert_array_equal(np.array(wrapped(data[0])), before)
    stripped = tf_lottery.strip(wrapped)
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in model.layers]
    np.testing.assert_array_equal(np.array(stripped(data[0])), before)


def test_tfmot_a_checkpoint_in_the_middle_of_an_epoch_is_sparse(keras, make_model, data, random_mask):
    model = make_model()
    mask = random_mask(MaskedModel(model).shapes)
    apply_mask(model, mask)
    kernels = []

    def look(batch, logs):
        kernels.append(model.get_weights()[::2])

    look = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    model.fit(*data, epochs=1, batch_size=60, callbacks=[look], verbose=0)
    assert len(kernels) == 4
    for after_step in kernels:
        for kernel, array in zip(after_step, mask.values()):
            assert kernel[array].all() and not kernel[~array].any()


def test_tfmot_two_of_four_along_the_inputs():
    kernel = np.array([[0.74, 0.68], [-0.89, -0.45], [-1.68, 1.24], [0.31, -0.6]])
    mask = masks.ones({"a": (4, 2)})
    for _ in range(2):  # theirs goes there at once
        mask = tf_lottery.prune(mask, {"a": np.abs(kernel)}, {"a": 0.5}, structure="2:4")
    assert mask["a"].astype(int).tolist() == [[0, 1], [1, 0], [1, 1], [0, 0]]


# JaxPruner rounds layer by layer and so keeps 37 and 16 of the 74; by the formula the densities are
# e * (6 / 8, 9 / 18, 12 / 48): e = 29 / 21 with the first layer full, and e = 16 / 27.
@pytest.mark.parametrize(("left", "sparsities"), [(37, (0, 0.31, 0.655)), (16, (0.556, 0.70, 0.85))])
def test_jaxpruner_erk(left, sparsities):
    mask = masks.ones({"a": (2, 4), "b": (3, 6), "c": (2, 4, 6)})
    ones = {path: np.ones(array.shape) for path, array in mask.items()}
    pruned = tf_lottery.prune(mask, ones, dict.fromkeys(mask, 1 - left / 74), "erk")
    assert masks.kept(pruned) == left
    for array, sparsity in zip(pruned.values(), sparsities):
        assert array.sum() == round((1 - sparsity) * array.size)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 0.5, 0.3, 0.2, 1, 1.5, 1.8, 2, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1, 0, 0]),
        ([1] * 8, [1, 1, 1, 1, 0, 0, 0, 0]),
    ],
)
def test_jaxpruner_the_top_half_is_exact_and_ties_go_from_the_back(weights, expected):
    assert kept(weights, 0.5) == expected
    assert kept(-np.array(weights), 0.5) == expected


def test_jaxpruner_the_top_half_of_two_layers():
    weights = {"w": [0.1, 0.9, -0.2, 0.5], "w2": [0.7, 0.8]}
    mask = by_magnitude(weights, 0.5, scope="global")
    assert mask["w"].tolist() == [False, True, False, False]
    assert mask["w2"].tolist() == [True, True]


@pytest.mark.parametrize(
    ("weights", "fraction", "expected"),
    [
        ([1, 2, 3, 4], 0.25, [0, 1, 1, 1]),
        ([3, 1, 2, 4], 0.5, [1, 0, 0, 1]),
        ([5, 3, 1, 2, 4], 0.5, [1, 1, 0, 0, 1]),  # 2.5 rounds to the even 2
        ([-1, 2, -3, 4], 0.5, [0, 0, 1, 1]),
        ([1, 1, 1, 1, 2, 2], 0.5, [1, 0, 0, 0, 1, 1]),  # theirs: any one of the four
        # Theirs is int(p * n): none, and 3.
        ([4, 3, 2, 1], 0.2, [1, 1, 1, 0]),
        ([7, 6, 5, 4, 3, 2, 1], 0.5, [1, 1, 1, 0, 0, 0, 0]),
    ],
)
def test_ltp_small_layers(weights, fraction, expected):
    assert kept(weights, fraction) == expected


def test_ltp_a_layer_that_was_pruned_before():
    assert kept([1, 2, 3, 4, 5], 0.25, mask=[0, 1, 1, 1, 1]) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("fractions", [(0.5, 0.2), (0.2, 0.5)])
def test_ltp_shares_of_what_is_left_add_up_to_60_percent(fractions):
    weights = np.arange(10, 0, -1)
    first = kept(weights, fractions[0])
    assert kept(weights, fractions[1], mask=first) == [1] * 4 + [0] * 6
