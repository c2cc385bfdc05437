"""Run directories, filled by real searches over networks of NumPy arrays."""

import contextlib
import csv
import itertools
import json
import math
import os
import pathlib
import shutil

import numpy as np
import pytest

from tf_lottery.search.imp import iterative_pruning
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import controls, seeds
from tf_lottery.tickets.rewinding import Rewinding
from tf_lottery.training import recorded, runs
from tf_lottery.training.arms import Start
from tf_lottery.training.data import DataOrder
from tf_lottery.training.history import Failure
from tf_lottery.training.runs import RunDirectory, RunDirectoryError
from tf_lottery.training.trainer import Trainer

SHAPES = {"fc/kernel": (4, 3), "output/kernel": (3, 2)}
CONFIG = {"train": {"steps": 6, "rate": 0.1}, "levels": 1, "controls": ("reinit",), "replicates": 1}
EXTENDABLE = ("levels", "controls", "replicates")
ONES = {path: np.ones(shape, bool) for path, shape in SHAPES.items()}


class Model:
    """What a trainer needs of a MaskedModel: weights and a state of the optimizer, by path."""

    def __init__(self):
        self.variables = {}

    def state(self):
        return {path: array.copy() for path, array in self.variables.items()}

    def restore(self, state):
        self.variables = {path: array.copy() for path, array in state.items()}

    def set_mask(self, mask, frozen):
        self.mask = mask

    def finalize(self):
        pass


class Loop:
    """What a trainer needs of a Loop. A step depends on the batch and on the optimizer's state."""

    chunk, evaluation_names, pauses = 2, ("validation", "test"), True

    def __init__(self, model, metrics=("accuracy",)):
        self.model = model
        self.metrics = metrics
        self.steps = 0

    def order(self, *key):
        return DataOrder(10, 4, *key)

    def reset_metrics(self):
        pass

    def metrics_state(self):
        return []

    def restore_metrics(self, state):
        assert state == []

    @property
    def soundness(self):
        return {"validation": self}

    def is_finite(self):
        return True

    def classes_predicted(self):
        return 10

    def train(self, batches):
        variables = self.model.variables
        for batch in batches:
            self.steps += 1
            variables["/optimizer/000"] = 0.9 * variables["/optimizer/000"] + batch.sum()
            for path, mask in self.model.mask.items():
                step = np.sin(variables["/optimizer/000"] + np.arange(mask.size)).reshape(mask.shape)
                variables[path] = (variables[path] + 0.1 * step * mask).astype(np.float32)
        return self._values()

    def evaluate(self, name):
        return self._values()

    def _values(self):
        total = float(sum(np.abs(self.model.variables[path]).sum() for path in SHAPES))
        return {"loss": total, **{name: total % 1 for name in self.metrics}}


def run(path, *, checkpoint_seconds=0, extendable=EXTENDABLE, metrics=("accuracy",), **changes):
    """Does what the driver does; returns how many steps were trained."""
    config = {**CONFIG, **changes}
    directory = RunDirectory(path, config, extendable=extendable, checkpoint_seconds=checkpoint_seconds)
    model = Model()
    loop = Loop(model, metrics)
    directory.open()
    for replicate in range(1, config["replicates"] + 1):
        with directory.replicate(replicate).claimed() as store:
            plan = Plan(
                levels=config["levels"],
                fractions=dict.fromkeys(SHAPES, 0.3),
                controls=controls.resolve(config["controls"]),
                rewinding=Rewinding(restore=2, restart=2),
                key=(0, replicate),
            )
            train = Trainer(
                model,
                loop,
                steps=config["train"]["steps"],
                eval_every=2,
                order_key=plan.key,
                store=store,
            )
            for _ in iterative_pruning(plan, train, store.initial(draw(replicate)), ONES, draw):
                pass
    directory.write_results()
    return loop.steps


def draw(seed):
    kernels = {
        path: seeds.generator(seed, path).normal(size=shape).astype(np.float32)
        for path, shape in SHAPES.items()
    }
    return {**kernels, "/optimizer/000": np.zeros(())}


def contents(path):
    """What has to be the same in the end: relative name -> bytes of every file."""
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    different = (".lock", ".lock.json", "environment.json")
    return {name: data for name, data in found.items() if os.path.basename(name) not in different}


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What fsync is for, a machine that loses its power, is not tested; it takes long on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished")
    run(path)
    return path


