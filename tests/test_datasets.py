import dataclasses
import gzip
import http.server
import socket
import struct
import threading

import numpy as np
import pytest

from tf_lottery.experiments import datasets, stored

SCALINGS = ("unit", "standardize", "l2", "none")


def digits(**options):
    return datasets.load("digits", **{"validation_size": 200, **options})


def write_idx(folder, images, labels, test_images, test_labels):
    folder.mkdir(exist_ok=True)
    for prefix, x, y in (("train", images, labels), ("t10k", test_images, test_labels)):
        for what, a in (("images-idx3", x), ("labels-idx1", y)):
            data = struct.pack(f">HBB{a.ndim}I", 0, 8, a.ndim, *a.shape) + a.astype(np.uint8).tobytes()
            (folder / f"{prefix}-{what}-ubyte.gz").write_bytes(gzip.compress(data))


@pytest.fixture
def idx_arrays():
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (40, 4, 5)), np.arange(40) % 3
    images[:2] = 0
    return images, labels, random.integers(0, 256, (9, 4, 5)), np.arange(9) % 2


@pytest.fixture
def idx_name(tmp_path, idx_arrays):
    write_idx(tmp_path / "set", *idx_arrays)
    return f"idx:{tmp_path / 'set'}"


def rows(pair):
    return [(*x.ravel().tolist(), int(y)) for x, y in zip(*pair, strict=True)]


def test_digits_are_all_there_once():
    from sklearn.datasets import load_digits

    data = digits(input_scaling="none")
    assert [len(part[0]) for part in (data.train, data.validation, data.test)] == [1001, 200, 596]
    for x, y in (data.train, data.validation, data.test):
        assert x.shape[1:] == (8, 8, 1) and x.dtype == np.float32
        assert y.shape == (len(x),) and y.dtype == np.int32
    assert data.classes == 10
    whole = load_digits()
    found = rows(data.train) + rows(data.validation) + rows(data.test)
    assert sorted(found) == sorted(rows((whole.images, whole.target)))


def test_the_test_part_of_digits_is_fixed_and_stratified():
    first, second = digits(), digits(seed=1, validation_size=300)
    np.testing.assert_array_equal(first.test[0], second.test[0])
    trained_with = np.bincount(np.concatenate([first.train[1], first.validation[1]]))
    assert np.all(np.abs(2 * np.bincount(first.test[1]) - trained_with) <= 2)


def test_the_validation_part_depends_on_the_seed_alone():
    first, again, other = digits(seed=3), digits(seed=3), digits(seed=4)
    assert rows(first.validation) == rows(again.validation)
    assert len(set(rows(first.validation)) & set(rows(other.validation))) < 100
    # Drawn at random, not the first or last ones: every class is near its share of 20.
    counts = np.bincount(first.validation[1], minlength=10)
    assert counts.min() >= 8 and counts.max() <= 35


def test_where_an_idx_folder_lies_does_not_change_the_draw(tmp_path, idx_arrays, idx_name):
    write_idx(tmp_path / "copy", *idx_arrays)
    first = datasets.load(idx_name, validation_size=10)
    second = datasets.load(f"idx:{tmp_path / 'copy'}", validation_size=10)
    assert rows(first.validation) == rows(second.validation)


@pytest.mark.parametrize("size", [-1, 0, 1201, 5000])
def test_validation_size_out_of_range(size):
    message = rf"validation_size must be in 1..1200, for it is held out .* Received {size}\."
    with pytest.raises(ValueError, match=message):
        digits(validation_size=size)


def test_validation_size_at_its_bounds():
    assert len(digits(validation_size=1).validation[0]) == 1
    assert len(digits(validation_size=1200).train[0]) == 1


def test_idx_folder(idx_name, idx_arrays):
    data = datasets.load(idx_name, validation_size=10, input_scaling="none")
    images, labels, test_images, test_labels = idx_arrays
    assert data.classes == 3
    assert data.train[0].shape == (30, 4, 5, 1) and data.validation[0].shape == (10, 4, 5, 1)
    assert sorted(rows(data.train) + rows(data.validation)) == sorted(rows((images, labels)))
    np.testing.assert_array_equal(data.test[0][..., 0], test_images)
    np.testing.assert_array_equal(data.test[1], test_labels)
    assert data.test[0].dtype == np.float32 and data.test[1].dtype == np.int32


