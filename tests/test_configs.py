"""The files in configs/: each runs, shrunken, and holds what its docstring says."""

import functools
import pathlib
import re
import runpy
import types

import numpy as np
import pytest
from image_sets import photograph, store

from tf_lottery import files
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import datasets, driver, flags, networks
from tf_lottery.keras_api.flavour import FLAVOURS

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
CIFAR = ("cifar10_conv2", "cifar10_conv4", "cifar10_conv6", "cifar10_resnet20", "cifar10_vgg16")
MNIST = ("mnist_lenet", "mnist_lenet_google", "mnist_lenet_openlth")
# The same families with fewer layers.
SMALLER = {"resnet_20": "resnet_8", "vgg_16": "vgg_3", "resnet_50": "bottlenecks"}


def config_of(name):
    config = runpy.run_path(str(FOLDER / f"{name}.py"))["get_config"]()
    config_module.validate(config)
    return config


def entries_of(name):
    config = config_of(name)
    return {entry: config_module.get(config, entry) for entry in config_module.fields()}


def made_up(monkeypatch, shape):
    """Puts 40 images of noise in the place of those of tensorflow_datasets."""
    images = np.random.default_rng(0).integers(0, 256, (40, *shape), np.uint8)
    raw = datasets._Raw((images, np.arange(40) % 10), (images[:20], np.arange(20) % 10), 10, 255)
    monkeypatch.setattr(datasets, "StoredImages", lambda name, data_dir: types.SimpleNamespace(gib=0.0))
    monkeypatch.setattr(datasets, "_read", lambda stored: raw)


def shrunken(config, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "vgg_3", functools.partial(networks.vgg, counts=(1, 1)))
    bottlenecks = functools.partial(networks.bottleneck_resnet, blocks=(1, 1))
    monkeypatch.setitem(networks.NETWORKS, "bottlenecks", bottlenecks)
    config.network.name = SMALLER.get(config.network.name, config.network.name)
    config.data.validation_size = 10
    train = config.train
    train.batch_size, train.steps, train.eval_every_steps = 4, 4, 2
    train.warmup_steps, train.decay_steps = min(train.warmup_steps, 1), (1, 2, 3)[: len(train.decay_steps)]
    config.prune.levels, config.prune.rewind_step = 1, min(config.prune.rewind_step, 1)
    config.controls = config.control_levels = ()
    return config


@pytest.mark.parametrize(
    ("name", "flavour"),
    [
        ("cifar10_conv2", "keras"),
        ("cifar10_conv4", "tf_keras"),
        ("cifar10_conv6", "keras"),
        *(("cifar10_resnet20", flavour) for flavour in FLAVOURS),
        ("cifar10_vgg16", "tf_keras"),
    ],
)
def test_each_config_for_cifar_runs_in_small(name, flavour, tmp_path, monkeypatch):
    made_up(monkeypatch, (8, 8, 3))
    config = shrunken(config_of(name), monkeypatch)
    config.flavour = flavour
    results = driver.run(config, str(tmp_path))
    assert [(result.level, result.arm) for result in results] == [(0, "ticket"), (1, "ticket")]
    ticket = tmp_path / "replicate_1" / "level_01" / "ticket"
    mask, start = (files.read_tensors(ticket / f"{part}.safetensors")[0] for part in ("mask", "start"))
    dense, late = tmp_path / "replicate_1" / "level_00" / "ticket", config.prune.rewind_step > 0
    whole = files.read_tensors(dense / f"{'snapshots' if late else 'start'}.safetensors")[0]
    whole = {path.removeprefix("1/"): array for path, array in whole.items()}
    for path, array in start.items():
        expected = np.where(mask[path], whole[path], 0) if path in mask else whole[path]
        np.testing.assert_array_equal(array, expected)
    output = mask.pop("output/kernel")
    if late:
        assert whole["augment/seed_generator_state"][1] == 1 and output.all()
        total = sum(array.size for array in mask.values())
        assert sum(array.sum() for array in mask.values()) == total - round(0.2 * total)
    else:
        for path, array in mask.items():
            share = config.prune.conv_fraction if path.startswith("conv") else 0.2
            assert array.sum() == array.size - round(share * array.size)
        assert output.sum() == output.size - round(0.1 * output.size)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_config_for_imagenet_runs_in_small(flavour, tmp_path):
    """On photographs of many sizes, as ImageNet has them."""
    store(tmp_path, "imagenet2012", photograph, (None, None, 3), sizes=(40, 8))
    with pytest.MonkeyPatch.context() as monkeypatch:
        config = shrunken(config_of("imagenet_resnet50"), monkeypatch)
        config.data.data_dir, config.data.image_size, config.flavour = str(tmp_path), 32, flavour
        driver.run(config, str(tmp_path / "run"))
    levels = [tmp_path / "run" / "replicate_1" / f"level_0{level}" / "ticket" for level in (0, 1)]
    late = files.read_tensors(levels[0] / "snapshots.safetensors")[0]
    mask, start = (files.read_tensors(levels[1] / f"{part}.safetensors")[0] for part in ("mask", "start"))
    assert all(array.dtype == np.float32 for path, array in start.items() if "seed" not in path)
    for path, kept in mask.items():
        np.testing.assert_array_equal(start[path], np.where(kept, late[f"1/{path}"], 0))
    assert mask.pop("output/kernel").all()
    total = sum(array.size for array in mask.values())
    assert sum(array.sum() for array in mask.values()) == total - round(0.2 * total)


