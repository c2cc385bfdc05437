"""Images that stream from disk: the same ones as in memory, in an order that the key determines."""

import io
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from image_sets import numbered, photograph, store

from tf_lottery.experiments import crops, datasets, image_files, image_stream

tfds = pytest.importorskip("tensorflow_datasets")

TRAIN, TEST, HELD_OUT, BATCH = 90, 14, 20, 8
EPOCH = TRAIN - HELD_OUT  # examples: 8.75 batches


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Three data sets: of numbered images in five files and in one, and of photographs."""
    folder = tmp_path_factory.mktemp("data")
    store(folder, "numbered", numbered, (4, 5, 3))
    store(folder, "in_one_file", numbered, (4, 5, 3), shards=1)
    store(folder, "photographs", photograph, (None, None, 3))
    return str(folder)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of about 25 records."""
    monkeypatch.setattr(image_files, "_SHUFFLED_BYTES", 25 * 160)


def load(data_dir, name="numbered", **options):
    options = {"memory_gib": 0.0, "validation_size": HELD_OUT, "batch_size": BATCH, **options}
    return datasets.load(name, data_dir=data_dir, **options)


def photographs(data_dir, **options):
    return load(data_dir, "photographs", image_size=16, random_crops=True, **options)


def taken(stream, key, step, count):
    """The images and labels of some steps, one after the other."""
    runs = stream.order(*key).batches(step, count)
    return tuple(
        np.concatenate([run[part].reshape(-1, *run[part].shape[2:]) for run in runs]) for part in (0, 1)
    )


def passed(stream):
    return tuple(np.concatenate(parts) for parts in zip(*stream))


def numbers(images):
    return np.rint(images[:, 0, 0, 0] * 255).astype(int).tolist()


@pytest.mark.parametrize("name", ["numbered", "in_one_file"])
def test_the_parts_are_those_in_memory(data_dir, name):
    streamed, in_memory = load(data_dir, name), load(data_dir, name, memory_gib=1.0)
    assert streamed.classes == in_memory.classes == 3 and streamed.shape == in_memory.shape == (4, 5, 3)
    for part in ("train", "validation", "test"):
        found, expected = passed(getattr(streamed, part)), getattr(in_memory, part)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_a_pass_is_counted_and_begins_anew_each_time(data_dir):
    data = load(data_dir)
    assert [part.count() for part in (data.train, data.validation, data.test)] == [9, 3, 2]
    assert [len(y) for _, y in data.test] == [8, 6]
    np.testing.assert_array_equal(passed(data.test)[0], passed(data.test)[0])
    np.testing.assert_array_equal(data.train.first[0], next(iter(data.train))[0])


def test_every_epoch_has_every_example_once_and_batches_are_cut_from_epochs_end_to_end(data_dir):
    stream = load(data_dir).train
    found = numbers(taken(stream, (3, 1, 0), 0, 35)[0])  # four epochs to the image
    assert len(found) == 4 * EPOCH
    epochs = [found[start : start + EPOCH] for start in range(0, 4 * EPOCH, EPOCH)]
    expected = sorted(numbers(passed(stream)[0]))
    assert all(sorted(epoch) == expected for epoch in epochs)
    # In every epoch others come first, and an image comes next to others.
    assert len({frozenset(epoch[:25]) for epoch in epochs}) == 4
    neighbours = [{frozenset(pair) for pair in zip(epoch, epoch[1:])} for epoch in epochs]
    assert all(len(a & b) < 10 for a in neighbours for b in neighbours if a is not b)


def test_labels_stay_with_their_images(data_dir):
    images, labels = taken(load(data_dir).train, (0,), 0, 9)
    assert [number % 3 for number in numbers(images)] == labels.tolist()


def test_the_order_is_a_function_of_the_key(data_dir):
    one, again, other = (
        numbers(taken(load(data_dir).train, key, 0, 9)[0]) for key in ((1, 2), (1, 2), (1, 3))
    )
    assert one == again != other


def test_the_order_is_not_that_of_the_global_seed(data_dir):
    found = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        found.append(taken(photographs(data_dir).train, (5,), 0, 3)[0])
    np.testing.assert_array_equal(*found)


def test_any_chunks_and_any_start_give_the_same_bytes(data_dir):
    stream = photographs(data_dir).train
    whole = taken(stream, (1, 1), 0, 20)

    def check(order, step, count):
        ((x, y),) = order.batches(step, count)
        for found, expected in zip((x, y), whole):
            found = found.reshape(-1, *found.shape[2:])
            np.testing.assert_array_equal(found, expected[step * BATCH : (step + count) * BATCH])

    order, step = stream.order(1, 1), 0
    for count in (1, 1, 7, 3, 8):
        check(order, step, count)
        step += count
    for start in (0, 5, 9, 17):  # in each of the three epochs
        check(order, start, 3)