@pytest.mark.parametrize("name", ["idx", "idx:"])
def test_idx_without_a_folder(name):
    with pytest.raises(ValueError, match="folder is missing: write it after the colon, as in 'idx:"):
        datasets.load(name)


def test_idx_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder '.*gone'"):
        datasets.load(f"idx:{tmp_path / 'gone'}")


def test_test_labels_beyond_the_training_labels(tmp_path, idx_arrays):
    images, labels, test_images, test_labels = idx_arrays
    write_idx(tmp_path / "set", images, labels, test_images, test_labels + 2)
    message = "has labels from 0 to 2, but in its test examples they range from 2 to 3; use one whose"
    with pytest.raises(ValueError, match=message):
        datasets.load(f"idx:{tmp_path / 'set'}", validation_size=10)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling_keeps_type_shape_and_order(idx_name, scaling):
    data = datasets.load(idx_name, validation_size=10, input_scaling=scaling)
    raw = datasets.load(idx_name, validation_size=10, input_scaling="none")
    for part in ("train", "validation", "test"):
        (x, y), (raw_x, raw_y) = getattr(data, part), getattr(raw, part)
        assert x.dtype == np.float32 and x.shape == raw_x.shape and np.all(np.isfinite(x))
        np.testing.assert_array_equal(y, raw_y)
        image = len(x) - 1  # Not one of the zero ones.
        assert np.corrcoef(x[image].ravel(), raw_x[image].ravel())[0, 1] > 0.9999


def test_unit_scaling_divides_by_the_full_scale(idx_name, idx_arrays):
    data = datasets.load(idx_name, validation_size=10)
    np.testing.assert_allclose(data.test[0][..., 0], idx_arrays[2] / 255, rtol=1e-6)
    unit, raw = digits(), digits(input_scaling="none")
    np.testing.assert_array_equal(unit.train[0], raw.train[0] / 16)
    assert unit.train[0].max() == 1


def test_standardizing_uses_the_training_part_alone(idx_name):
    raw = datasets.load(idx_name, validation_size=20, input_scaling="unit")
    data = datasets.load(idx_name, validation_size=20, input_scaling="standardize")
    assert data.train[0].mean() == pytest.approx(0, abs=1e-5)
    assert data.train[0].std() == pytest.approx(1, abs=1e-5)
    mean, deviation = raw.train[0].mean(), raw.train[0].std()
    assert abs(raw.validation[0].mean() - mean) > 0.001  # Else the next lines would show nothing.
    for part in ("validation", "test"):
        expected = (getattr(raw, part)[0] - mean) / deviation
        np.testing.assert_allclose(getattr(data, part)[0], expected, rtol=1e-4, atol=1e-5)


def test_l2_scaling_and_zero_images(idx_name):
    data = datasets.load(idx_name, validation_size=10, input_scaling="l2")
    norms = np.linalg.norm(np.concatenate([data.train[0], data.validation[0]]).reshape(40, -1), axis=1)
    assert np.count_nonzero(norms == 0) == 2
    np.testing.assert_allclose(norms[norms > 0], 1, rtol=1e-6)


def test_images_that_cannot_be_standardized(tmp_path):
    images, labels = np.full((9, 2, 2), 7), np.arange(9) % 2
    write_idx(tmp_path / "flat", images, labels, images, labels)
    with pytest.raises(ValueError, match="Cannot standardize: every training pixel is 7; use another"):
        datasets.load(f"idx:{tmp_path / 'flat'}", validation_size=2, input_scaling="standardize")


def test_unknown_scaling():
    message = "Unknown input scaling 'standardise'. Did you mean 'standardize'.*: unit, standardize, imagenet"
    with pytest.raises(ValueError, match=message):
        digits(input_scaling="standardise")


def test_data_cannot_be_changed_by_mistake():
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits().classes = 3


# Below: tensorflow_datasets. Nothing here asks the network.