@pytest.mark.parametrize("name", ("digits", "fashion_lenet", "information_plane", *MNIST))
def test_each_other_config_runs_in_small(name, tmp_path, monkeypatch, no_xla):
    made_up(monkeypatch, (8, 8, 1))
    config = shrunken(config_of(name), monkeypatch)
    config.controls = ("reinit",)
    results = driver.run(config, str(tmp_path))
    assert [(result.level, result.arm) for result in results] == [(0, "ticket"), (1, "ticket"), (1, "reinit")]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_docstrings_have_paper_command_and_time(path):
    module = runpy.run_path(str(path))
    text = module["__doc__"]
    assert re.search(r"\d{4}\.\d{5}|mnist_lenet\.py", text)
    assert f"tf-lottery run --config=configs/{path.name}" in text
    assert re.search(r"minutes?|hours?|days?|weeks?", text)


def test_the_commands_of_docstrings_can_be_typed():
    """Every flag in them; a line that ends in a backslash goes on."""
    found = 0
    for path in FOLDER.glob("*.py"):
        text = runpy.run_path(str(path))["__doc__"].replace("\\\n", " ")
        for command in re.findall(r"^    (?:tf-lottery run|\.\.\.) (.*)$", text, flags=re.MULTILINE):
            words = re.sub(r"#.*", "", command).replace("configs/", f"{FOLDER}/").split()
            if not words[0].startswith("--config="):
                words.insert(0, f"--config={path}")
            flags.parse(words)
            found += 1
    assert found >= 12


def test_conv_n_have_the_paper_s_protocol():
    found = [entries_of(name) for name in CIFAR[:3]]
    columns = zip(
        *(
            (
                entries["network.name"],
                entries["train.learning_rate"],
                entries["train.steps"],
                entries["prune.conv_fraction"],
            )
            for entries in found
        )
    )
    assert list(columns) == [
        ("conv_2", "conv_4", "conv_6"),
        (2e-4, 3e-4, 3e-4),
        (20_000, 25_000, 30_000),
        (0.1, 0.1, 0.15),
    ]
    for entries in found:
        assert (entries["data.name"], entries["data.validation_size"]) == ("cifar10", 5000)
        assert (entries["train.optimizer"], entries["train.batch_size"]) == ("adam", 60)
        assert (entries["prune.fraction"], entries["prune.output_fraction"]) == (0.2, 0.1)
        assert (entries["prune.scope"], entries["network.initializer"]) == ("layer", "glorot_normal")


def test_deep_networks_have_openlth_s_training():
    resnet, vgg = (entries_of(name) for name in CIFAR[3:])
    for entries in (resnet, vgg):
        assert (entries["train.optimizer"], entries["train.learning_rate"]) == ("sgd", 0.1)
        assert (entries["train.momentum"], entries["train.weight_decay"]) == (0.9, 1e-4)
        assert (entries["train.batch_size"], entries["train.steps"]) == (128, 160 * 391)
        assert (
            entries["train.decay_steps"] == (80 * 391, 120 * 391) and entries["train.augment"] == "crop_flip"
        )
        assert (entries["prune.scope"], entries["prune.output_fraction"]) == ("global", 0)
        assert entries["data.input_scaling"] == "standardize"
    assert (resnet["network.name"], resnet["prune.rewind_step"]) == ("resnet_20", 500)
    assert (vgg["network.name"], vgg["prune.rewind_step"]) == ("vgg_16", 1000)


def test_resnet_50_has_openlth_s_training():
    entries, epoch = entries_of("imagenet_resnet50"), round(1_281_167 / 1024)
    assert (entries["train.optimizer"], entries["train.learning_rate"]) == ("sgd", 0.4)
    assert (entries["train.momentum"], entries["train.weight_decay"]) == (0.9, 1e-4)
    assert (entries["train.batch_size"], entries["train.steps"]) == (1024, 90 * epoch)
    assert entries["train.decay_steps"] == (30 * epoch, 60 * epoch, 80 * epoch)
    assert (entries["train.warmup_steps"], entries["prune.rewind_step"]) == (5 * epoch, 6 * epoch)
    assert (entries["train.augment"], entries["data.image_size"]) == ("random_resized_crop", 224)
    assert (entries["prune.scope"], entries["prune.fraction"]) == ("global", 0.2)
    assert (entries["network.name"], entries["data.input_scaling"]) == ("resnet_50", "imagenet")


def test_presets_of_lenet():
    google, openlth = (entries_of(name) for name in MNIST[1:])
    assert {google["network.name"], openlth["network.name"]} == {"lenet_300_100"}
    assert (google["train.optimizer"], google["train.learning_rate"]) == ("sgd", 0.1)
    assert (google["train.batch_size"], google["train.steps"]) == (64, 50_000)
    assert (google["data.input_scaling"], google["prune.output_fraction"]) == ("l2", 0.1)
    assert (openlth["train.optimizer"], openlth["train.learning_rate"]) == ("sgd", 0.1)
    assert (openlth["train.batch_size"], openlth["train.steps"]) == (128, 18_760)
    assert (openlth["data.input_scaling"], openlth["prune.scope"]) == ("standardize", "global")
    assert openlth["prune.output_fraction"] == 0 and "untruncated_normal" in openlth["network.initializer"]
    assert {google["train.momentum"], openlth["train.momentum"], openlth["train.weight_decay"]} == {0}