def test_the_number_of_threads_changes_nothing(data_dir, monkeypatch):
    found = []
    for threads in (1, 7):
        monkeypatch.setattr(tf.data, "AUTOTUNE", threads)
        found.append(taken(photographs(data_dir).train, (1,), 0, 12))
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)


def test_shares_make_up_the_batches(data_dir):
    stream, of = photographs(data_dir).train, 4
    ((x, y),) = stream.order(1).batches(7, 4)
    shares = []
    for index in range(of):
        stream.share = (index, of)
        shares += stream.order(1).batches(7, 4)
    assert shares[0][0].shape == (4, BATCH // of, 16, 16, 3)
    np.testing.assert_array_equal(np.concatenate([part for part, _ in shares], axis=1), x)
    np.testing.assert_array_equal(np.concatenate([part for _, part in shares], axis=1), y)


def test_what_goes_before_a_step_or_to_others_is_not_decoded(data_dir, monkeypatch):
    decoded = []
    decode = image_stream.StoredImages.decode

    def counted(self, record):
        record = tf.numpy_function(lambda r: decoded.append(1) or r, [record], tf.string)
        record.set_shape(())
        return decode(self, record)

    monkeypatch.setattr(image_stream.StoredImages, "decode", counted)
    monkeypatch.setattr(tf.data, "AUTOTUNE", 1)
    stream = load(data_dir).train
    stream.share = (1, 4)
    stream.order(1).batches(6, 2)
    # Of each batch 2 of 8 images; the batches that are ready and being made are decoded too.
    assert 4 <= len(decoded) <= 2 * (2 + image_stream._READY + 1)


def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    """Records that are read before the first batch is there, and while nobody asks for another."""
    monkeypatch.setattr(tf.data, "AUTOTUNE", 2)
    ahead = []
    for name, size in (("small", 400), ("large", 1600)):
        store(tmp_path, name, numbered, (4, 5, 3), shards=10, sizes=(size, 10))
        read = []
        records = image_files.ImageFiles._records

        def counted(self, files, records=records, read=read):
            return records(self, files).map(
                lambda r: tf.ensure_shape(
                    tf.numpy_function(lambda r: read.append(1) or r, [r], tf.string), ()
                )
            )

        monkeypatch.setattr(image_files.ImageFiles, "_records", counted)
        order = load(tmp_path, name, validation_size=10).train.order(0)
        order.batches(0, 1)
        time.sleep(0.5)  # for the threads that read ahead
        ahead.append(len(read))
        monkeypatch.setattr(image_files.ImageFiles, "_records", records)
    assert max(ahead) <= 4 * 25 + 4 * BATCH < 400


def test_images_of_many_sizes_are_brought_to_one(data_dir):
    data = photographs(data_dir, input_scaling="none")
    images, labels = passed(data.test)
    assert images.shape == (TEST, 16, 16, 3) and images.dtype == np.float32
    by_label = {}
    for number in range(TRAIN, TRAIN + TEST):
        pixels = np.array(PIL.Image.open(io.BytesIO(photograph(number))))
        by_label.setdefault(number % 3, []).append(crops.central(tf.constant(pixels), 16).numpy())
    for image, label in zip(images, labels):
        assert min(np.abs(image - other).max() for other in by_label[label]) < 3  # decoders round otherwise


def test_training_takes_other_parts_of_an_image_each_time(data_dir):
    stream = photographs(data_dir).train
    plain = load(data_dir, "photographs", image_size=16).train
    images, labels = taken(stream, (1,), 0, 35)
    epochs = images.reshape(4, EPOCH, -1)
    assert all(len(np.unique(epoch, axis=0)) == EPOCH for epoch in epochs)
    assert len(np.unique(epochs.reshape(4 * EPOCH, -1), axis=0)) == 4 * EPOCH
    whole, whole_labels = taken(plain, (1,), 0, 35)
    assert len(np.unique(whole.reshape(4 * EPOCH, -1), axis=0)) == EPOCH
    np.testing.assert_array_equal(labels, whole_labels)  # the order is the same, whatever is done to each


def test_the_centre_is_seven_eighths_of_the_shorter_side():
    pixels = np.zeros((64, 96, 1), np.uint8)
    pixels[4:60, 20:76] = 200
    np.testing.assert_array_equal(crops.central(tf.constant(pixels), 28), np.full((28, 28, 1), 200))
    pixels[4, 20] = 0
    assert crops.central(tf.constant(pixels), 56)[0, 0, 0] == 0


def test_random_parts_have_the_area_and_the_sides_of_the_paper():
    height, width = 80, 100
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = tf.constant(np.stack([rows, columns], axis=-1).astype(np.float32))
    parts = [crops.random_resized(image, 20, (0, number)).numpy() for number in range(150)]
    tall, wide = (
        np.array([np.abs(np.diff(part[..., i], axis=i)).mean() * 20 for part in parts]) for i in (0, 1)
    )
    area, ratio = tall * wide / (height * width), wide / tall
    assert 0.07 < area.min() < 0.2 and 0.8 < area.max() <= 1.02
    assert 0.7 < ratio.min() < 0.8 and 1.2 < ratio.max() < 1.4
    flipped = np.mean([part[0, 0, 1] > part[0, -1, 1] for part in parts])
    assert 0.4 < flipped < 0.6


def test_imagenet_scaling(data_dir):
    unit = passed(load(data_dir).test)[0]
    scaled = passed(load(data_dir, input_scaling="imagenet").test)[0]
    np.testing.assert_allclose(scaled * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406], unit, atol=1e-6)
    in_memory = load(data_dir, input_scaling="imagenet", memory_gib=1.0).test[0]
    np.testing.assert_allclose(scaled, in_memory, atol=1e-6)


