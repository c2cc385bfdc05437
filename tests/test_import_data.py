"""tf-lottery import-data: what is stored is what is read, and it is whole or not there."""

import gzip
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from tf_lottery import cli
from tf_lottery.experiments import datasets, import_data
from tf_lottery.experiments.commands import UsageError
from tf_lottery.experiments.image_stream import ImageStream

pytest.importorskip("tensorflow_datasets")


def write_idx(folder, images=60, classes=3, test_classes=2):
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for prefix, count, labels in (("train", images, classes), ("t10k", 12, test_classes)):
        for what, a in (
            ("images-idx3", random.integers(0, 256, (count, 4, 5))),
            ("labels-idx1", np.arange(count) % labels),
        ):
            data = struct.pack(f">HBB{a.ndim}I", 0, 8, a.ndim, *a.shape) + a.astype(np.uint8).tobytes()
            (folder / f"{prefix}-{what}-ubyte.gz").write_bytes(gzip.compress(data, 1))
    return folder


def write_images(
    folder, sizes=((8, 9),), suffix=".png", mode="RGB", splits=("train", "test"), classes=("b", "a")
):
    """Four images of each class in each split; each is of one colour, and no two are alike."""
    number = 0
    for split in splits:
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                number += 1
                image = PIL.Image.new("RGB", sizes[i % len(sizes)], (number, 2 * number, 3 * number))
                image.convert(mode).save(folder / split / name / f"{i}{suffix}")
    return folder


def rows(*pairs):
    return sorted((*x.ravel().tolist(), int(y)) for pair in pairs for x, y in zip(*pair, strict=True))


# One that tensorflow_datasets knows, in another version; and one that it does not.
@pytest.mark.parametrize("name", ["fashion_mnist", "my_own"])
def test_idx_files_are_read_as_they_are_directly(tmp_path, name):
    folder = write_idx(tmp_path / "idx")
    said = import_data.store(f"idx:{folder}", name, tmp_path / "data")
    assert "Stored 60 train and 12 test images of 4 x 5 pixels, in gray, of 3 classes" in said
    words = f"--config.data.name={name} --config.data.data_dir={tmp_path / 'data'}"
    assert said.endswith(f"  tf-lottery run {words}")
    directly = datasets.load(f"idx:{folder}", validation_size=10)
    stored = datasets.load(name, data_dir=str(tmp_path / "data"), validation_size=10)
    assert stored.classes == directly.classes == 3
    assert rows(stored.train, stored.validation) == rows(directly.train, directly.validation)
    assert rows(stored.test) == rows(directly.test)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [name]


@pytest.mark.parametrize(
    ("suffix", "mode", "channels"), [(".png", "RGB", 3), (".jpg", "L", 1), (".PNG", "P", 3)]
)
def test_images_of_one_size(tmp_path, suffix, mode, channels):
    folder = write_images(tmp_path / "images", suffix=suffix, mode=mode)
    import_data.store(f"images:{folder}", "small", tmp_path)
    data = datasets.load("small", data_dir=str(tmp_path), validation_size=2, input_scaling="none")
    assert data.train[0].shape == (6, 9, 8, channels) and data.classes == 2
    for split, parts in (("train", (data.train, data.validation)), ("test", (data.test,))):
        expected = []
        for label, name in enumerate("ab"):  # the classes in the order of the alphabet
            for path in (folder / split / name).iterdir():
                pixels = np.array(PIL.Image.open(path).convert("RGB" if channels == 3 else "L"))
                expected.append((*pixels.ravel().tolist(), label))
        assert rows(*parts) == sorted(expected)


def test_images_of_many_sizes_stream_and_classes_keep_their_names(tmp_path):
    import tensorflow_datasets as tfds

    folder = write_images(tmp_path / "images", ((8, 9), (20, 10)), ".jpeg", splits=("train", "val"))
    (folder / "train" / ".DS_Store").write_text("hidden")
    (folder / "train" / "a" / "notes.txt").write_text("not an image")
    said = import_data.store(f"images:{folder}", "photos", tmp_path)
    assert "8 train and 8 validation images of many sizes, in color" in said
    assert said.endswith("--config.data.image_size=224")
    data = datasets.load("photos", data_dir=str(tmp_path), validation_size=2, image_size=4, batch_size=3)
    assert isinstance(data.train, ImageStream) and data.shape == (4, 4, 3)
    assert sum(len(y) for _, y in data.test) == 8
    assert tfds.builder("photos", data_dir=str(tmp_path)).info.features["label"].names == ["a", "b"]


