"""Bad input: whatever a file, a word or a name holds, there is a documented error, or it is sound."""

import contextlib
import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tracemalloc
import zipfile

import hypothesis
import numpy as np
import pytest
import readers
import safetensors.numpy
from hypothesis import strategies as st

import tf_lottery
from tf_lottery import files, paths
from tf_lottery.experiments import config, datasets, flags, idx, import_data
from tf_lottery.experiments.analyses import plot, report
from tf_lottery.experiments.config import ExperimentConfig, NetworkConfig
from tf_lottery.experiments.experiment import recorded_config
from tf_lottery.keras_api import flavour
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.tickets import controls
from tf_lottery.training import recorded, verification
from tf_lottery.training.leases import Claim, Lease
from tf_lottery.training.recorded import RunDirectoryError

GIB = 2**30


@contextlib.contextmanager
def a_gib_more():
    """Lets this process have a GiB more of memory than it has now; more is a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + GIB, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", readers.READERS)
def test_only_documented_errors_and_little_memory(name, tmp_path):
    read, few = readers.READERS[name]
    cases = int(os.environ.get("TF_LOTTERY_CASES", few))  # 10000, with pytest's --timeout=3600
    read(readers.Choices(b""), tmp_path)  # what is imported and built once
    taken = []

    @hypothesis.settings(
        max_examples=cases,
        deadline=None,  # a hang is ended by pytest's own
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.binary(min_size=24, max_size=80))
    def check(data):
        taken.append(bool(read(readers.Choices(data), tmp_path)))

    with a_gib_more():
        check()
    assert 0.01 < sum(taken) / len(taken) < 0.99, "nothing is forged well, or nothing is wrong"


def refusal(function, *arguments):
    """What it says; whatever it was told, it took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as refused:
            function(*arguments)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    return str(refused.value)


# Promises


