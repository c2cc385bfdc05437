import dataclasses
import math
import pathlib

import pytest

from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import flags
from tf_lottery.experiments.config import DataConfig, ExperimentConfig, PruneConfig, TrainConfig


def refused(*words):
    with pytest.raises(flags.UsageError) as caught:
        flags.parse(list(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parsed(*words):
    return flags.parse(list(words))[0][""]


def test_default_is_the_digits_experiment_and_valid():
    study, workdir = flags.parse([])
    assert study == {"": ExperimentConfig()}
    config = study[""]
    assert (config.data.name, config.network.name, workdir) == ("digits", "lenet_300_100", "runs/digits")


def test_every_entry_has_a_type_and_a_help_text():
    for name, field in config_module.fields().items():
        assert field.metadata["help"], name
        config_module._check_type(name, config_module.get(ExperimentConfig(), name), field.type)
    assert "train.learning_rate" in config_module.fields() and "train" not in config_module.fields()


def test_extendable_entries_exist():
    assert set(config_module.EXTENDABLE) < set(config_module.fields())


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ([], (16, 15)),
        (["--config.controls=", "--config.replicates=2"], (32, 0)),
        (["--config.controls=reinit,shuffle", "--config.control_levels=0,3,15"], (16, 6)),
        (["--config.prune.levels=0"], (1, 0)),
    ],
)
def test_count_of_networks(words, counts):
    assert config_module.count_networks(parsed(*words)) == counts


def test_a_parsed_config_is_frozen():
    config = parsed()
    for section in (config, config.train):
        name = dataclasses.fields(section)[-1].name
        with pytest.raises(AttributeError, match=f"frozen once a run has begun; cannot set '{name}'"):
            setattr(section, name, "other")
    assert config == ExperimentConfig()


def test_unknown_entries_name_the_closest():
    config = ExperimentConfig()
    with pytest.raises(AttributeError, match="Unknown config entry 'step'. Did you mean 'steps'"):
        config.train.step = 5
    with pytest.raises(AttributeError, match="Unknown config entry 'step'. Did you mean 'steps'"):
        TrainConfig(step=5)
    with pytest.raises(AttributeError, match="Unknown config entry 'trian'. Did you mean 'train'"):
        ExperimentConfig(trian=TrainConfig())


def test_overrides():
    config = parsed(
        "--config.train.steps=7",
        "--config.train.learning_rate=1",
        "--config.data.name=idx:some/folder",
        "--config.seed",
        "-3",
    )
    assert (config.train.steps, config.train.learning_rate, config.seed) == (7, 1.0, -3)
    assert config.data.name == "idx:some/folder"


def test_of_a_flag_given_twice_the_last_counts():
    study, workdir = flags.parse(
        ["--workdir=a", "--config.train.steps=7", "--workdir=b", "--config.train.steps=8"]
    )
    assert (study[""].train.steps, workdir) == (8, "b")


@pytest.mark.parametrize(
    ("words", "workdir"),
    [
        ([], "runs/digits"),
        (["--config.prune.levels=3"], "runs/digits"),
        (["--config.flavour=keras"], "runs/digits-flavour=keras"),
        (["--config=configs/digits.py", "--config.data.name=idx:/a/b"], "runs/digits-data.name=idx_a_b"),
        (["--config", "configs/mnist_lenet.py", "--config.seed", "3"], "runs/mnist_lenet-seed=3"),
        (["--config.train.steps", "50", "--config.seed=2"], "runs/digits-train.steps=50-seed=2"),
        (["--config.flavour=keras", "--workdir=here"], "here"),
    ],
)
def test_each_experiment_has_a_workdir_of_its_own(words, workdir):
    root = pathlib.Path(__file__).parent.parent
    words = [word.replace("configs/", f"{root}/configs/") for word in words]
    assert flags.parse(words)[1] == workdir


def test_the_levels_with_controls_are_written_out():
    config = ExperimentConfig(control_levels=(7, 9))
    assert config_module.entries_of(config)["control_levels"] == (7, 9)
    config = ExperimentConfig()
    config.prune.levels = 3
    assert config_module.entries_of(config)["control_levels"] == (1, 2, 3)


def test_workdir_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/some/home")
    assert flags.parse(["--workdir=~/runs"])[1] == "/some/home/runs"


