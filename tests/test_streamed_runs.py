"""Runs on images that stream from disk: they go on inside an epoch, and can be looked at."""

import numpy as np
import pytest
from image_sets import numbered, photograph, store

from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import driver, image_files
from tf_lottery.experiments.analyses import connectivity, infoplane, structure
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.training.listener import Listener
from tf_lottery.training.runs import RunDirectory

pytestmark = pytest.mark.usefixtures("no_xla")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    store(folder, "photographs", photograph, (None, None, 3))
    store(folder, "numbered", numbered, (4, 5, 3))
    return str(folder)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(image_files, "_SHUFFLED_BYTES", 10_000)


def small(data_dir, flavour="keras", **data):
    """An epoch has 70 examples: 8.75 steps."""
    config = ExperimentConfig(flavour=flavour, controls=())
    config.data = config_module.DataConfig(
        **{"name": "photographs", "image_size": 8, **data}, data_dir=data_dir, validation_size=20
    )
    config.network.name = "mlp:4"
    config.train.augment = "random_resized_crop" if config.data.image_size else "crop_flip"
    config.train.batch_size, config.train.steps, config.train.eval_every_steps = 8, 24, 6
    config.prune.levels, config.prune.rewind_step = 1, 5
    return config


class Killed(Exception):
    pass


class KillsAt(Listener):
    """Ends everything after a step of a level."""

    def __init__(self, level, step):
        self.moment = level, step

    def stepped(self, start, step, logs):
        if (start.level, step) == self.moment:
            raise Killed


def search(config, workdir, listener=None):
    experiment = Experiment(config)
    directory = RunDirectory(workdir, config_module.entries_of(config), checkpoint_seconds=0)
    with directory.open().replicate(1).claimed() as store:
        list(experiment.search(store, (listener,) if listener else ()))


def contents(path):
    suffixes = (".safetensors", ".npz", ".csv")
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.suffix in suffixes}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_run_goes_on_inside_an_epoch_and_ends_with_the_same_bytes(data_dir, tmp_path, flavour):
    config = small(data_dir, flavour)
    search(config, tmp_path / "whole")
    # After the checkpoints at steps 12 and 18, and before the next evaluation.
    for level, step in ((0, 18), (1, 24)):
        with pytest.raises(Killed):
            search(config, tmp_path / "killed", KillsAt(level, step))
        assert list((tmp_path / "killed").rglob(f"level_{level:02d}/ticket/checkpoint.safetensors"))
    search(config, tmp_path / "killed")
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert len(whole) >= 10 and whole == killed


def test_images_of_one_size_are_moved_by_the_network(data_dir, tmp_path):
    config = small(data_dir, name="numbered", image_size=0, memory_gib=0.0)
    driver.run(config, str(tmp_path / "from_disk"))
    config.data.memory_gib = 1.0
    driver.run(config, str(tmp_path / "in_memory"))
    curves = "replicate_1/level_00/ticket/curves.npz"
    disk, memory = (np.load(tmp_path / run / curves) for run in ("from_disk", "in_memory"))
    # The same weights and images before the first step; then the batches are others.
    for part in ("validation", "test"):
        np.testing.assert_allclose(disk[f"{part}/loss"][0], memory[f"{part}/loss"][0], rtol=1e-5)
    assert disk["validation/loss"][-1] != memory["validation/loss"][-1]


def test_analyses(data_dir, tmp_path):
    driver.run(small(data_dir), str(tmp_path))
    found = connectivity.analyze(tmp_path, points=3, levels=(1,))
    assert "level" in found.text and found.rows
    assert structure.analyze(tmp_path, examples=30).rows
    with pytest.raises(ValueError, match="information plane is of examples in memory, .* are on disk"):
        infoplane.analyze(tmp_path)
