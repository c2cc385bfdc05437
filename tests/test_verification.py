"""`tf-lottery report --verify`: whatever file of a run is damaged or gone is named, and made again."""

import shutil

import pytest

from tf_lottery import cli
from tf_lottery.training import recorded
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