@pytest.mark.parametrize(
    ("word", "controls"),
    [
        ("--config.controls=", ()),
        ("--config.controls=shuffle", ("shuffle",)),
        ("--config.controls=reinit,shuffle", ("reinit", "shuffle")),
        ("--config.controls=reinit, shuffle", ("reinit", "shuffle")),
        ("--config.controls=('reinit','random')", ("reinit", "random")),
    ],
)
def test_controls(word, controls):
    assert parsed(word).controls == controls


@pytest.mark.parametrize(
    ("word", "steps"),
    [
        ("--config.train.decay_steps=", ()),
        ("--config.train.decay_steps=80", (80,)),
        ("--config.train.decay_steps=80,120", (80, 120)),
    ],
)
def test_decay_steps(word, steps):
    assert parsed(word).train.decay_steps == steps


@pytest.mark.parametrize(
    ("word", "levels"),
    [
        ("--config.control_levels=", ()),
        ("--config.control_levels=7", (7,)),
        ("--config.control_levels=7,9", (7, 9)),
    ],
)
def test_control_levels(word, levels):
    assert parsed(word).control_levels == levels


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.train.stepz=3"], "Unknown config entry 'train.stepz'. Did you mean 'train.steps'?"),
        (["--config.train=3"], "Unknown config entry 'train'."),
        (["--wrkdir=a"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
        (["configs/digits.py"], "Unexpected argument 'configs/digits.py'. Flags are written --name=value."),
        (["--workdir="], "--workdir is empty. Name a folder, such as --workdir=runs/mine."),
        (["--workdir"], "Missing value for flag --workdir"),
        (["--config.train.steps=many"], "flag --config.train.steps=many: invalid literal for int()"),
        (["--config.train.steps=1.5"], "flag --config.train.steps=1.5: invalid literal for int()"),
        (["--flagfile=gone"], "Unable to open flagfile"),
        (["--config.controls=reinti"], "Unknown control 'reinti'. Did you mean 'reinit'?"),
        (["--config.controls=reinit,reinit"], "config.controls must not name one twice."),
        (["--config.control_levels=2,2"], "config.control_levels must not name one twice."),
        (["--config.control_levels=16"], "config.control_levels must be in 0..15. Received 16."),
        (
            ["--config.control_levels=2,x"],
            "config.control_levels must be a tuple of int. Received ('2', 'x').",
        ),
        (["--config.prune.criterion=magnitud"], "Unknown criterion 'magnitud'. Did you mean 'magnitude'?"),
        (["--config.prune.scope=globe"], "Unknown scope 'globe'. Did you mean 'global'?"),
        (["--config.flavour=tfkeras"], "Unknown flavour 'tfkeras'. Did you mean 'tf_keras'?"),
        (["--config.network.name=lenet_300"], "Unknown network 'lenet_300'. Did you mean 'lenet_300_100'?"),
        (["--config.data.input_scaling=units"], "Unknown input scaling 'units'. Did you mean 'unit'?"),
        (
            ["--config.network.name=resnet_21"],
            "There is no 'resnet_21': a ResNet for CIFAR has 6n + 2 layers",
        ),
        (["--config.network.name=conv_2:3"], "Network 'conv_2' takes no argument, but got '3'"),
        (["--config.train.augment=crop"], "Unknown augmentation 'crop'. Did you mean 'crop_flip'?"),
        (
            ["--config.train.momentum=0.9"],
            "config.train.momentum is of SGD, and config.train.optimizer is 'adam'. Set the one to 0 or the",
        ),
        (
            ["--config.train.decay_steps=80,80"],
            "config.train.decay_steps must be 1 or more, and each above the one before. Received (80, 80).",
        ),
        (["--config.train.decay_steps=0,5"], "each above the one before. Received (0, 5)."),
        (["--config.train.decay_steps=5,x"], "config.train.decay_steps must be a tuple of int. Received"),
    ],
)
def test_what_is_refused(words, message):
    assert message in refused(*words)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("data.validation_size", 0, "must be 1 or more. Received 0."),
        ("train.batch_size", 0, "must be 1 or more. Received 0."),
        ("train.steps", 0, "must be 1 or more. Received 0."),
        ("train.control_steps", -1, "must be 0 or more. Received -1."),
        ("train.eval_every_steps", 0, "must be 1 or more. Received 0."),
        ("prune.levels", -1, "must be 0 or more. Received -1."),
        ("prune.rewind_step", -1, "must be 0 or more. Received -1."),
        ("prune.rewind_step", 1500, "must be below config.train.steps, 1500. Received 1500."),
        ("replicates", 0, "must be 1 or more. Received 0."),
        ("prune.fraction", 1, "must be in [0, 1). Received 1.0."),
        ("prune.fraction", -0.1, "must be in [0, 1). Received -0.1."),
        ("prune.output_fraction", math.nan, "must be in [0, 1). Received nan."),
        ("train.momentum", 1, "must be in [0, 1). Received 1.0."),
        ("train.weight_decay", -1e-4, "must be in [0, 1). Received -0.0001."),
        ("train.weight_decay", math.nan, "must be in [0, 1). Received nan."),
        ("train.warmup_steps", -1, "must be 0 or more. Received -1."),
        ("train.decay_factor", 0, "must be above 0 and finite. Received 0.0."),
        ("train.learning_rate", 0, "must be above 0 and finite. Received 0.0."),
        ("train.learning_rate", math.inf, "must be above 0 and finite. Received inf."),
        ("train.learning_rate", math.nan, "must be above 0 and finite. Received nan."),
    ],
)
def test_what_is_out_of_range(entry, value, message):
    assert refused(f"--config.{entry}={value}") == f"config.{entry} {message}"