def test_what_is_larger_than_the_memory_allowed_streams(data_dir):
    gib = (TRAIN + TEST) * 4 * 5 * 3 * 4 / 2**30
    assert isinstance(load(data_dir, memory_gib=0.99 * gib).train, image_stream.ImageStream)
    assert isinstance(load(data_dir, memory_gib=1.01 * gib).train, tuple)
    assert load(data_dir, memory_gib=1.0, image_size=3).shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("photographs", {}, "The images of 'photographs' are of many sizes, .* config.data.image_size=224"),
        ("photographs", {"memory_gib": 1e9}, "'photographs' are of many sizes"),
        ("numbered", {"input_scaling": "standardize"}, "'standardize' is for data in memory, .* Use 'unit'"),
        ("numbered", {"input_scaling": "l2"}, "'l2' is for data in memory, and these stream from disk"),
        ("numbered", {"validation_size": 90}, r"validation_size must be in 1..89, .* Received 90"),
        (
            "digits",
            {"image_size": 16},
            "The images of 'digits' are of one size and stay so: set image_size to 0",
        ),
    ],
)
def test_what_cannot_stream(data_dir, name, options, message):
    with pytest.raises(ValueError, match=message):
        load(data_dir, name, **options)


def test_labels_that_do_not_tell_how_many_classes_there_are(tmp_path):
    store(
        tmp_path, "plain", numbered, (4, 5, 3), shards=1, sizes=(30, 5), label=tfds.features.Scalar(np.int64)
    )
    with pytest.raises(
        ValueError, match="labels of 'plain' are plain integers, .* use a data set whose label"
    ):
        load(tmp_path, "plain")
    assert load(tmp_path, "plain", memory_gib=1.0).classes == 3


def test_gray_images_have_no_imagenet_scaling(tmp_path):
    def gray(number):
        return numbered(number)[..., :1]

    store(tmp_path, "gray", gray, (4, 5, 1), shards=1, sizes=(30, 5))
    for memory_gib in (0.0, 1.0):
        with pytest.raises(ValueError, match="of red, green and blue, and these images have 1 channels"):
            load(tmp_path, "gray", input_scaling="imagenet", memory_gib=memory_gib)


def test_a_batch_that_cannot_be_shared(data_dir):
    stream = load(data_dir).train
    stream.share = (0, 3)
    with pytest.raises(ValueError, match="A batch of 8 examples cannot be shared by 3 workers: give a batch"):
        stream.order(0)


def test_damaged_files(tmp_path):
    store(tmp_path, "damaged", numbered, (4, 5, 3), shards=1, sizes=(30, 5))
    (path,) = tmp_path.glob("damaged/*/*train*tfrecord*")
    path.write_bytes(path.read_bytes()[:-7])
    data = load(tmp_path, "damaged")
    message = "Cannot read the training data in '.*1.0.0': .* Delete that folder and prepare"
    with pytest.raises(ValueError, match=message):
        data.train.order(0).batches(0, 5)
    with pytest.raises(ValueError, match=message):
        passed(data.train)
