import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from tf_lottery.experiments import idx

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def encode(array, dtype=0x08):
    return struct.pack(f">HBB{array.ndim}I", 0, dtype, array.ndim, *array.shape) + array.tobytes()


def example_arrays():
    images = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)
    return images, np.array([2, 0, 1, 2, 0], np.uint8), images[:2] + 100, np.array([1, 2], np.uint8)


def write_folder(folder, arrays=None, gzipped=False):
    for name, array in zip(NAMES, arrays or example_arrays(), strict=True):
        data = encode(array)
        (folder / (name + ".gz" * gzipped)).write_bytes(gzip.compress(data) if gzipped else data)


def check_folder(folder):
    splits = idx.read_folder(folder)
    read = (*splits["train"], *splits["test"])
    for found, expected in zip(read, example_arrays(), strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("gzipped", [False, True])
def test_reads_what_was_written(tmp_path, gzipped):
    write_folder(tmp_path, gzipped=gzipped)
    check_folder(tmp_path)


@pytest.mark.parametrize("gzipped", [False, True])
def test_reads_names_with_a_dot(tmp_path, gzipped):
    write_folder(tmp_path, gzipped=gzipped)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    check_folder(tmp_path)


def test_contents_not_names_say_what_is_gzipped(tmp_path):
    write_folder(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / (path.name + ".gz"))
    check_folder(tmp_path)


def test_home_and_relative_folders(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    write_folder(tmp_path / "mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_folder("~/mnist")
    monkeypatch.chdir(tmp_path)
    check_folder("mnist")


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder '.*nowhere'; give one with the four"):
        idx.read_folder(tmp_path / "nowhere")


def test_missing_files_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {NAMES[1]}, {NAMES[2]}; put each there"):
        idx.read_folder(tmp_path)


def test_counts_of_images_and_labels_differ(tmp_path):
    images, labels, test_images, test_labels = example_arrays()
    write_folder(tmp_path, (images, labels, test_images, labels))
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte holds 2 images, but .* holds 5 labels"):
        idx.read_folder(tmp_path)


def test_sizes_of_training_and_test_images_differ(tmp_path):
    images, labels, test_images, test_labels = example_arrays()
    write_folder(tmp_path, (images, labels, test_images[:, :, :2], test_labels))
    with pytest.raises(ValueError, match=r"have shape \(3, 4\), but the test images \(3, 2\); take"):
        idx.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short: it has only 0 bytes"),
        (b"\0\0\x08", "cut short: it has only 3 bytes"),
        (b"\0\0\x08\x03\0\0\0\1", "cut short within its header"),
        (b"<!DOCTYPE html>", "not an IDX file: it starts with 3c21444f, not with 0000"),
        (encode(np.zeros((2, 3, 4), ">i4"), dtype=0x0C), "values of type 0x0c; it must be 0x08"),
        (encode(np.zeros(2, np.uint8)), "array of 1 dimensions, but must hold one of 3; are"),
        (encode(np.zeros((0, 3, 4), np.uint8)), r"holds no examples: .* the shape \(0, 3, 4\)"),
        (encode(np.zeros((2, 0, 4), np.uint8)), r"holds no examples: .* the shape \(2, 0, 4\)"),
        (encode(np.zeros((2, 3, 4), np.uint8))[:-1], "cut short: it has fewer bytes .* header's 24"),
        (encode(np.zeros((2, 3, 4), np.uint8)) + b"\0", "too long: it has more bytes .* header's 24"),
    ],
)
@pytest.mark.parametrize("gzipped", [False, True])
def test_damaged_file(tmp_path, data, message, gzipped):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if gzipped else data)
    with pytest.raises(ValueError, match=f"{path} .*{message}"):
        idx.read(path, rank=3)


@pytest.mark.parametrize("gzipped", [False, True])
def test_every_cut_is_noticed(tmp_path, gzipped):
    data = encode(example_arrays()[0])
    data = gzip.compress(data) if gzipped else data
    path = tmp_path / "file"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut short|damaged gzip|not an IDX"):
            idx.read(path, rank=3)


def test_no_flipped_bit_in_a_gzip_file_changes_the_data(tmp_path):
    images = example_arrays()[0]
    data = gzip.compress(encode(images))
    path = tmp_path / "file"
    refused = 0
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            found = idx.read(path, rank=3)
        except ValueError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, images)
    assert refused > 4 * len(data)


def peak_bytes_of_refusal(path, message):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            idx.read(path, rank=3)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_huge_promise_takes_no_memory(tmp_path, gzipped):
    data = struct.pack(">HBB3I", 0, 8, 3, 60_000, 1 << 16, 1 << 16) + bytes(100)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if gzipped else data)
    assert peak_bytes_of_refusal(path, "cut short: it has fewer bytes") < 8 << 20


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(encode(np.zeros((2, 3, 4), np.uint8)) + bytes(64 << 20), compresslevel=1))
    assert peak_bytes_of_refusal(path, "too long: it has more bytes") < 8 << 20
