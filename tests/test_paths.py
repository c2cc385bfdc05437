"""Paths, local and on TensorFlow's filesystem in memory; and files written and read by them."""

import errno
import os
import pathlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery import files, paths

TENSORS = {
    "z": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([True, False]),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "brain": np.array([1.5, -2], ml_dtypes.bfloat16),
}


@pytest.fixture
def folder(tmp_path):
    """A folder in memory, of this test alone."""
    return paths.path(f"ram:/{tmp_path}")


@pytest.mark.parametrize(
    "given", ["runs/x", pathlib.Path("runs/x"), "~/x", "a:/b", "file:///runs/x", "1://x"]
)
def test_what_is_local_stays_what_it_was(given):
    path = paths.path(given)
    assert type(path) is type(pathlib.Path())
    assert path == pathlib.Path("/runs/x" if given == "file:///runs/x" else given)


def test_local_files_take_no_tensorflow(tmp_path):
    program = (
        "import sys\nfrom tf_lottery import files, paths\n"
        "path = paths.path(sys.argv[1]) / 'x.json'\nfiles.write_json(path, {})\nfiles.read_json(path)\n"
        "paths.common([path, path]), paths.relative(path), paths.remove_tree(path.parent)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")]).returncode == 0


def test_parts_of_a_remote_path():
    path = paths.path("gs://bucket/runs/") / "one" / "results.csv"
    assert os.fspath(path) == str(path) == f"{path}" == "gs://bucket/runs/one/results.csv"
    assert (path.name, path.suffix) == ("results.csv", ".csv")
    assert str(path.parent) == "gs://bucket/runs/one"
    assert path.with_name("x") == paths.path("gs://bucket/runs/one/x") == path.parent / "x"
    assert path.expanduser() is paths.path(path) is path
    assert sorted([path, path.parent])[0] == path.parent and len({path, paths.path(str(path))}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gss://b/run", "Unknown filesystem 'gss'. Did you mean 'gs'? There are: gs, ram. Received the path "
         "'gss://b/run'. Expected a local one, or one such as 'gs://bucket/run'."),
        ("https://host/run", "Unknown filesystem 'https'."),
        ("gs://", "Nothing on the filesystem 'gs' is named. Received the path 'gs://'."),
        (pathlib.Path("gs://b/run"), "Give the path as a string: 'gs://b/run'."),
    ],
)  # fmt: skip
def test_paths_that_cannot_be(given, message):
    with pytest.raises(ValueError) as caught:
        paths.path(given)
    assert message in str(caught.value)


def test_what_a_folder_holds(folder):
    for name in ("level_1/b/x.json", "level_1/a/x.json", "level_10/a/x.json", "level_1/a/.x.7.tmp", "y"):
        files.write_text(folder / name, name)
    assert folder.exists() and folder.is_dir() and not folder.is_file()
    assert (folder / "y").is_file() and not (folder / "y").is_dir() and not (folder / "z").exists()
    found = [str(path).removeprefix(f"{folder}/") for path in folder.glob("level_*/*/x.json")]
    assert found == ["level_1/a/x.json", "level_1/b/x.json", "level_10/a/x.json"]
    assert [path.name for path in (folder / "level_1").glob("*/.*.tmp")] == [".x.7.tmp"]
    paths.remove_tree(folder / "level_1")
    paths.remove_tree(folder / "never")
    assert [path.parent.parent.name for path in folder.glob("*/*/x.json")] == ["level_10"]


def test_a_folder_whose_name_looks_like_a_pattern(folder):
    files.write_text(folder / "run[1]*?" / "x", "")
    files.write_text(folder / "run1" / "x", "")
    assert [path.parent.name for path in (folder / "run[1]*?").glob("x")] == ["run[1]*?"]


def test_a_file_is_replaced_whole_or_stays(folder):
    path = folder / "new" / "file"
    files.write_text(path, "one")
    with files.replacing(path) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    files.write_text(path, "much longer")
    files.write_text(path, "two")
    assert path.read_bytes() == b"two"
    for error in (ValueError("broken"), KeyboardInterrupt()):
        with pytest.raises(type(error)), files.replacing(path) as file:
            file.write(b"three")
            raise error
    assert path.read_bytes() == b"two"
    assert tf.io.gfile.listdir(str(path.parent)) == ["file"]