def test_the_same_source_gives_the_same_files(tmp_path):
    folder = write_images(tmp_path / "images")
    for place in ("one", "two"):
        import_data.store(f"images:{folder}", "same", tmp_path / place)
    one, two = (sorted((tmp_path / place).rglob("*.tfrecord*")) for place in ("one", "two"))
    assert len(one) == 2 and [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_nothing_is_overwritten(tmp_path):
    folder = write_idx(tmp_path / "idx")
    (tmp_path / "taken").mkdir()
    with pytest.raises(
        ValueError, match="There is '.*taken' already, and it is not overwritten: give another"
    ):
        import_data.store(f"idx:{folder}", "taken", tmp_path)


def test_what_fails_leaves_nothing(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "images")
    monkeypatch.setattr(
        import_data, "_examples", lambda *part: iter([(0, {"image": "gone.png", "label": 0})])
    )
    with pytest.raises(FileNotFoundError):
        import_data.store(f"images:{folder}", "broken", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(tmp_path, number):
    folder = write_idx(tmp_path / "idx", images=100_000)
    words = ["import-data", f"idx:{folder}", "--name=large", f"--data_dir={tmp_path / 'data'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_lottery", *words],
        stderr=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        # What runs in a shell's background, tests too, is deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "data").glob(".large-*/large/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.endswith("tf-lottery: stopped. Nothing is stored.\n")
    assert list((tmp_path / "data").iterdir()) == []


def no_train(folder):
    write_images(folder, splits=("cats", "dogs"))


def no_test(folder):
    write_images(folder, splits=("train",))


def other_class(folder):
    write_images(folder)
    write_images(folder, splits=("test",), classes=("c",))


def two_validations(folder):
    write_images(folder, splits=("train", "validation", "val"))


def no_images(folder):
    write_images(folder)
    for path in (folder / "test").rglob("*.png"):
        path.unlink()


def no_image(folder):
    write_images(folder)
    (folder / "train" / "a" / "1.png").write_text("text")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_train, "must have a folder 'train' and one 'test' or 'validation', .* It has cats, dogs"),
        (no_test, "must have a folder 'train' and one 'test' or 'validation', .* It has train"),
        (other_class, "'.*test/c' is of a class that the training images have none of"),
        (two_validations, "has both 'validation' and 'val', which are one: remove one of them"),
        (no_images, r"There are no .png, .jpg, .jpeg files in '.*test'.* as in test/cat/1.png"),
        (no_image, "'.*train/a/1.png' is no image that can be read; remove it"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, message):
    make(tmp_path / "images")
    with pytest.raises(ValueError, match=message):
        import_data.store(f"images:{tmp_path / 'images'}", "mine", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("source", "data_dir"), [("idx:ram://images", "here"), ("idx:here", "ram://data")])
def test_folders_of_other_filesystems_are_refused(source, data_dir):
    with pytest.raises(ValueError, match="import-data reads and writes local folders: copy 'ram://"):
        import_data.store(source, "mine", data_dir)


def test_sources_that_are_not_there(tmp_path):
    for source in ("idx:gone", "images:gone"):
        with pytest.raises(FileNotFoundError, match="There is no folder 'gone'; give one with"):
            import_data.store(source, "mine", tmp_path)
    for source in ("gone", "idx:", "tar:gone"):
        with pytest.raises(
            ValueError, match="A source is 'idx:DIR' or 'images:DIR', with the folder DIR. Rec"
        ):
            import_data.store(source, "mine", tmp_path)


def test_test_labels_beyond_the_training_labels(tmp_path):
    folder = write_idx(tmp_path / "idx", classes=2, test_classes=4)
    with pytest.raises(
        ValueError, match="range to 1, and the test labels to 3; take both from the same data set"
    ):
        import_data.store(f"idx:{folder}", "mine", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name a source, a name and a folder: tf-lottery import-data images:photos --name="),
        (["idx:a", "--name=b"], "Name a source, a name and a folder"),
        (["idx:a", "idx:b", "--name=b", "--data_dir=c"], "Name a source, a name and a folder"),
        (
            ["idx:a", "--nam=b"],
            "Unknown flag 'nam'. Did you mean 'name'.* See: tf-lottery import-data --help",
        ),
        (["idx:a", "--name=B", "--data_dir=c"], "--name is a to z, 0 to 9 and '_', .* Received 'B'"),
        (
            ["idx:a", "--name=digits", "--data_dir=c"],
            "none of digits, binary_patterns, idx. Received 'digits'",
        ),
    ],
)
def test_words_that_cannot_be_followed(words, message):
    with pytest.raises(UsageError, match=message):
        import_data.parse(words)


def test_the_command(tmp_path, capsys):
    folder = write_idx(tmp_path / "idx")
    words = ["import-data", f"idx:{folder}", "--name=mine", f"--data_dir={tmp_path / 'data'}"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith("Stored 60 train and 12 test images")
    assert cli.main(words) == 1
    assert "and it is not overwritten" in capsys.readouterr().err
    assert pathlib.Path(tmp_path / "data" / "mine" / "1.0.0").is_dir()


def test_help(capsys):
    assert cli.main(["import-data", "--help"]) == cli.main(["help", "import-data"]) == 0
    out = capsys.readouterr().out
    assert "idx:DIR" in out and "images:DIR" in out and "--name=" in out and "--data_dir=" in out
    assert cli.main(["--help"]) == 0
    assert "tf-lottery import-data" in capsys.readouterr().out