def npz(*members, packed=zipfile.ZIP_STORED):
    """A zip file of arrays: the header that each has, and its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as file:
        for number, (header, values) in enumerate(members):
            magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1)
            file.writestr(f"{number}.npy", magic + header.encode() + b"\n" + values)
    return buffer.getvalue()


def header(descr="'<f8'", shape="(2,)"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def overlapping():
    """A hundred members of a MiB that are all the same MiB of the file."""
    content = npz((header("'|u1'", f"({2**20},)"), bytes(2**20)))
    end = content.index(b"PK\x05\x06")
    start = content.index(b"PK\x01\x02")
    entries = content[start:end] * 100
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 100, 100, len(entries), start, 0)
    return content[:start] + entries + tail


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (npz((header(shape=f"({2**50},)"), bytes(16))), "has only 2 values"),
        (npz((header(shape=f"({2**31}, {2**31}, {2**31})"), bytes(16))), "has only 2 values"),
        (npz((header(shape="(3,)"), bytes(16))), "has only 2 values"),
        (npz((header(), bytes(24))), "has only 3 values"),
        (npz((header(), bytes(15))), "Cannot read"),
        (npz((header("'|V0'", f"({2**50},)"), b"")), "other things than arrays of bools and numbers"),
        (npz((header("'|O'"), pickle.dumps([1, 2]))), "other things than arrays of bools and numbers"),
        (npz((header("[('a', '<f8')]"), bytes(16))), "other things than arrays of bools and numbers"),
        (npz((header(shape="(" + "1" * 60000), b"")), "other things than arrays of bools and numbers"),
        (npz((header("'<f3'"), bytes(6))), "Cannot read"),
        (npz((header(shape=f"({2**23},)"), bytes(2**26)), packed=zipfile.ZIP_DEFLATED), "than plain arrays"),
        (overlapping(), "it holds other things than plain arrays"),
    ],
    ids=range(12),
)
def test_an_array_that_is_not_what_its_header_says(tmp_path, content, fault):
    path = tmp_path / "curves.npz"
    path.write_bytes(content)
    said = refusal(files.read_arrays, path)
    assert said.startswith(f"Cannot read {str(path)!r}: ") and fault in said


@pytest.mark.parametrize("gzipped", [False, True])
def test_images_that_are_more_than_memory_has_room_for(tmp_path, gzipped):
    """The file is as long as its header says, or could be: 5 GiB of which the disk keeps none."""
    path, shape = tmp_path / "images", (5, 2**15, 2**15)
    start = struct.pack(">HBB3I", 0, 8, 3, *shape)
    path.write_bytes(gzip.compress(start) if gzipped else start)
    os.truncate(path, 5 * GIB + 16)
    assert "promises 5,368,709,120 bytes of data, and 4,294,967,296 are the most" in refusal(
        idx.read, path, 3
    )


@pytest.mark.parametrize("depth", [60, 500, 10**4, 10**6])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_no_depth_of_nesting_is_too_much(tmp_path, depth, opening, closing):
    path = tmp_path / "some"
    text = opening * depth + "1" + closing * depth
    path.write_text(f'{{"x": {text}}}')
    with pytest.raises(ValueError, match="some': it is nested too deep"):
        files.read_json(path)
    path.write_bytes(safetensors.numpy.save({"mask/a": np.ones(1, bool)}, {"tf_lottery": text}))
    with pytest.raises(ValueError, match="some': it is nested too deep"):
        tf_lottery.Ticket.load(path)


# Run directories with right checksums


@pytest.fixture
def run(tmp_path):
    readers.write_run(tmp_path / "run")
    return tmp_path / "run"


def forge(path, **changes):
    entries = files.read_json(path)
    path.write_bytes(readers.json_file({**entries, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"arm": "../../../etc"},
        {"level": 0},
        {"replicate": 2},
        {"level": "1"},
        {"early_stop_step": "7"},
        {"early_stop_step": 10**400},
        {"min_validation_loss": [1.0]},
        {"min_validation_loss": 1e308},
        {"density": None},
        {"density": 2},
        {"last_step": True},
        {"more": 1},
    ],
)
def test_a_result_that_is_none_or_of_another_network(run, changes):
    network = run / "replicate_1/level_01/ticket"
    forge(network / "result.json", **changes)
    for look in (recorded.results, verification.verify, report.analyze, plot.analyze):
        with pytest.raises(RunDirectoryError, match=f"Delete '{network}': the same command makes it again."):
            look(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"prune": {"levels": 10**12}},
        {"prune": {"levels": "x"}},
        {"replicates": 10**12},
        {"train": {"x": 1}},
        {"train": []},
        {"controls": [[1]]},
        {"data": {"memory_gib": float("nan")}},
        {"network": {"name": "mlp_"}},
    ],
)
def test_a_config_that_is_none(run, changes):
    forge(run / "config.json", **changes)
    for look in (recorded_config, report.analyze):
        with pytest.raises(RunDirectoryError, match="Name the workdir of 'tf-lottery run'."):
            look(run)


def test_networks_of_one_run_have_the_same_layers(run):
    network = run / "replicate_1/level_01/ticket"
    (network / "mask.safetensors").write_bytes(readers.tensors_file({"a": np.ones((2, 2), bool)}, ["a"]))
    with pytest.raises(RunDirectoryError, match="is of other layers than the others. Delete"):
        plot.analyze(run, figures=["layers"])
    (network / "mask.safetensors").write_bytes(
        (run / "replicate_1/level_01/reinit/mask.safetensors").read_bytes()
    )
    (network / "end.safetensors").write_bytes(readers.tensors_file({"fc/kernel": np.ones((2, 2))}, None))
    with pytest.raises(RunDirectoryError, match="has no weights 'output/kernel' of shape"):
        plot.analyze(run, figures=["weights"])


@pytest.mark.parametrize(
    "curves",
    [
        {"steps": np.arange(3)},
        {"steps": np.arange(3), "validation/loss": np.full(3, np.nan)},
        {"steps": np.arange(3), "validation/loss": np.ones(2)},
        {"steps": np.arange(3)[::-1], "validation/loss": np.ones(3)},
        {"steps": np.zeros((2**40, 0), int), "validation/loss": np.zeros((2**40, 0))},
        {"validation/loss": np.ones(3)},
    ],
)
def test_curves_that_are_none(run, curves):
    network = run / "replicate_1/level_01/ticket"
    files.write_arrays(network / "curves.npz", curves)
    with pytest.raises(RunDirectoryError, match=f"holds no curves over ascending steps.* Delete '{network}'"):
        plot.analyze(run, figures=["curves"])


def test_trials_stay_in_their_folders_and_are_made_of_hyperparameters(tmp_path):
    for name, content in readers.tuning_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    readers.begun_oracle(tmp_path, "hyperband").reload()
    [path, *_] = (tmp_path / "tuning").glob("trial_*/trial.json")
    whole = path.read_bytes()
    forge(path, trial_id="/../../outside")
    with pytest.raises(RunDirectoryError, match="is of another trial. Choose another workdir."):
        readers.begun_oracle(tmp_path, "hyperband").reload()
    for huge in ({"step": 10**400}, {"max_value": 10**400}):
        path.write_bytes(whole)
        hyperparameters = files.read_json(path)["hyperparameters"]
        hyperparameters["space"][0]["config"] |= huge
        forge(path, hyperparameters=hyperparameters)
        with pytest.raises(RunDirectoryError, match="oracle.json' is not of this oracle."):
            readers.begun_oracle(tmp_path, "hyperband").reload()
    path.write_bytes(whole)
    oracle = tmp_path / "tuning/oracle.json"
    space = {"class_name": "tf_lottery>HoldsMasks", "config": {}}
    forge(oracle, hyperparameters={"space": [space], "values": {}})
    with pytest.raises(RunDirectoryError, match="asks for 'tf_lottery>HoldsMasks', which is no hyperparam"):
        readers.begun_oracle(tmp_path, "hyperband").reload()
    assert [p.name for p in tmp_path.iterdir()] == ["tuning"]


# Names


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b", "", ".", "..", "a\0b", "x" * 101, "a\nb", "\ud800"]
)
def test_no_name_leaves_the_workdir(name, tmp_path, make_model, data):
    def control(found):
        return found.mask, found.rewound, found.step

    control.__name__ = name
    message = "A control has a folder of its name: 1 to 100 printable letters without '/', and no dot first"
    with pytest.raises(ValueError, match=message):
        tf_lottery.find_ticket(
            make_model(), *data, steps=2, levels=1, controls=[control], workdir=tmp_path / "run", verbose=0
        )
    for asked in (
        lambda: controls.resolve([name]),
        lambda: config.validate(ExperimentConfig(controls=(name,))),
        lambda: config.validate(ExperimentConfig(network=NetworkConfig(name=name))),
        lambda: flags._study({name: ExperimentConfig()}),
        lambda: import_data.parse(["images:x", f"--name={name}", "--data_dir=x"]),
        lambda: plot.analyze(tmp_path, figures=[name]),
    ):
        with pytest.raises(ValueError):
            asked()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "mnist/..", "mnist/../../x", "mnist/.x", "a\0b", "."])
def test_no_name_of_a_data_set_leaves_its_folder(name, tmp_path):
    with pytest.raises(ValueError, match="Unknown data set"):
        datasets.load(name, data_dir=str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_no_filesystem_has():
    for folder in ("a\0b", "", "x" * 5000):
        with pytest.raises((FileNotFoundError, ValueError, OSError)):
            datasets.load(f"idx:{folder}/none")


@pytest.mark.parametrize("stem", [".", "...", "\u00e9" * 90, "-", "a b"])
def test_the_workdir_of_a_config_file_lies_in_runs(stem, tmp_path):
    path = tmp_path / f"{stem}.py"
    path.write_text("from tf_lottery.experiments.config import ExperimentConfig as get_config\n")
    _, workdir = flags.parse([f"--config={path}"])
    assert os.path.dirname(workdir) == "runs" and os.path.basename(workdir).strip(".")
    assert len(os.fsencode(workdir)) < 255


# Keras files


def rewritten(source, target, change):
    """Copies a file of Keras's own format, with another config of its model."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                entries = json.loads(content)
                change(entries["config"])
                content = json.dumps(entries).encode()
            new.writestr(name, content)