@pytest.mark.parametrize(
    "words",
    [
        ["--config.prune.levels=0", "--config.train.steps=1", "--config.train.batch_size=1"],
        [
            "--config.prune.fraction=0",
            "--config.prune.output_fraction=0.99",
            "--config.data.validation_size=1",
        ],
        [
            "--config.train.optimizer=sgd",
            "--config.train.momentum=0.99",
            "--config.train.weight_decay=0.5",
            "--config.train.decay_steps=1,2",
            "--config.train.decay_factor=2",
            "--config.network.name=resnet_8",
        ],
        [
            "--config.prune.rewind_step=1499",
            "--config.train.eval_every_steps=1",
            "--config.control_levels=0,15",
        ],
    ],
)
def test_what_is_just_within_range(words):
    parsed(*words)


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("train", "steps", 1.5, "config.train.steps must be of type int. Received 1.5."),
        ("train", "steps", True, "config.train.steps must be of type int. Received True."),
        ("train", "learning_rate", "1", "config.train.learning_rate must be of type float. Received '1'."),
        ("network", "name", None, "config.network.name must be of type str. Received None."),
        ("", "controls", "reinit", "config.controls must be a tuple of str. Received 'reinit'."),
        ("", "controls", ["reinit"], "config.controls must be a tuple of str. Received ['reinit']."),
        ("", "control_levels", (1.0,), "config.control_levels must be a tuple of int. Received (1.0,)."),
    ],
)
def test_wrong_types(section, name, value, message):
    config = ExperimentConfig()
    setattr(getattr(config, section) if section else config, name, value)
    with pytest.raises(TypeError) as caught:
        config_module.validate(config)
    assert str(caught.value) == message


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """Writes my.py in the working directory: imports, then the given lines."""
    monkeypatch.chdir(tmp_path)

    def write(*lines):
        imports = "from tf_lottery.experiments.config import *"
        (tmp_path / "my.py").write_text("\n".join([imports, *lines]) + "\n")

    return write


def test_a_config_file(config_file):
    config_file("def get_config():", "    return ExperimentConfig(train=TrainConfig(steps=9), seed=4)")
    config = parsed("--config=my.py", "--config.seed=5")
    assert config == ExperimentConfig(train=TrainConfig(steps=9), seed=5)
    assert parsed("--config", "my.py").seed == 4
    assert refused("--config.seed=5", "--config=my.py") == "--config=FILE comes before --config.ENTRY=VALUE."


def test_a_config_file_is_read_anew_each_time(config_file):
    for seed in (1, 2):
        config_file("def get_config():", f"    return ExperimentConfig(seed={seed})")
        assert parsed("--config=my.py").seed == seed


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["def get_config(:"], "SyntaxError: invalid syntax (my.py, line 2)"),
        (["1 / 0"], "line 2: ZeroDivisionError: division by zero"),
        (["def get_config():", "    return [][1]"], "line 3: IndexError: list index out of range"),
        (["x = 1"], "the file has no function get_config()."),
        (
            ["def get_config():", "    return [ExperimentConfig()]"],
            "get_config() must return an ExperimentConfig, or a dict name -> ExperimentConfig. "
            "It returned list.",
        ),
        (
            ["def get_config():", "    return {}"],
            "get_config() must return an ExperimentConfig, or a dict name -> ExperimentConfig. "
            "It returned an empty dict.",
        ),
        (
            ["def get_config():", "    return {'a': ExperimentConfig(), 'b': DataConfig()}"],
            "get_config() must return an ExperimentConfig, or a dict name -> ExperimentConfig. "
            "It returned a dict of DataConfig.",
        ),
        (["import tensroflow"], "line 2: ModuleNotFoundError: No module named 'tensroflow'"),
    ],
)
def test_config_files_that_cannot_be_used(config_file, lines, message):
    config_file(*lines)
    assert refused("--config=my.py") == f"flag --config=my.py: {message}"


