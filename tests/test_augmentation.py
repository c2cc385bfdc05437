"""Random crops and flips, their state, and how it is kept, on both flavours."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.experiments import augmentation, networks
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.training.loop import Loop

IMAGES = np.random.default_rng(0).normal(size=(64, 6, 5, 3)).astype(np.float32)
IMAGES[1] = IMAGES[0]


def all_versions(image):
    """Every image that cropping and flipping can make: (top, left, flipped) -> array."""
    height, width, _ = image.shape
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    crops = {
        (top, left): padded[top : top + height, left : left + width] for top in range(9) for left in range(9)
    }
    return {(*at, flip): crop[:, ::-1] if flip else crop for at, crop in crops.items() for flip in (0, 1)}


def drawn(images, moved):
    """What was drawn for each image; each has to be one of its versions."""
    found = []
    for image, result in zip(images, np.asarray(moved)):
        matches = [how for how, version in all_versions(image).items() if np.array_equal(version, result)]
        assert matches
        found.append(matches[0])
    return found


def layer_of(keras, seed=3):
    return augmentation.crop_flip(keras)(seed, name="augment")


def test_each_image_is_padded_cropped_and_flipped_by_itself(keras):
    layer = layer_of(keras)
    draws = [how for _ in range(5) for how in drawn(IMAGES, layer(IMAGES, training=True))]
    tops, lefts, flips = (np.array(each) for each in zip(*draws))
    # Whole shifts may leave an image empty here, and then its flip is not to be told.
    for shifts in (tops, lefts):
        counts = np.bincount(shifts, minlength=9)
        assert len(counts) == 9 and counts.min() > 10 and counts.max() < 75
    assert 0.35 < flips.mean() < 0.65
    assert len(set(draws[:64])) > 40
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


def test_equal_images_become_different_ones(keras):
    moved = np.asarray(layer_of(keras)(np.repeat(IMAGES[:1], 50, axis=0), training=True))
    assert len({image.tobytes() for image in moved}) > 30


@pytest.mark.parametrize("training", [False, None])
def test_nothing_is_done_outside_training(keras, training):
    layer = layer_of(keras)
    np.testing.assert_array_equal(layer(IMAGES, training=training), IMAGES)
    np.testing.assert_array_equal(layer.state, [3, 0])


def test_draws_follow_the_state(keras):
    layer, same, other = layer_of(keras), layer_of(keras), layer_of(keras, seed=4)
    first, second = (np.asarray(layer(IMAGES, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer.state, [3, 2])
    np.testing.assert_array_equal(same(IMAGES, training=True), first)
    assert not np.array_equal(other(IMAGES, training=True), first)
    same.state.assign([3, 0])
    np.testing.assert_array_equal(same(IMAGES, training=True), first)


def test_both_kerases_draw_alike():
    import keras
    import tf_keras

    one, two = (layer_of(each)(IMAGES, training=True) for each in (keras, tf_keras))
    np.testing.assert_array_equal(one, two)


def compiled(keras, front):
    model = networks.build("mlp:5", keras, IMAGES.shape[1:], 3, front=front)
    if keras.__name__ == "tf_keras":
        model = tf_lottery.wrap(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def test_the_state_is_part_of_the_model_s_and_not_a_weight(keras):
    masked = MaskedModel(compiled(keras, layer_of(keras)))
    path = "augment/seed_generator_state"
    np.testing.assert_array_equal(masked.state()[path], [3, 0])
    assert path not in masked.shapes
    masked.model(IMAGES, training=True)
    np.testing.assert_array_equal(masked.state()[path], [3, 1])
    np.testing.assert_array_equal(masked.draw_initial(len)[path], [3, 0])


def test_training_goes_on_from_a_snapshot_bit_for_bit(keras):
    model = compiled(keras, layer_of(keras))
    masked = MaskedModel(model)
    labels = np.arange(64) % 3
    loop = Loop(
        model,
        (IMAGES, labels),
        {"test": (IMAGES, labels)},
        batch_size=16,
        chunk=4,
        jit=keras.__name__ == "keras",
    )
    order = loop.order(0)
    loop.train(order.batches(0, 4))
    snapshot = masked.state()
    assert snapshot["augment/seed_generator_state"].tolist() == [3, 4]
    loop.evaluate("test")
    loop.train(order.batches(4, 4))
    end = masked.state()
    masked.restore(snapshot)
    loop.train(order.batches(4, 4))
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, end[path], err_msg=path)
    # Without the state it is another run.
    masked.restore({**snapshot, "augment/seed_generator_state": np.array([3, 9])})
    loop.train(order.batches(4, 4))
    assert not np.array_equal(masked.state()["fc1/kernel"], end["fc1/kernel"])


def test_it_trains_in_fit_and_survives_clone_and_saving(keras, tmp_path):
    model = compiled(keras, layer_of(keras))
    model.fit(IMAGES, np.arange(64) % 3, batch_size=32, verbose=0)
    np.testing.assert_array_equal(model.get_layer("augment").state, [3, 2])
    clone = keras.models.clone_model(model)
    np.testing.assert_array_equal(clone.get_layer("augment").state, [3, 0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").get_layer("augment")
    np.testing.assert_array_equal(loaded.state, [3, 2])
    first, second = (layer(IMAGES, training=True) for layer in (loaded, model.get_layer("augment")))
    np.testing.assert_array_equal(first, second)