@pytest.fixture
def workdir(tmp_path, finished):
    """A finished run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def undisturbed(finished):
    return contents(finished)


def refusal(path, **changes):
    """The message that a run in `path` is refused with; nothing in there has changed."""
    before = contents(path)
    with pytest.raises(RunDirectoryError) as caught:
        run(path, **changes)
    assert contents(path) == before
    return str(caught.value)


def test_what_a_run_leaves_behind(workdir):
    network = {"start.safetensors", "end.safetensors", "mask.safetensors", "curves.npz", "result.json"}
    folders = {
        "replicate_1/level_00/ticket": network | {"snapshots.safetensors"},
        "replicate_1/level_01/ticket": network,
        "replicate_1/level_01/reinit": network,
        "replicate_1": {"initial.safetensors", ".lock"},
        ".": {"config.json", "environment.json", "results.csv", ".lock"},
    }
    for folder, names in folders.items():
        assert {path.name for path in (workdir / folder).iterdir() if path.is_file()} == names
    assert len(contents(workdir)) == 5 * 3 + 1 + 1 + 2


def test_results_csv_has_a_row_for_every_network(workdir):
    with open(workdir / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["arm"]) for row in rows] == [("0", "ticket"), ("1", "ticket"), ("1", "reinit")]
    # 12 and 6 weights, of which round(3.6) and round(1.8) go.
    assert [float(row["density"]) for row in rows] == [1, 12 / 18, 12 / 18]
    results = recorded.results(workdir)
    for row, result in zip(rows, results, strict=True):
        assert row == {name: str(value) for name, value in vars(result).items()}


def test_a_finished_run_is_only_looked_at(workdir):
    before = contents(workdir)
    assert run(workdir) == 0
    assert contents(workdir) == before


def test_two_runs_give_the_same_bytes(tmp_path, undisturbed):
    run(tmp_path)
    assert contents(tmp_path) == undisturbed


class Killed(BaseException):
    pass


class Killer:
    """Ends the process, as it were, at the n-th call that changes a file: nothing is changed from then on."""

    def __init__(self, monkeypatch, at):
        self.calls, self.at = 0, at
        for owner, name in (
            (os, "replace"),
            (os, "fsync"),
            (pathlib.Path, "unlink"),
            (pathlib.Path, "mkdir"),
        ):
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, function):
        def call(subject, *args, **kwargs):
            self.calls += 1
            if self.calls == self.at and isinstance(subject, int):  # fsync: half of the file is written
                with contextlib.suppress(OSError):  # unless it is a folder
                    os.ftruncate(subject, os.fstat(subject).st_size // 2)
            if self.calls >= self.at:
                raise Killed
            return function(subject, *args, **kwargs)

        return call


def run_with_kills(path, kills):
    """Starts a run again and again; it is killed at each of these calls. Returns how many it took."""
    for at in itertools.chain(kills, [math.inf]):
        with pytest.MonkeyPatch.context() as monkeypatch:
            killer = Killer(monkeypatch, at)
            try:
                run(path)
            except Killed:
                continue
        return killer.calls


def test_a_run_that_is_killed_at_any_change_of_a_file_ends_with_the_same_bytes(tmp_path, undisturbed):
    total = run_with_kills(tmp_path / "whole", [])
    assert contents(tmp_path / "whole") == undisturbed
    assert total > 100
    for at in range(1, total + 1):
        path = tmp_path / str(at)
        assert run_with_kills(path, [at]) > 0
        assert contents(path) == undisturbed, f"killed at call {at}"


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_is_killed_many_times_ends_with_the_same_bytes(tmp_path, undisturbed, seed):
    kills = np.random.default_rng(seed).integers(5, 40, 30).tolist()
    run_with_kills(tmp_path, kills)
    assert contents(tmp_path) == undisturbed


def test_a_run_goes_on_inside_a_level(tmp_path, undisturbed):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed), pytest.MonkeyPatch.context() as monkeypatch:

        def kill(self, start, progress):
            if (start.level, start.arm, progress.history.steps[-1]) == (1, "reinit", 6):
                raise Killed
            save(self, start, progress)

        save = runs.ReplicateStore.save_progress
        monkeypatch.setattr(runs.ReplicateStore, "save_progress", kill)
        run(tmp_path / "run")
    assert (tmp_path / "run/replicate_1/level_01/reinit/checkpoint.safetensors").exists()
    assert whole == 6 + 4 + 6
    assert run(tmp_path / "run") == 2
    assert contents(tmp_path / "run") == undisturbed


def test_checkpoints_are_written_when_it_is_time(tmp_path, monkeypatch):
    written = []
    save = runs.ReplicateStore.save_progress
    monkeypatch.setattr(
        runs.ReplicateStore, "save_progress", lambda *args: (written.append(args[1].arm), save(*args))
    )
    run(tmp_path / "often", checkpoint_seconds=0)
    assert len(written) == 3 + 2 + 3
    run(tmp_path / "never", checkpoint_seconds=math.inf)
    assert len(written) == 8
    assert contents(tmp_path / "often") == contents(tmp_path / "never")


def test_leftovers_are_removed_and_other_files_stay(workdir, undisturbed):
    network = workdir / "replicate_1/level_01/ticket"
    (network / ".end.safetensors.123.tf_lottery.tmp").touch()
    (workdir / ".results.csv.123.tf_lottery.tmp").touch()
    (network / "checkpoint.safetensors").touch()  # killed between the result and this one's removal
    (workdir / "notes").mkdir()
    (workdir / "notes/.mine.tmp").touch()
    run(workdir)
    assert contents(workdir) == {**undisturbed, "notes/.mine.tmp": b""}


@pytest.mark.parametrize(
    ("first", "then", "steps"),
    [
        ({"levels": 1}, {"levels": 2}, 4 + 6),
        ({"controls": ()}, {"controls": ("reinit", "shuffle")}, 6 + 4),
        ({"replicates": 1}, {"replicates": 2}, 6 + 4 + 6),
        (
            {"levels": 0, "controls": ()},
            {"levels": 2, "controls": ("shuffle",), "replicates": 2},
            6 + 4 * 8,
        ),
    ],
)
def test_a_finished_run_is_extended(tmp_path, first, then, steps):
    run(tmp_path / "direct", **{**first, **then})
    run(tmp_path / "extended", **first)
    assert run(tmp_path / "extended", **{**first, **then}) == steps
    assert contents(tmp_path / "extended") == contents(tmp_path / "direct")


def test_another_config_is_refused_with_the_difference(workdir):
    message = refusal(workdir, train={"steps": 7, "rate": 0.1}, seed=3, levels=2)
    assert message == (
        f"'{workdir}' belongs to a run with another config:\n"
        "  train.steps: 6 there, 7 now\n"
        "  seed: None there, 3 now\n"
        "Choose another workdir, or the config of that run."
    )
    assert "levels: 1 there, 2 now" in refusal(workdir, levels=2, extendable=())


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"levels": 0}, "levels: 1 there, 0 now"),
        ({"controls": ["random"]}, "controls: ['reinit'] there, ['random'] now"),
        ({"controls": []}, "controls: ['reinit'] there, [] now"),
    ],
)
def test_a_run_grows_and_does_not_shrink(workdir, change, difference):
    assert difference in refusal(workdir, **change)


def test_networks_without_a_config_are_refused(workdir):
    (workdir / "config.json").unlink()
    assert "holds networks, but no config.json that says of which run." in refusal(workdir)


def test_a_replicate_that_another_process_works_on_is_refused(workdir):
    with RunDirectory(workdir, CONFIG).replicate(1).claimed():
        message = refusal(workdir)
        assert f"'{workdir}' is in use by another run (process {os.getpid()} on " in message
        assert message.endswith("Wait for it, or choose another workdir.")
        (workdir / "replicate_1/.lock.json").write_text("[]")
        assert "(it does not say which)" in refusal(workdir)
    run(workdir)


def test_what_another_process_is_writing_is_no_leftover(workdir):
    temporary = workdir / "replicate_1/level_01/ticket/.end.safetensors.123.tf_lottery.tmp"
    directory = RunDirectory(workdir, {**CONFIG, "replicates": 2}, extendable=EXTENDABLE)
    with directory.replicate(1).claimed():
        temporary.touch()
        directory.open()
        with directory.replicate(2).claimed():
            pass
        with pytest.raises(RunDirectoryError), directory.replicate(1).claimed():
            pass
        assert temporary.exists()
    with directory.replicate(1).claimed():
        assert not temporary.exists()


def test_a_look_changes_nothing(tmp_path, workdir):
    before = contents(workdir)
    RunDirectory(workdir, CONFIG).check()
    with pytest.raises(RunDirectoryError, match="another config"):
        RunDirectory(workdir, {**CONFIG, "seed": 1}).check()
    assert contents(workdir) == before
    RunDirectory(tmp_path / "none", CONFIG).check()
    assert not (tmp_path / "none").exists()
    (tmp_path / "folder").mkdir()
    RunDirectory(tmp_path / "folder", CONFIG).check()
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="file' is a file. Choose another workdir."):
        RunDirectory(tmp_path / "file", CONFIG).check()


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDirectory("~/run", CONFIG).path == tmp_path / "run"


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "other": lambda path: path.write_bytes(b"[]"),
    "gone": lambda path: path.unlink(),
}
NETWORK = "replicate_1/level_01/ticket"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["mask.safetensors", "end.safetensors", "curves.npz", "result.json"])
def test_a_damaged_network_is_named_and_can_be_made_again(workdir, undisturbed, name, damage):
    DAMAGES[damage](workdir / NETWORK / name)
    if (name, damage) != ("result.json", "gone"):  # which is a network that is not done
        message = refusal(workdir)
        assert message.endswith(f"Delete '{workdir / NETWORK}': the same command makes it again.")
        if name != "result.json" and damage != "other":
            assert name in message
        for path in (workdir / NETWORK).iterdir():
            path.unlink()
    run(workdir)
    assert contents(workdir) == undisturbed


@pytest.mark.parametrize("damage", ["cut short", "empty", "other"])
def test_a_damaged_checkpoint_is_named_and_can_be_deleted(tmp_path, undisturbed, damage):
    def kill(*args):
        raise Killed

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        monkeypatch.setattr(runs.ReplicateStore, "save", kill)
        run(tmp_path)
    checkpoint = tmp_path / "replicate_1/level_00/ticket/checkpoint.safetensors"
    DAMAGES[damage](checkpoint)
    assert refusal(tmp_path).endswith(f"Delete '{checkpoint}': the same command makes it again.")
    checkpoint.unlink()
    run(tmp_path)
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", ["cut short", "empty", "other"])
def test_a_damaged_initial_state_is_named(workdir, damage):
    DAMAGES[damage](workdir / "replicate_1/initial.safetensors")
    message = refusal(workdir)
    assert f"Cannot read '{workdir / 'replicate_1/initial.safetensors'}'" in message
    assert message.endswith("The run cannot go on without it: choose another workdir.")


@pytest.mark.parametrize("damage", ["cut short", "empty"])
def test_a_damaged_config_is_named(workdir, damage):
    DAMAGES[damage](workdir / "config.json")
    assert refusal(workdir).startswith(f"Cannot read '{workdir / 'config.json'}'")


def test_a_config_that_is_none_is_shown(workdir):
    (workdir / "config.json").write_text("[]")
    assert "config.json': it was not written by tf_lottery. Choose another workdir." in refusal(workdir)


def test_a_mask_that_this_run_does_not_come_to(workdir):
    network = workdir / NETWORK
    (network / "mask.safetensors").write_bytes(
        (network.parents[1] / "level_00/ticket/mask.safetensors").read_bytes()
    )
    assert f"The mask in '{network}' is not the one that this run comes to." in refusal(workdir)


def test_a_mask_of_other_layers(workdir):
    store = RunDirectory(workdir, CONFIG).replicate(1)
    state = store.initial({})
    for mask in ({"fc/kernel": ONES["fc/kernel"]}, {**ONES, "more/kernel": np.ones(2, bool)}):
        with pytest.raises(RunDirectoryError, match="is not the one that this run comes to"):
            store.load(Start(0, "ticket", mask, {**state, "more/kernel": np.ones(2)}))
    assert store.load(Start(0, "ticket", ONES, state)).history.steps == [0, 2, 4, 6]


def test_accuracies_that_there_are_none_of(tmp_path):
    run(tmp_path, metrics=())
    text = (tmp_path / NETWORK / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["final_test_accuracy"] is None
    results = recorded.results(tmp_path)
    assert all(math.isnan(result.final_test_accuracy) for result in results)
    assert all(math.isfinite(result.min_validation_loss) for result in results)
    assert ",nan," in (tmp_path / "results.csv").read_text()
    before = contents(tmp_path)
    assert run(tmp_path, metrics=()) == 0
    assert contents(tmp_path) == before


def test_a_folder_without_networks_has_no_results(tmp_path):
    assert recorded.results(tmp_path) == recorded.results(tmp_path / "none") == []


def test_a_start_that_this_run_does_not_come_to(workdir):
    """As where the initial weights were lost, and the model has others now."""
    network, store = workdir / NETWORK, RunDirectory(workdir, CONFIG).replicate(1)
    (network / "start.safetensors").write_bytes((network / "end.safetensors").read_bytes())
    assert f"The start in '{network}' is not the one that this run comes to." in refusal(workdir)
    assert store.holds([(1, "ticket")])


def test_what_a_killed_process_had_no_time_to_remove_is_removed(workdir):
    network, store = workdir / NETWORK, RunDirectory(workdir, CONFIG).replicate(1)
    store.save_failure(Failure(1, "ticket", 3, "the loss is nan", 2))
    (network / "checkpoint.safetensors").touch()
    assert recorded.failures(workdir) == [] and store.holds([(1, "ticket"), (1, "reinit")])
    with store.claimed():
        assert not {"failure.json", "checkpoint.safetensors"} & {path.name for path in network.iterdir()}


def test_the_folders_of_a_run_are_synced(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync

    def sync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", sync)
    with RunDirectory(tmp_path / "runs/one", CONFIG).open().replicate(1).claimed():
        pass
    assert {folder.stat().st_ino for folder in (tmp_path, tmp_path / "runs", tmp_path / "runs/one")} <= synced