def test_a_file_that_is_not_renamed_leaves_the_old_one_and_is_named(folder, monkeypatch):
    def fail(*arguments, **named):
        raise tf.errors.PermissionDeniedError(None, None, "HTTP response code 403\n  with a body")

    path = folder / "file"
    files.write_text(path, "old")
    monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(PermissionError) as caught:
        files.write_text(path, "new")
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(path))
    assert caught.value.strerror == "HTTP response code 403 with a body"
    assert path.read_bytes() == b"old" and tf.io.gfile.listdir(str(folder)) == ["file"]


@pytest.mark.parametrize(
    ("error", "kind", "number"),
    [
        (tf.errors.NotFoundError, FileNotFoundError, errno.ENOENT),
        (tf.errors.AlreadyExistsError, FileExistsError, errno.EEXIST),
        (tf.errors.UnauthenticatedError, PermissionError, errno.EACCES),
        (tf.errors.ResourceExhaustedError, OSError, errno.ENOSPC),
        (tf.errors.FailedPreconditionError, OSError, errno.EIO),
    ],
)
def test_errors_of_tensorflow_are_those_of_the_system(folder, error, kind, number):
    with pytest.raises(kind) as caught, paths.os_errors(folder):
        raise error(None, None, "")
    assert (caught.value.errno, caught.value.filename) == (number, str(folder))
    assert caught.value.strerror == os.strerror(number)


def test_files_that_are_not_there_or_are_folders(folder):
    with pytest.raises(FileNotFoundError) as caught:
        files.read_json(folder / "x.json")
    assert caught.value.filename == str(folder / "x.json")
    with pytest.raises(FileNotFoundError, match=f"There is no file '{folder}/x'"):
        files.read_tensors(folder / "x")
    with pytest.raises(FileNotFoundError):
        (folder / "x").unlink()
    (folder / "x").unlink(missing_ok=True)
    (folder / "x").mkdir(parents=True, exist_ok=True)
    with pytest.raises(OSError, match="is a directory"):
        (folder / "x").read_bytes()


def test_a_remote_file_has_the_bytes_of_a_local_one_and_is_read_alike(folder, tmp_path):
    for place in (folder, tmp_path):
        files.write_json(place / "x.json", {"b": 1, "a": [None]})
        files.write_csv(place / "x.csv", ["a", "b"], [{"a": 1, "b": "x,y"}])
        files.write_tensors(place / "x.safetensors", TENSORS, ["described"])
        files.write_arrays(place / "x.npz", {"steps": np.arange(3)})
        for number in (1, 2):
            files.append_csv(place / "rows.csv", ["number", "name"], [number, 'a "b"'])
    assert (tmp_path / "rows.csv").read_text() == 'number,name\n1,"a ""b"""\n2,"a ""b"""\n'
    for local in tmp_path.iterdir():
        assert (folder / local.name).read_bytes() == local.read_bytes()
    assert files.read_json(folder / "x.json") == {"b": 1, "a": [None]}
    assert files.read_arrays(folder / "x.npz")["steps"].tolist() == [0, 1, 2]
    tensors, described = files.read_tensors(folder / "x.safetensors")
    locals_, _ = files.read_tensors(tmp_path / "x.safetensors")
    assert described == ["described"] and list(tensors) == list(locals_)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, TENSORS[name], strict=True)
        assert array.flags.writeable == locals_[name].flags.writeable


def test_a_damaged_remote_file_is_named(folder):
    files.write_text(folder / "x", "nonsense")
    for read in (files.read_tensors, files.read_arrays, files.read_json):
        with pytest.raises(ValueError, match=f"Cannot read '{folder}/x': "):
            read(folder / "x")


def test_the_folder_that_paths_have_in_common(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.common(["runs/a", tmp_path / "runs/b"]) == tmp_path / "runs"
    assert paths.common(["runs/a"]) == tmp_path / "runs/a"
    assert paths.common(["gs://b/runs/a", "gs://b/runs/c/d"]) == paths.path("gs://b/runs")
    assert paths.common(["gs://b/runs"]) == paths.path("gs://b/runs")
    for others in (["gs://b/a", "gs://c/a"], ["gs://b/a", "runs/a"], ["gs://b/a", "ram://b/a"]):
        with pytest.raises(ValueError, match="have no folder in common.* Name folders of one filesystem"):
            paths.common(others)


def test_paths_for_people(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.relative(tmp_path / "runs/a") == "runs/a"
    assert paths.relative(tmp_path / "runs/a", tmp_path / "runs") == "a"
    remote = paths.path("gs://b/runs/a")
    assert paths.relative(remote) == "gs://b/runs/a"
    assert paths.relative(remote, paths.path("gs://b/runs")) == "a"
    assert paths.relative(remote, remote) == "."
