import errno
import json
import math
import os
import re
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from tf_lottery import files

TENSORS = {
    "fc/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "mask": np.array([True, False]),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "brain": np.array([1.5, -2], ml_dtypes.bfloat16),
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file"
    files.write_text(path, "one")
    with files.replacing(path) as file:
        file.write(b"two")
        file.flush()
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(type(error)), files.replacing(path) as file:
        file.write(b"new")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_of_the_system_names_the_file(tmp_path, monkeypatch, step):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *map(str, args[:1]))

    path = tmp_path / "file"
    files.write_text(path, "old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError) as caught:
        files.write_text(path, "new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        files.write_text(tmp_path / "file" / "below", "text")
    assert caught.value.filename == str(tmp_path / "file" / "below")


def test_what_is_left_by_a_kill_matches_the_pattern(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args, **kwargs):
        raise Killed

    monkeypatch.setattr(os, "replace", kill)
    monkeypatch.setattr(type(tmp_path), "unlink", kill)
    with pytest.raises(Killed):
        files.write_text(tmp_path / "file", "new")
    assert len(names(tmp_path)) == 1
    assert [path.name for path in tmp_path.glob(files.TEMPORARY)] == names(tmp_path)


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    files.write_json(tmp_path / "file.json", value)
    assert files.read_json(tmp_path / "file.json") == value


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "file.json", {"a": number})
    assert names(tmp_path) == []


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "file.safetensors"
    files.write_tensors(path, {**TENSORS, "turned": TENSORS["fc/kernel"].T}, {"level": 3, "names": ["a"]})
    tensors, description = files.read_tensors(path)
    assert description == {"level": 3, "names": ["a"]}
    assert set(tensors) == {*TENSORS, "turned"}
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype and tensors[name].shape == array.shape
        np.testing.assert_array_equal(tensors[name], array)
    np.testing.assert_array_equal(tensors["turned"], TENSORS["fc/kernel"].T)


@pytest.mark.parametrize("kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.int4, object, complex, "U3", "M8[s]"])
def test_what_could_not_be_read_again_is_not_written(tmp_path, kind):
    with pytest.raises(ValueError, match="Cannot write 'odd', of type .*convert it with array.astype"):
        files.write_tensors(tmp_path / "file", {"odd": np.zeros(2, kind)}, None)
    assert names(tmp_path) == []


def test_equal_tensors_give_equal_bytes(tmp_path):
    files.write_tensors(tmp_path / "a", TENSORS, {"x": 1, "y": 2})
    files.write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), {"x": 1, "y": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_round_trip_in_their_order(tmp_path):
    arrays = {"steps": np.arange(3), "validation/loss": np.array([0.5, np.nan, 0.25]), "a": np.ones(2, bool)}
    files.write_arrays(tmp_path / "a.npz", arrays)
    files.write_arrays(tmp_path / "b.npz", arrays)
    read = files.read_arrays(tmp_path / "a.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


WRITTEN = {
    "json": (lambda path: files.write_json(path, {"a": 1}), files.read_json),
    "tensors": (lambda path: files.write_tensors(path, TENSORS, 1), files.read_tensors),
    "arrays": (lambda path: files.write_arrays(path, {"a": np.arange(3)}), files.read_arrays),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_file_that_is_cut_short_anywhere(tmp_path, kind):
    path = tmp_path / "some file"
    write, read = WRITTEN[kind]
    write(path)
    whole = path.read_bytes().rstrip()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="Cannot read '.*some file': .*[^.][.]$"):
            read(path)


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("bit", [0x80, 0x01])
def test_a_damaged_file_is_refused_or_the_same(tmp_path, kind, bit):
    path = tmp_path / "some file"
    write, read = WRITTEN[kind]
    write(path)
    whole, sound, refused = path.read_bytes(), repr(read(path)), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            assert repr(read(path)) == sound  # of a zip file some bytes say nothing, such as dates
        except ValueError as error:
            assert str(error).startswith(f"Cannot read {str(path)!r}: ")
            refused += 1
    assert refused > len(whole) / 4


def test_json_that_somebody_changed(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(
        ValueError, match="file.json': it is damaged, or somebody changed it: its checksum is"
    ):
        files.read_json(path)
    for other in ('{"a": 1}', "[]", "1"):
        path.write_text(other)
        with pytest.raises(ValueError, match="file.json': it was not written by tf_lottery"):
            files.read_json(path)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_missing_file(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="gone"):
        WRITTEN[kind][1](tmp_path / "gone")


def test_tensors_of_another_program(tmp_path):
    import safetensors.numpy

    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"a": np.ones(2)}, path)
    with pytest.raises(ValueError, match="other.safetensors': it was not written by tf_lottery"):
        files.read_tensors(path)


def raw(header, data=b""):
    """A safetensors file, byte by byte."""
    header = json.dumps({"__metadata__": {"tf_lottery": "null"}, **header}).encode()
    return struct.pack("<Q", len(header)) + header + data


def test_tensors_without_metadata(tmp_path):
    for metadata in ({"__metadata__": None}, {"__metadata__": {}}, {"__metadata__": {"tf_lottery": "{}"}}):
        (tmp_path / "file").write_bytes(raw(metadata))
        with pytest.raises(ValueError, match="file': it was not written by tf_lottery"):
            files.read_tensors(tmp_path / "file")


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "Q4"])
def test_tensors_of_a_type_that_numpy_does_not_have(tmp_path, kind):
    (tmp_path / "file").write_bytes(raw({"a": {"dtype": kind, "shape": [2], "data_offsets": [0, 2]}}, b"ab"))
    with pytest.raises(ValueError, match=f"Cannot read '{re.escape(str(tmp_path))}/file': .*[.]$"):
        files.read_tensors(tmp_path / "file")


