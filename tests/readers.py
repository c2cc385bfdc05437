"""All that reads what others wrote, and what it may raise: for tests/test_bad_input.py and tools/fuzz.py.

A reader here is a function of choices and a folder. It makes a file (or words, or names) of the choices,
reads it, and returns whether it was taken. The errors that it is documented to raise it looks at itself;
any other is a finding. The same bytes make the same choices, whoever found them.
"""

import contextlib
import functools
import gzip
import io
import json
import math
import os
import pathlib
import shutil
import struct
import tempfile
import zipfile

import numpy as np
import safetensors.numpy

from tf_lottery import files, names
from tf_lottery.analysis import report
from tf_lottery.experiments import commands, config, experiment, flags, idx, import_data, tuning
from tf_lottery.experiments.analyses import report as run_report
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import controls
from tf_lottery.training import locks, recorded, verification
from tf_lottery.training.leases import Claim
from tf_lottery.training.recorded import RunDirectoryError
from tf_lottery.training.runs import RunDirectory


class Choices:
    """What is chosen by bytes; where these end, the first of everything."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def below(self, count):
        """Returns a number in 0..count-1."""
        size = (max(count - 1, 0).bit_length() + 7) // 8
        return int.from_bytes(self._take(size), "little") % max(count, 1)

    def pick(self, values):
        return values[self.below(len(values))]

    def chance(self, percent):
        """Returns True in so many of 100 cases, and False where there is nothing left to choose by."""
        return 255 - self.below(256) < percent * 2.56 - 1 if self._at < len(self._data) else False

    def rest(self):
        return self._take(len(self._data))

    def _take(self, size):
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


# Values that something in JSON is replaced by.
VALUES = [None, True, False, -1, 0, 1, 3, 2**31, 2**53, 2**63, 10**400, 0.5, 1e308, math.nan, math.inf]
VALUES += ["", "x", "\ud800", "../../x", "a" * 300, [], {}, [[]], [{}], {"a": 1}, [None], {"": []}]
SIZES = [0, 1, 2, 3, 4, 8, 2**31, 2**50, 2**63, 2**64 - 1, 2**64, -1, 1.5, "2", None, [], True]
TYPES = ["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F4", "BF16", "F16", "F32", "F64", "I64", "C64"]
TEXTS = [
    "",
    ".",
    "..",
    "/",
    "/etc/x",
    "../../x",
    "a/../../x",
    "\0",
    "a\0b",
    "a" * 101,
    "a" * 5000,
    "é",
    "\ud800",
]
TEXTS += ["a\nb", " ", "-", "x", "reinit", "reinit_2", "noise:0.5", "noise:1e9", "ticket", "reinit/x", "a.b"]


def damaged(choices, whole):
    """Other bytes, none or many of them those of the whole file."""
    what = choices.below(5)
    if what == 0:
        return choices.rest()
    if what == 1:
        content = bytearray(whole)
        for _ in range(1 + choices.below(4)):
            content[choices.below(len(whole))] ^= 1 << choices.below(8)
        return bytes(content)
    a, b = sorted(choices.below(len(whole)) for _ in range(2))
    if what == 2:
        return choices.pick([whole[:a], whole[a:], whole + whole[a:], whole + b"\0", bytes(a)])
    if what == 3:
        return choices.pick([whole[:a] + whole[b:], whole[:b] + whole[a:]])
    return whole[:a] + choices.rest() + whole[a:]


def edited(choices, value, values=VALUES):
    """A copy of what JSON holds with one part replaced, taken away, added or renamed."""
    if not isinstance(value, dict | list) or not value or choices.chance(10):
        return choices.pick(values)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, copy = choices.pick(keys), dict(value) if isinstance(value, dict) else list(value)
    if choices.chance(10):
        del copy[key]
    elif choices.chance(10) and isinstance(copy, dict):
        copy[choices.pick(["x", "mask/x", "weights/x", "self", "", "tuner/epochs"])] = copy[key]
    else:
        copy[key] = edited(choices, value[key], values)
    return copy


def edits(choices, value, values=VALUES):
    for _ in range(1 + choices.below(3)):
        value = edited(choices, value, values)
    return value


def json_file(entries):
    """A file of these entries with the right checksum, as far as it can be had."""
    if not isinstance(entries, dict):
        return json.dumps(entries).encode()
    return json.dumps({**entries, "sha256": files._sha_of_json(entries)}).encode()


def tensors_file(tensors, described):
    metadata = {"description": described, "sha256": files.sha_of_tensors(tensors, described)}
    return safetensors.numpy.save(tensors, {"tf_lottery": json.dumps(metadata)})


def other_header(choices, whole):
    """A safetensors file with another header: other sizes, types, places."""
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.dumps(edited(choices, json.loads(whole[8:end]), [*SIZES, *TYPES])).encode()
    return struct.pack("<Q", len(header)) + header + whole[end:]


def other_tensors(choices, tensors):
    """The tensors with one of another name, type, shape or content, or gone."""
    name = choices.pick(sorted(tensors))
    array = tensors[name]
    held = dict(tensors)
    if choices.chance(20):
        del held[name]
        return held
    kind = choices.pick(["bool", "int8", "uint64", "float16", "float64", "bfloat16", "complex64", None])
    other = array if kind is None else array.astype(kind)
    other = choices.pick(
        [other, other[..., None], other.ravel()[:0], np.zeros((0, 2**40), other.dtype), other]
    )
    if other.size and other.dtype.kind == "f" and choices.chance(50):
        other = np.full_like(other, choices.pick([math.nan, math.inf, -math.inf, 0]))
    held[choices.pick([name, name, "mask/x", "weights/x", "mask//a_", "weights/\n", "x"])] = np.array(
        other, order="C"
    )
    return held


def forged_tensors(choices, whole, tensors, described):
    what = choices.below(4)
    if what == 0:
        return damaged(choices, whole)
    if what == 1:
        return other_header(choices, whole)
    held = other_tensors(choices, tensors) if choices.chance(50) else tensors
    return tensors_file(held, edits(choices, described) if choices.chance(70) else described)


def forged_json(choices, whole, entries):
    return damaged(choices, whole) if choices.below(3) == 0 else json_file(edits(choices, entries))


def forged_arrays(choices, whole, arrays):
    """A zip file of arrays whose headers promise other things than there are."""
    if choices.below(4) == 0:
        return damaged(choices, whole)
    buffer = io.BytesIO()
    packed = choices.pick([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(buffer, "w", packed) as file:
        for name, array in other_tensors(choices, arrays).items():
            kinds = [
                array.dtype.str,
                array.dtype.str,
                "|O",
                "<f8",
                "|V0",
                "<U0",
                "<f3",
                "|b1",
                "<M8[s]",
                "[('a', '<f8')]",
            ]
            shapes = [
                array.shape,
                array.shape,
                (2**50,),
                (2**40, 0),
                (2**63, 2**63),
                (-1,),
                (10**400,),
                (),
                (1,) * 70,
            ]
            shape = choices.pick(shapes) if choices.chance(15) else array.shape
            kind = choices.pick(kinds) if choices.chance(15) else array.dtype.str
            text = f"{{'descr': {kind!r}, 'fortran_order': {choices.chance(20)}, 'shape': {shape}, }}"
            text = choices.pick([text] * 9 + ["[" * 3000, "(" * 90 + ")" * 90, "{1: 2}", "{[]: 1}"])
            header = (
                b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text) + 1, 65535)) + text.encode() + b"\n"
            )
            file.writestr(f"{name}.npy", header + array.tobytes())
    return buffer.getvalue()


def refused(function, *arguments, errors=ValueError, named=None):
    """Whether it raises one of these errors, which names the file."""
    try:
        function(*arguments)
    except errors as error:
        text = str(error)
        assert named is None or str(named) in text, text
        return True
    return False


# Tickets

RESULT = {"replicate": 1, "level": 0, "arm": "ticket", "density": 1.0, "early_stop_step": 7, "last_step": 9}
MEASURES = (
    "test_accuracy_at_early_stop",
    "min_validation_loss",
    "final_test_accuracy",
    "final_training_accuracy",
)
RESULT |= dict.fromkeys((*MEASURES, "final_validation_accuracy", "test_accuracy_before_training"), 0.5)
RESULT |= {"search_steps": 0, "empty_layers": 0}
KERNEL = np.array([[0.5, -1.5], [0.25, 3]], np.float32)
TICKET = Ticket(
    mask={"fc/kernel": KERNEL > 0, "output/kernel": np.array([[True], [False]])},
    weights={
        "fc/kernel": KERNEL,
        "fc/bias": np.zeros(2, np.float32),
        "output/kernel": np.ones((2, 1), np.float32),
        "output/bias": np.zeros(1, np.float32),
    },
    level=1,
    rewind_step=10,
    method="by hand",
    verdict="It wins.",
    history=(RESULT, {**RESULT, "level": 1, "density": 0.8}, {**RESULT, "level": 1, "arm": "reinit"}),
    provenance={"versions": {"numpy": "2.4"}, "key": [0, 1]},
)


@functools.cache
def ticket_parts():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "the.ticket")
        TICKET.save(path)
        return path.read_bytes(), *files.read_tensors(path)


def loaded_ticket(choices, folder):
    path = folder / "the.ticket"
    path.write_bytes(forged_tensors(choices, *ticket_parts()))
    try:
        return Ticket.load(path)
    except ValueError as error:
        assert str(path) in str(error)
        return None


def ticket(choices, folder):
    loaded = loaded_ticket(choices, folder)
    if loaded is None:
        return False
    assert type(loaded.level) is type(loaded.rewind_step) is int and loaded.level >= 0
    assert isinstance(loaded.provenance, dict) and isinstance(loaded.verdict, str)
    assert all(isinstance(row, dict) for row in loaded.history) and 0 <= loaded.density <= 1
    loaded.summary()
    return True


@functools.cache
def small_models():
    from tf_lottery.keras_api import flavour

    models = []
    for name in flavour.FLAVOURS:
        keras = flavour.keras_module(name)
        layers = keras.layers
        model = keras.Sequential(
            [layers.Input((2,)), layers.Dense(2, name="fc"), layers.Dense(1, name="output")]
        )
        TICKET.apply(model)
        models.append(model)
    return models


def ticket_applied(choices, folder):
    model = choices.pick(small_models())
    loaded = loaded_ticket(choices, folder)
    return loaded is not None and not refused(lambda: loaded.apply(model, mask_only=choices.chance(30)))


def keras_masks(choices, folder):
    """The masks in a file of Keras's own format."""
    model = choices.pick(small_models())
    model.save_assets(str(folder))
    path = folder / "tf_lottery_masks.safetensors"
    path.write_bytes(forged_tensors(choices, path.read_bytes(), *files.read_tensors(path)))
    return not refused(model.load_assets, str(folder))