@pytest.mark.parametrize(
    "line", ["config.train.step = 5", "config.train = TrainConfig(step=5)", "TrainConfig(**{'step': 5})"]
)
def test_a_config_file_that_sets_an_unknown_entry(config_file, line):
    config_file("def get_config():", "    config = ExperimentConfig()", f"    {line}", "    return config")
    message = refused("--config=my.py")
    assert message.startswith("flag --config=my.py: line 4: AttributeError: Unknown config entry 'step'.")
    assert "Did you mean 'steps'?" in message


def test_a_config_file_out_of_range(config_file):
    config_file("def get_config():", "    return ExperimentConfig(prune=PruneConfig(fraction=2))")
    assert refused("--config=my.py") == "config.prune.fraction must be in [0, 1). Received 2."


STUDY = (
    "def get_config():",
    "    train = TrainConfig(steps=90)",
    "    return {str(seed): ExperimentConfig(train=train, seed=seed, controls=()) for seed in (1, 2)}",
)


def test_a_study(config_file):
    config_file(*STUDY)
    study, workdir = flags.parse(["--config=my.py"])
    assert [(name, config.seed, config.train.steps) for name, config in study.items()] == [
        ("1", 1, 90),
        ("2", 2, 90),
    ]
    assert workdir == "runs/my"
    for config in study.values():
        with pytest.raises(AttributeError, match="frozen"):
            config.train.steps = 5


def test_flags_hold_for_every_experiment_of_a_study(config_file):
    config_file(*STUDY)
    words = ["--config.train.steps=7", "--config.controls=reinit,shuffle", "--config.replicates=3"]
    study, _ = flags.parse(["--config=my.py", *words])
    assert list(study) == ["1", "2"]
    for name, config in study.items():
        assert config.seed == int(name)
        assert (config.train.steps, config.controls, config.replicates) == (7, ("reinit", "shuffle"), 3)


@pytest.mark.parametrize(
    ("word", "workdir"),
    [
        ("--config.train.steps=90", "runs/my"),
        ("--config.replicates=2", "runs/my"),
        ("--config.seed=1", "runs/my-seed=1"),
        ("--config.seed=2", "runs/my-seed=2"),
    ],
)
def test_what_flags_change_in_any_experiment_names_the_workdir(config_file, word, workdir):
    config_file(*STUDY)
    assert flags.parse(["--config=my.py", word])[1] == workdir


def test_what_is_wrong_in_a_study_names_the_experiment(config_file):
    config_file(
        "def get_config():",
        "    bad = ExperimentConfig(prune=PruneConfig(fraction=2))",
        "    return {'good': ExperimentConfig(), 'bad': bad}",
    )
    assert refused("--config=my.py") == "bad: config.prune.fraction must be in [0, 1). Received 2."


@pytest.mark.parametrize("name", ["He", "a/b", "", ".", "..", "-a", "figures", "a b", "\u00e9", 5])
def test_names_of_experiments_that_cannot_be_folders(config_file, name):
    config_file(
        "def get_config():", f"    return {{'good': ExperimentConfig(), {name!r}: ExperimentConfig()}}"
    )
    message = refused("--config=my.py")
    assert message.startswith("flag --config=my.py: an experiment of a study is named as its folder will be:")
    assert message.endswith(f"Received {name!r}.")


@pytest.mark.parametrize("name", ["gone.py", "", "."])
def test_a_config_file_that_is_not_there(config_file, name):
    assert refused(f"--config={name}") == f"flag --config={name}: there is no such file."


def test_help_names_every_entry_with_its_default():
    text = flags.help_text()
    for name, field in config_module.fields().items():
        assert f" {name}=" in text and field.metadata["help"] in " ".join(text.split())
    for shown in (
        "prune.levels=15 ",
        "controls=reinit ",
        "data.name=digits ",
        "shuffle",
        "mlp",
        "--workdir=DIR",
    ):
        assert shown in text
    assert max(map(len, text.splitlines())) <= 110


def test_sections_compare_by_value():
    assert DataConfig() == DataConfig() and PruneConfig(levels=3) != PruneConfig()