def test_a_masked_model_does_not_smuggle_a_lambda(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Lambda(lambda x: 2 * x)])
    tf_lottery.apply_mask(model, {path: np.ones(s, bool) for path, s in MaskedModel(model).shapes.items()})
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="(?i)lambda"):
        keras.models.load_model(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras", safe_mode=False)  # which is the user's word


def test_a_masked_model_is_read_by_the_rules_of_its_own_keras(keras, make_model, tmp_path, monkeypatch):
    """tf_keras imports whatever module a file names; Keras 3 does not, and so must not get there."""
    (tmp_path / "named_in_a_file.py").write_text("class Model: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    [other] = [name for name in flavour.FLAVOURS if name != keras.__name__]
    flavour.keras_module(other)
    model = make_model()
    tf_lottery.apply_mask(model, {path: np.ones(s, bool) for path, s in MaskedModel(model).shapes.items()})
    model.save(tmp_path / "model.keras")

    def change(entries):
        named = {"flavour": other, "module": "named_in_a_file", "class_name": "Model"}
        entries["tf_lottery_own_class"] |= {**named, "registered_name": None}

    rewritten(tmp_path / "model.keras", tmp_path / "forged.keras", change)
    with pytest.raises(ValueError, match=f"A masked model of {keras.__name__} cannot be one of '{other}'"):
        keras.models.load_model(tmp_path / "forged.keras")
    assert "named_in_a_file" not in sys.modules
    rewritten(tmp_path / "model.keras", tmp_path / "bare.keras", lambda e: e.pop("tf_lottery_own_class"))
    with pytest.raises(ValueError, match="does not say of which class it is"):
        keras.models.load_model(tmp_path / "bare.keras")


@pytest.mark.parametrize("described", [None, [], {"fc1/kernel": 3}, {"fc1/kernel": None}])
def test_masks_in_a_keras_file_that_are_none(keras, make_model, tmp_path, described):
    model = make_model()
    tf_lottery.apply_mask(model, {path: np.ones(s, bool) for path, s in MaskedModel(model).shapes.items()})
    path = tmp_path / "tf_lottery_masks.safetensors"
    for kind in (bool, np.float32):
        path.write_bytes(readers.tensors_file({"fc1/kernel": np.ones((8, 16), kind)}, described))
        with pytest.raises(
            ValueError, match="tf_lottery_masks.safetensors in the model's file holds no masks"
        ):
            model.load_assets(str(tmp_path))


# What a reader once stumbled over


@pytest.mark.parametrize("length", [101, 1500, 10**5])
def test_a_flag_that_is_too_long_to_be_one(length):
    for word in ("-" + "a" * length, "--" + "a" * length + "=1", "--config." + "a" * length):
        with pytest.raises(flags.UsageError, match="Unknown flag 'a.*\\.\\.\\..*a'|Unknown flag 'conf"):
            flags.parse([word])


def test_a_claim_that_is_none_is_left_alone():
    for name in ("a&b", "holds&x&1&a&b&c", f"holds&1&{2**70}&a&b&c", "holds&1&-1&a&b&c"):
        with pytest.raises(ValueError):
            Claim.read(name)
    folder = paths.path("ram://claims/lock")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes&more").write_bytes(b"")
    assert Lease(folder).holder() is None
    assert (folder / "notes&more").exists()