@pytest.fixture
def tfds(monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(stored, "_answers", lambda url: False)
    return tfds


def prepare(
    tfds,
    data_dir,
    name="mnist",
    sizes=None,
    label=None,
    first_label=0,
    image=None,
    keys=("image", "label"),
):
    """Prepares a data set of 30 and 12 images under the name and version of one of tensorflow_datasets."""
    sizes = sizes or {"train": 30, "test": 12}
    features = {
        "image": image or tfds.features.Image(shape=(28, 28, 1)),
        "label": label or tfds.features.ClassLabel(num_classes=10),
    }

    class Stored(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        pkg_dir_path = data_dir  # Where a packaged builder would have its description.

        def _info(self):
            features_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features_dict, supervised_keys=keys)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(size) for split, size in sizes.items()}

        def _generate_examples(self, size):
            for i in range(size):
                yield i, {"image": np.full((28, 28, 1), 8 * i, np.uint8), "label": i % 3 + first_label}

    Stored.name = name
    Stored(data_dir=data_dir).download_and_prepare()


# "mnist" is one that tensorflow_datasets knows, "my_own" is known by its files alone.
@pytest.mark.parametrize("name", ["mnist", "mnist:3.0.1", "my_own"])
def test_prepared_data_set(tfds, tmp_path, name):
    prepare(tfds, tmp_path, name.partition(":")[0])
    data = datasets.load(name, data_dir=str(tmp_path), validation_size=10, input_scaling="none")
    assert data.classes == 10
    both = sorted(rows(data.train) + rows(data.validation))
    assert both == [(*[8 * i] * 784, i % 3) for i in range(30)]
    assert sorted(rows(data.test)) == [(*[8 * i] * 784, i % 3) for i in range(12)]
    assert data.train[0].shape == (20, 28, 28, 1) and data.train[0].dtype == np.float32
    assert data.train[1].dtype == np.int32
    unit = datasets.load(name, data_dir=str(tmp_path), validation_size=10)
    np.testing.assert_allclose(unit.train[0], data.train[0] / 255, rtol=1e-6)