# Files


def tensors(choices, folder):
    path = folder / "some.safetensors"
    path.write_bytes(forged_tensors(choices, *ticket_parts()))
    return not refused(files.read_tensors, path, named=path)


def json_entries(choices, folder):
    path = folder / "some.json"
    path.write_bytes(forged_json(choices, json_file(RESULT), RESULT))
    return not refused(files.read_json, path, named=path)


CURVES = {
    "steps": np.arange(3),
    "classes_predicted": np.array(3),
    "validation/loss": np.array([1, 0.5, 0.75]),
    "test/accuracy": np.zeros(3),
}


@functools.cache
def curves_file():
    buffer = io.BytesIO()
    np.savez(buffer, **CURVES)
    return buffer.getvalue()


def arrays(choices, folder):
    path = folder / "some.npz"
    path.write_bytes(forged_arrays(choices, curves_file(), CURVES))
    return not refused(files.read_arrays, path, named=path)


def idx_file(choices, folder):
    path, values = folder / "images", bytes(range(24))
    header = [0, 8, 3, 2, 3, 4]
    for _ in range(choices.below(4)):
        at = choices.below(6)
        most = [2**16, 2**8, 2**8, 2**32, 2**32, 2**32][at]
        header[at] = choices.pick([header[at]] * 4 + [0, 1, 2, 3, 8, most - 1, most // 2]) % most
    content = (
        struct.pack(">HBB3I", *header)[: 12 if choices.chance(10) else 16]
        + values[max(choices.below(8), 5) - 5 :]
    )
    content = choices.pick([content] * 5 + [damaged(choices, content), content + bytes(1 << 16)])
    if choices.chance(50):
        content = gzip.compress(content, 1, mtime=0)
        content = damaged(choices, content) if choices.chance(30) else content
    path.write_bytes(content)
    return not refused(idx.read, path, 1 if choices.chance(10) else 3, named=path)


# Run directories

NETWORKS = [(0, "ticket"), (1, "ticket"), (1, "reinit")]
FAILURE = {
    "level": 2,
    "arm": "ticket",
    "step": 7,
    "reason": "The loss is nan",
    "last_good": 5,
    "replicate": 1,
}


def write_run(folder):
    """A run of two levels and a control, and of a third that was given up, small and by hand."""
    mask = {path: np.array(array) for path, array in TICKET.mask.items()}
    for level, arm in NETWORKS:
        network = folder / f"replicate_1/level_{level:02d}/{arm}"
        kept = mask if level else {path: array | True for path, array in mask.items()}
        network.mkdir(parents=True)
        (network / "mask.safetensors").write_bytes(tensors_file(kept, list(kept)))
        for name in ("start", "end"):
            (network / f"{name}.safetensors").write_bytes(tensors_file(TICKET.weights, None))
        (network / "curves.npz").write_bytes(curves_file())
        density = 0.5 if level else 1.0
        result = {**RESULT, "level": level, "arm": arm, "density": density}
        (network / "result.json").write_bytes(json_file(result))
    given_up = folder / "replicate_1/level_02/ticket"
    given_up.mkdir(parents=True)
    (given_up / "failure.json").write_bytes(json_file(FAILURE))
    entries = json.loads(json.dumps(config.entries_of(ExperimentConfig())))
    (folder / "config.json").write_bytes(json_file(entries))
    (folder / "environment.json").write_bytes(json_file({"python": "3.11"}))
    (folder / "results.csv").write_text(recorded.table(recorded.results(folder)))


@contextlib.contextmanager
def forged_run(choices, folder):
    """A run directory of which one file is forged; it is written once."""
    run = folder / "run"
    if not run.exists():
        write_run(run)
    network = run / choices.pick([f"replicate_1/level_{level:02d}/{arm}" for level, arm in NETWORKS])
    chosen = ["mask.safetensors", "end.safetensors", "start.safetensors", "curves.npz", "result.json"]
    others = [network / "result.json", run / "config.json", run / "replicate_1/level_02/ticket/failure.json"]
    path = choices.pick([*(network / name for name in chosen), *others])
    whole = path.read_bytes()
    if path.suffix == ".json":
        content = json.loads(whole)
        del content["sha256"]
        forged = forged_json(choices, whole, content)
    elif path.suffix == ".npz":
        forged = forged_arrays(choices, whole, CURVES)
    else:
        forged = forged_tensors(choices, whole, *files.read_tensors(path))
    path.write_bytes(forged)
    try:
        yield run
    finally:
        path.write_bytes(whole)


def run_directory(choices, folder):
    with forged_run(choices, folder) as run:
        looks = [
            lambda: [look() for n in recorded.networks(run) for look in (n.mask, n.start, n.end, n.history)],
            lambda: report.text(recorded.results(run), recorded.failures(run)),
            lambda: run_report._progress(run, recorded.results(run)),
            lambda: experiment.recorded_config(run),
            lambda: RunDirectory(
                run, config.entries_of(ExperimentConfig()), extendable=config.EXTENDABLE
            ).check(),
            lambda: verification.verify(run),
        ]
        return not any([refused(look, errors=RunDirectoryError) for look in looks])


def figures(choices, folder):
    """All that is drawn of a forged run and of a forged ticket."""
    from tf_lottery.experiments.analyses import plot

    if choices.chance(50):
        loaded = loaded_ticket(choices, folder)
        if loaded is not None:
            loaded.plot()
        return loaded is not None
    with forged_run(choices, folder) as run:
        looks = [plot.analyze, run_report.analyze]
        return not any([refused(look, run, errors=RunDirectoryError) for look in looks])


# Tunings

SETTINGS = {"objective": "density", "trials": 3, "space": {"rate": {"kind": "Float", "min_value": 0.1}}}


def begun_oracle(folder, kind, trials=8):
    """An oracle over a number and a choice, as a process that begins has it."""
    import keras_tuner

    from tf_lottery.search import oracles

    oracle = oracles.make(kind, keras_tuner.Objective("density", "min"), trials, seed=0)
    oracle.verbose = 0
    oracle._set_project_dir(str(folder), "tuning")
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 1e-4, 1e-1, sampling="log")
    hp.Choice("scope", ["layer", "global"])
    oracle.update_space(hp)
    return oracle


@functools.cache
def tuning_files():
    """Name -> bytes of the files of a tuning with two trials that ended and one that has begun."""
    from tf_lottery.search.tuning_directory import TuningDirectory

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        with TuningDirectory(path / "tuning").open(SETTINGS):
            oracle = begun_oracle(path, "hyperband")
            for ends in (True, True, False):
                trial = oracle.create_trial("tuner0")
                if ends:
                    oracle.update_trial(trial.trial_id, {"density": 0.5})
                    trial.status = "COMPLETED"
                    oracle.end_trial(trial)
            oracle.save()
        found = sorted((path / "tuning").rglob("*.json"))
        return {str(p.relative_to(path)): p.read_bytes() for p in found if not p.name.startswith(".")}


def tuning_directory(choices, folder):
    from tf_lottery.search.tuning_directory import TuningDirectory

    workdir = folder / "tuning"
    for name, content in tuning_files().items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    name = choices.pick(sorted(tuning_files()))
    entries = json.loads(tuning_files()[name])
    del entries["sha256"]
    (folder / name).write_bytes(forged_json(choices, tuning_files()[name], entries))
    try:
        looks = [
            lambda: TuningDirectory(workdir).check(SETTINGS),
            lambda: begun_oracle(folder, "hyperband").reload(),
            lambda: verification._complaint(workdir, folder / name),
        ]
        taken = not any([refused(look, errors=RunDirectoryError) for look in looks])
    finally:
        (folder / name).write_bytes(tuning_files()[name])
    left = {path.name for path in folder.iterdir()} - {"tuning"}
    assert not left, left
    return taken


# Words and names

STARTS = [
    "--config.",
    "--",
    "-",
    "",
    "--workdir=",
    "--config=",
    "--jobs=",
    "--tpu=",
    "--levels=",
    "--figures=",
]
ENDS = [
    "",
    "=",
    "=1",
    "=-1",
    "=0.5",
    "=x",
    "=nan",
    "=inf",
    "=1e400",
    "=(1,2)",
    "=[[",
    "=(",
    "='",
    "=1,2",
    "=None",
]
ENDS += [
    "=True",
    "=__import__('os').abort()",
    "=1" + "0" * 5000,
    "=" + "(" * 300,
    "=reinit,shuffle",
    "=../../x",
]
FLAGS = [
    "levels",
    "points",
    "arms",
    "verify",
    "figures",
    "oracle",
    "trials",
    "target_density",
    "name",
    "data_dir",
]


def text(choices):
    if choices.chance(50):
        return choices.pick(TEXTS)
    return choices._take(choices.below(12)).decode("utf8", "surrogateescape")


def word(choices):
    known = [*config.fields(), *FLAGS]
    start = choices.pick(STARTS)
    middle = choices.pick(known) if choices.chance(70) and not start.endswith("=") else text(choices)
    return start + middle + (choices.pick(ENDS) if choices.chance(80) else "=" + text(choices))


def words(choices, folder):
    given = [word(choices) for _ in range(choices.below(4))]
    # What a user names is read and run, by design: not what chance names.
    given = [w for w in given if not os.path.exists(w.partition("=")[2].strip()) and "flagfile" not in w]
    what = choices.below(5)
    if what == 0:
        return not refused(
            commands.parse, choices.pick(list(commands.COMMANDS)), given, errors=commands.UsageError
        )
    if what == 1:
        return not refused(import_data.parse, given, errors=import_data.UsageError)
    if what == 2:
        return not refused(tuning.parse, given)  # of an unknown name, which there are, in a ValueError
    if what == 3:
        return not refused(flags.take_machines, given, errors=flags.UsageError)
    try:
        study, workdir = flags.parse(given)
    except flags.UsageError:
        return False
    for one in study.values():
        for arm in one.controls:
            assert_inside(folder, arm)
    if not any("workdir" in w for w in given):
        assert os.path.dirname(workdir) == "runs" and 0 < len(os.fsencode(workdir)) <= 255
    return True


def assert_inside(folder, name):
    """A folder of that name can be made, and lies where it is made."""
    path = folder / "names" / name
    path.mkdir(parents=True)
    assert [p.name for p in (folder / "names").iterdir()] == [name]
    shutil.rmtree(folder / "names")


def folder_names(choices, folder):
    """All names that become names of folders and files."""
    name = text(choices)

    def function():
        pass

    function.__name__ = name
    asked = [
        lambda: names.name_of(function, "control"),
        lambda: list(controls.resolve([function]))[0],
        lambda: list(controls.resolve([name]))[0],
        lambda: list(flags._study({name: ExperimentConfig()}))[0],
        lambda: import_data.parse(["images:x", f"--name={name}", "--data_dir=x"])[1],
        lambda: names.of_folder(f"trial_{name}", "trial"),
    ]
    for ask in asked:
        try:
            found = ask()
        except ValueError:
            continue
        assert_inside(folder, found)
        taken = True
    return "taken" in locals()


def lock_notes(choices, folder):
    """What processes say of themselves, in a file or as the name of one."""
    note = folder / "lock.json"
    note.write_bytes(forged_json(choices, b'{"pid": 1, "host": "a"}', {"pid": 1, "host": "a"}))
    assert isinstance(locks._holder(note), str)
    claim = Claim.here("holds", "x").name()
    name = damaged(choices, claim.encode()).decode("utf8", "surrogateescape")
    try:
        read = Claim.read(name)
    except ValueError:
        return False
    read.is_alive()
    str(read)
    return True


# Name -> reader, and how many cases of it the test suite has unless it is told.
READERS = {
    "ticket": (ticket, 1000),
    "tensors": (tensors, 500),
    "json": (json_entries, 500),
    "arrays": (arrays, 1000),
    "idx": (idx_file, 1000),
    "run": (run_directory, 150),
    "tuning": (tuning_directory, 200),
    "words": (words, 500),
    "names": (folder_names, 500),
    "locks": (lock_notes, 300),
    "keras_masks": (keras_masks, 200),
    "ticket_applied": (ticket_applied, 300),
    "figures": (figures, 30),
}