@pytest.mark.parametrize("shape", [[2**50], [2**25, 2**25], [2**63], [2**62, 4], [2**64 - 1, 2**64 - 1]])
def test_a_petabyte_is_refused_unread(tmp_path, shape):
    size = min(math.prod(shape), 2**63)
    (tmp_path / "file").write_bytes(raw({"a": {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}}))
    tracemalloc.start()
    with pytest.raises(ValueError, match="Cannot read"):
        files.read_tensors(tmp_path / "file")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("depth", [1000, 10**5])
def test_a_description_that_is_nested_too_deep(tmp_path, depth):
    metadata = {"__metadata__": {"tf_lottery": "[" * depth + "]" * depth}}
    (tmp_path / "file").write_bytes(raw(metadata))
    with pytest.raises(ValueError, match="Cannot read '.*file': it is nested too deep[.]$"):
        files.read_tensors(tmp_path / "file")


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(
        ValueError, match="pickled.npz': it holds other things than arrays of bools and numbers"
    ):
        files.read_arrays(path)


def test_json_is_indented_text(tmp_path):
    files.write_json(tmp_path / "file.json", {"a": 1})
    text = (tmp_path / "file.json").read_text()
    assert text.startswith('{\n  "a": 1,\n  "sha256": "') and text.endswith('"\n}\n')
    assert json.loads(text)["a"] == 1


def test_a_file_and_the_folders_made_for_it_are_synced(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def sync(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", sync)
    path = tmp_path / "a" / "b" / "file"
    files.write_text(path, "text")
    assert synced == [p.stat().st_ino for p in (tmp_path / "a", tmp_path, path, tmp_path / "a" / "b")]
    synced.clear()
    files.write_text(path, "another")
    assert synced == [p.stat().st_ino for p in (path, tmp_path / "a" / "b")]


def test_a_row_goes_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "rows.csv"
    files.append_csv(path, ["a", "b"], [1, 2])
    assert path.read_text() == "a,b\n1,2\n"
    path.write_text("a,b\n1,2\n3")  # a disk was full
    files.append_csv(path, ["a", "b"], [5, 6])
    assert path.read_text() == "a,b\n1,2\n3\n5,6\n"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG])
def test_a_row_that_cannot_be_written_names_its_file(tmp_path, monkeypatch, error):
    def opened(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(OSError) as caught:
        files.append_csv(tmp_path / "rows.csv", ["a"], [1])
    assert (caught.value.errno, caught.value.filename) == (error, str(tmp_path / "rows.csv"))


def test_a_file_that_cannot_be_opened_is_not_missing(tmp_path, monkeypatch):
    """What is said of missing files, and done about them, would be wrong."""
    files.write_tensors(tmp_path / "file", {"a": np.ones(3)}, None)

    def read(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", read)
    with pytest.raises(OSError) as caught:
        files.read_tensors(tmp_path / "file")
    assert caught.value.errno == errno.EMFILE and not isinstance(caught.value, FileNotFoundError)


def test_tensors_come_by_name_whatever_their_order_in_the_file(tmp_path):
    files.write_tensors(tmp_path / "file", {name: np.ones(n) for n, name in enumerate("zkabm")}, None)
    for _ in range(5):
        assert list(files.read_tensors(tmp_path / "file")[0]) == list("abkmz")


def test_arrays_that_are_read_may_be_changed(tmp_path):
    given = {"a": np.ones(3), "none": np.ones((0, 4)), "scalar": np.float32(3)}
    files.write_tensors(tmp_path / "file", given, None)
    found, _ = files.read_tensors(tmp_path / "file")
    for name, array in found.items():
        array += 1
        np.testing.assert_array_equal(array, given[name] + 1)