def test_data_dir_in_the_home_folder(tfds, tmp_path, monkeypatch):
    prepare(tfds, tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(datasets.load("mnist", data_dir="~/data", validation_size=10).test[0]) == 12


def test_validation_split_stands_in_for_a_missing_test_split(tfds, tmp_path):
    for name, sizes, expected in (
        ("without_test", {"train": 20, "validation": 7}, 7),
        ("with_test", {"train": 20, "validation": 7, "test": 9}, 9),
    ):
        prepare(tfds, tmp_path, name, sizes)
        assert len(datasets.load(name, data_dir=str(tmp_path), validation_size=10).test[0]) == expected


def test_missing_split(tfds, tmp_path):
    prepare(tfds, tmp_path, sizes={"train": 5, "extra": 5})
    message = "needs a split 'train' and one 'test' or 'validation', but has train, extra; use another"
    with pytest.raises(ValueError, match=message):
        datasets.load("mnist", data_dir=str(tmp_path))


def test_labels_that_are_plain_integers(tfds, tmp_path):
    prepare(tfds, tmp_path, "my_own", label=tfds.features.Scalar(np.int64))
    assert datasets.load("my_own", data_dir=str(tmp_path), validation_size=10).classes == 3


def test_negative_labels(tfds, tmp_path):
    prepare(tfds, tmp_path, "my_own", label=tfds.features.Scalar(np.int64), first_label=-1)
    with pytest.raises(ValueError, match="from 0 to 1, but in its training .* range from -1 to 1; use"):
        datasets.load("my_own", data_dir=str(tmp_path), validation_size=10)


@pytest.mark.parametrize("unfit", ["keys", "label", "image", "channels"])
def test_unfit_features(tfds, tmp_path, unfit):
    options = {
        "keys": {"keys": None},
        "label": {"label": tfds.features.Scalar(np.float32)},
        "image": {"image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8)},
        "channels": {"image": tfds.features.Image(shape=(28, 28, None))},
    }[unfit]
    prepare(tfds, tmp_path, "my_own", **options)
    message = r"'my_own' is not one of images with integer labels: .*FeaturesDict.*'image'.*; use"
    with pytest.raises(ValueError, match=message):
        datasets.load("my_own", data_dir=str(tmp_path))


def test_text_is_refused_before_any_download(tfds, tmp_path):
    with pytest.raises(ValueError, match=r"'imdb_reviews' is not one of images .*\('text', 'label'\)"):
        datasets.load("imdb_reviews", data_dir=str(tmp_path))


def test_damaged_prepared_data(tfds, tmp_path):
    prepare(tfds, tmp_path)
    (path,) = (tmp_path / "mnist" / "3.0.1").glob("*train*tfrecord*")
    path.write_bytes(path.read_bytes()[:-7])
    message = "Cannot read split 'train' in '.*3.0.1': .* Delete that folder and prepare"
    with pytest.raises(ValueError, match=message):
        datasets.load("mnist", data_dir=str(tmp_path))


def test_neither_prepared_nor_network(tfds, tmp_path, monkeypatch):
    attempts = []
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda *a, **k: attempts.append(a))
    with pytest.raises(ValueError) as caught:
        datasets.load("mnist", data_dir=str(tmp_path))
    message = str(caught.value)
    assert f"'mnist' is not prepared in '{tmp_path}', and storage.googleapis.com cannot be reached" in message
    assert "tfds.builder('mnist', data_dir='DIR').download_and_prepare()" in message
    assert f"copy the folder DIR/mnist into '{tmp_path}'" in message
    assert "'idx:DIR'" in message and "'digits'" in message and "\n" not in message
    assert not attempts


def test_data_set_is_prepared_where_the_host_answers(tfds, tmp_path, monkeypatch):
    def generate():
        yield from ((i, {"image": np.full((28, 28, 1), i, np.uint8), "label": i % 10}) for i in range(30))

    asked = []
    monkeypatch.setattr(stored, "_answers", lambda url: asked.append(url) or True)
    mnist = tfds.image_classification.MNIST
    monkeypatch.setattr(mnist, "_split_generators", lambda *a: {"train": generate(), "test": generate()})
    for _ in range(2):  # The second time it is there already.
        data = datasets.load("mnist", data_dir=str(tmp_path), validation_size=10)
        assert data.train[0].shape == (20, 28, 28, 1) and data.test[0].shape == (30, 28, 28, 1)
    assert len(asked) == 1 and asked[0].startswith("https://storage.googleapis.com/")


def test_failing_download(tfds, tmp_path, monkeypatch):
    def download(self, **options):
        raise OSError("disk full\nand more")

    monkeypatch.setattr(stored, "_answers", lambda url: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    message = r"not prepared in '.*', and preparing it failed \(disk full\). Where there is a network, run"
    with pytest.raises(ValueError, match=message):
        datasets.load("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "closest"), [("mnits", "mnist"), ("digit", "digits"), ("cifar_10", "cifar10")]
)
def test_unknown_data_set(tfds, tmp_path, name, closest):
    with pytest.raises(ValueError, match=f"Unknown data set '{name}'. Did you mean '{closest}'") as caught:
        datasets.load(name, data_dir=str(tmp_path))
    assert "There are: digits, idx:DIR, mnist, " in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["", "huggingface:mnist", "/etc/passwd", "mnist/3.0.1/..", "mnist/a=1"])
def test_names_that_are_no_data_sets(tfds, tmp_path, name):
    with pytest.raises(ValueError, match="Unknown data set .* There are: digits, idx:DIR"):
        datasets.load(name, data_dir=str(tmp_path))


def test_unknown_version(tfds, tmp_path):
    with pytest.raises(ValueError, match="tensorflow_datasets cannot open 'mnist:1.2.3': .*only: 3.0.1"):
        datasets.load("mnist:1.2.3", data_dir=str(tmp_path))


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


class NotFound(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):  # noqa: N802
        self.send_error(404)

    def log_message(self, *args):
        pass


def test_an_error_page_is_an_answer(no_proxy):
    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert stored._answers(f"http://127.0.0.1:{server.server_port}/file")
        thread.join()


def test_a_closed_port_is_no_answer(no_proxy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound but not listening: connections are refused.
        assert not stored._answers(f"http://127.0.0.1:{taken.getsockname()[1]}/")


def test_silence_is_no_answer(no_proxy):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not stored._answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.2)


def test_a_lookup_that_hangs_is_no_answer(no_proxy, monkeypatch):
    release, ended = threading.Event(), []

    def look_up(*args, **kwargs):
        release.wait(30)
        ended.append(True)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert not stored._answers("http://example.invalid/", seconds=0.1)
    assert not ended
    release.set()
