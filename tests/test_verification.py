"""`tf-lottery report --verify`: whatever file of a run is damaged or gone is named, and made again."""

import errno
import shutil

import pytest

from tf_lottery import cli
from tf_lottery.training import recorded, verification
from tf_lottery.training.recorded import RunDirectoryError
from tf_lottery.training.verification import verify

pytestmark = pytest.mark.usefixtures("no_xla")
WORDS = [
    "--config.network.name=mlp:8",
    "--config.train.steps=20",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=1",
    "--config.prune.rewind_step=4",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("verified") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        assert cli.main(["run", *WORDS, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def workdir(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def read_again(workdir):
    suffixes = (".safetensors", ".json", ".npz")
    return [*sorted(p for p in workdir.rglob("[!.]*") if p.suffix in suffixes), workdir / "results.csv"]


def remedy(workdir, path):
    """What has to be done about each, so that the run is whole again."""
    if path.name == "config.json":
        return "It cannot be made again: choose another workdir."
    network = path.parent.parent.name.startswith("level_")
    return f"Delete {str(path.parent if network else path)!r}: the same command makes it again."


def test_a_whole_run(whole, capsys):
    assert verify(whole) == len(read_again(whole)) > 15
    assert cli.main(["report", "--verify", str(whole)]) == 0
    assert f"All {len(read_again(whole))} files are as they were written.\n" in capsys.readouterr().out


def test_a_run_that_was_stopped_in_the_middle_is_whole(workdir):
    shutil.rmtree(workdir / "replicate_1/level_01")
    (workdir / "results.csv").unlink()  # which is written once a network is
    verify(workdir)


def test_each_file_that_is_damaged_is_named(workdir):
    for path in read_again(workdir):
        content = path.read_bytes()
        # Within tensors, text or an array: between its arrays, a file of these has bytes that say nothing.
        at = content.index(b"NUMPY") if path.suffix == ".npz" else len(content) // 2
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(RunDirectoryError) as caught:
            verify(workdir)
        head, line = str(caught.value).splitlines()
        assert head.endswith(" 1 cannot be relied on:") and repr(str(path)) in line, line
        assert line.endswith(remedy(workdir, path))
        path.write_bytes(content)
    verify(workdir)


def test_each_file_that_is_missing_is_named(workdir):
    network = workdir / "replicate_1/level_01/ticket"
    for name in ("start.safetensors", "end.safetensors", "mask.safetensors", "curves.npz"):
        content = (network / name).read_bytes()
        (network / name).unlink()
        with pytest.raises(RunDirectoryError, match=f"{name}.*Delete '{network}': the same command"):
            verify(workdir)
        (network / name).write_bytes(content)


def test_a_table_that_is_not_all_there(workdir):
    table = workdir / "results.csv"
    header, *rows = table.read_text().splitlines(keepends=True)
    table.write_text(header + "".join(rows[:-1]))
    verify(workdir)  # as where a process was killed before it wrote the row
    for content in ("", header, header + "".join(rows)[:-4], header + rows[0]):
        table.write_text(content)
        with pytest.raises(RunDirectoryError, match="results.csv' is not what the results make"):
            verify(workdir)
    table.unlink()
    with pytest.raises(RunDirectoryError, match="results.csv' is not what the results make"):
        verify(workdir)


def test_a_run_that_goes_on_meanwhile(workdir, monkeypatch):
    """Its checkpoint is removed when the network is finished, and results.csv grows."""
    network = workdir / "replicate_1/level_01/ticket"
    (network / "checkpoint.safetensors").touch()
    walk = verification._walk

    def walked(folder):
        found = list(walk(folder))
        (network / "checkpoint.safetensors").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(verification, "_walk", walked)
    assert verify(workdir) > 15


def test_a_file_that_cannot_be_read_is_not_to_be_deleted(workdir, monkeypatch):
    path = workdir / "replicate_1/level_01/ticket/end.safetensors"

    def read(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setitem(verification._READERS, ".safetensors", read)
    with pytest.raises(RunDirectoryError) as caught:
        verify(workdir)
    assert f"{str(path)!r} cannot be read: Input/output error." in str(caught.value)
    assert "Delete" not in str(caught.value)


def test_a_run_may_be_verified_where_nothing_can_be_written(workdir, monkeypatch, capsys):
    def locked(folder):
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr("tf_lottery.training.locks.alone", locked)
    assert cli.main(["report", "--verify", str(workdir)]) == 0
    assert cli.main(["report", str(workdir)]) == 1
    shutil.rmtree(workdir / "replicate_1")
    (workdir / "results.csv").unlink()
    capsys.readouterr()
    assert cli.main(["report", "--verify", str(workdir)]) == 0
    assert "are as they were written.\n\nNo network is trained yet." in capsys.readouterr().out


def test_snapshots_that_are_missing_are_named_by_the_run_that_needs_them(workdir, capsys):
    network = workdir / "replicate_1/level_00/ticket"
    (network / "snapshots.safetensors").unlink()
    assert cli.main(["run", *WORDS, "--config.prune.levels=2", f"--workdir={workdir}"]) == 1
    err = capsys.readouterr().err
    assert "snapshots.safetensors" in err and f"Delete '{network}': the same command makes it again." in err


def test_all_are_named_at_once_and_made_again(workdir, whole, capsys):
    networks = [workdir / f"replicate_1/level_{level:02d}/ticket" for level in (0, 1)]
    for network in networks:
        (network / "end.safetensors").write_bytes(b"")
    assert cli.main(["report", "--verify", str(workdir)]) == 1
    err = capsys.readouterr().err
    assert " 2 cannot be relied on:\n" in err and all(str(network) in err for network in networks)
    for network in networks:
        shutil.rmtree(network)
    assert cli.main(["run", *WORDS, f"--workdir={workdir}"]) == 0
    for path in read_again(whole):
        if path.name != "environment.json":
            assert (workdir / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_a_damaged_file_is_never_used_silently(workdir, capsys):
    """By each that reads it: the run that goes on, and the analyses."""
    network = workdir / "replicate_1/level_00/ticket"
    content = bytearray((network / "end.safetensors").read_bytes())
    content[-3] ^= 1  # of the last weight
    (network / "end.safetensors").write_bytes(content)
    more = ["--config.prune.levels=2"]
    for words in (["run", *WORDS, *more, f"--workdir={workdir}"], ["plot", str(workdir)]):
        assert cli.main(words) == 1
        assert f"Cannot read '{network / 'end.safetensors'}': it is damaged" in capsys.readouterr().err
    with pytest.raises(RunDirectoryError, match="it is damaged"):
        recorded.networks(workdir)[0].end()
