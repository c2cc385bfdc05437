"""Tickets on disk and on models: what is saved comes back, and what is no ticket is refused."""

import dataclasses
import json
import math
import os
import pathlib
import re
import struct
import subprocess
import sys

import matplotlib.pyplot
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tf_lottery import files
from tf_lottery.keras_api import flavour
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import masks
from tf_lottery.training.history import Result

ROOT = pathlib.Path(__file__).parent.parent
# A script makes this ticket in other processes too.
MAKE = """
import math
import numpy as np
from tf_lottery.search.ticket import Ticket
def make():
    rng = np.random.default_rng(0)
    weights = {f"fc{i}/kernel": rng.normal(size=(i, 4)).astype(np.float32) for i in range(1, 7)}
    mask = {path: rng.random(array.shape) < 0.5 for path, array in weights.items()}
    weights |= {
        "fc1/bias": np.zeros(4, np.float32),
        "scale": np.array(-0.5, np.float32),
        "count": np.array(3, np.int64),
        "flag": np.array(True),
        "double": rng.normal(size=(2, 3, 1)),
        "dropout/seed_generator_state": np.array([1, 2**32 - 1], np.uint32),
        "empty": np.zeros((0, 3), np.float32),
        "columns": np.asfortranarray(rng.normal(size=(3, 2))),
        "swapped": np.arange(3, dtype=">f4"),
    }
    history = (
        {"level": 0, "arm": "ticket", "accuracy": math.nan, "density": 1.0},
        {"level": 1, "arm": "reinit", "accuracy": 0.1 + 0.2, "density": 0.8},
    )
    provenance = {"versions": {"numpy": "2.4"}, "key": [0, 1], "nothing": None}
    return Ticket(mask, weights, 2, 500, "iterative", "It wins: \\u00e9.", history, provenance)
"""
namespace = {}
exec(MAKE, namespace)
make = namespace["make"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "the.ticket"


def raw(header, data=b""):
    """A safetensors file, byte by byte."""
    header = json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def described(**changes):
    description = {"format": "tf_lottery.ticket.1", "level": 0, "history": [], **changes}
    written = {"description": description, "sha256": files.sha_of_tensors({}, description)}
    return {"__metadata__": {"tf_lottery": json.dumps(written)}}


def assert_same(loaded, ticket):
    for loaded_arrays, arrays in ((loaded.mask, ticket.mask), (loaded.weights, ticket.weights)):
        assert loaded_arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            array = np.asarray(array)
            assert loaded_arrays[name].dtype == array.dtype.newbyteorder("="), name
            assert loaded_arrays[name].shape == array.shape, name
            np.testing.assert_array_equal(loaded_arrays[name], array, err_msg=name)
    for field in ("level", "rewind_step", "method", "verdict", "density"):
        assert getattr(loaded, field) == getattr(ticket, field)
        assert type(getattr(loaded, field)) is type(getattr(ticket, field))
    assert isinstance(loaded.history, tuple)
    assert repr(loaded.history) == repr(ticket.history)  # Where NaN is equal to NaN.
    assert loaded.provenance == ticket.provenance


def test_what_is_saved_comes_back(path):
    make().save(path)
    assert_same(Ticket.load(path), make())
    assert math.isnan(Ticket.load(str(path)).history[0]["accuracy"])


def test_the_least_of_tickets_comes_back(path):
    ticket = Ticket({"a": np.array(True)}, {"a": np.array(1.5)}, level=0)
    ticket.save(path)
    loaded = Ticket.load(path)
    assert_same(loaded, ticket)
    assert (loaded.rewind_step, loaded.method, loaded.verdict, loaded.history) == (0, "", "", ())
    assert loaded.provenance == {}
    assert loaded.mask["a"].shape == loaded.weights["a"].shape == ()


def test_saving_makes_folders_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "the.ticket"
    Ticket({"a": np.ones(1, bool)}, {"a": np.ones(1)}, level=0).save(path)
    make().save(path)
    assert_same(Ticket.load(path), make())
    assert list(path.parent.iterdir()) == [path]


def test_equal_tickets_make_equal_files_in_every_process(tmp_path):
    paths = [tmp_path / name for name in ("1", "4711")]
    for path in paths:
        subprocess.run(
            [sys.executable, "-c", f"{MAKE}\nmake().save({str(path)!r})"],
            env={**os.environ, "PYTHONHASHSEED": path.name},
            cwd=ROOT,
            check=True,
        )
    contents = [path.read_bytes() for path in paths]
    assert len(contents[0]) > 1000
    assert contents[0] == contents[1]


def test_the_order_of_the_network_comes_back(path):
    ticket = make()
    mask = dict(reversed(ticket.mask.items()))
    Ticket(mask, {**mask, **dict(reversed(ticket.weights.items()))}, 1).save(path)
    loaded = Ticket.load(path)
    assert list(loaded.mask) == list(mask)
    assert list(loaded.weights) == [*mask, *(p for p in reversed(ticket.weights) if p not in mask)]


def test_other_tickets_make_other_files(tmp_path):
    ticket = make()
    ticket.save(tmp_path / "a")
    ticket.weights["fc1/bias"][0] = 1e-9
    ticket.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_file_of_format_1_is_read_as_long_as_there_are_any(path):
    header = {
        "__metadata__": {
            "tf_lottery": '{"description": {"format": "tf_lottery.ticket.1", "level": 3, "rewind_step": 100, '
            '"method": "by hand", "verdict": "fine", "history": [{"level": 0, "density": 1.0}]}, "sha256": '
            '"c6fe2ba338d5c6354dc46cbd81bd8501c25f301bddf71e22bf9d71dddbb26303"}'
        },
        "weights/fc/bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "weights/fc/kernel": {"dtype": "F32", "shape": [1, 2], "data_offsets": [8, 16]},
        "mask/fc/kernel": {"dtype": "BOOL", "shape": [1, 2], "data_offsets": [16, 18]},
    }
    path.write_bytes(raw(header, struct.pack("<ffff??", 0.25, 0, 0.5, -1.5, True, False)))
    expected = Ticket(
        mask={"fc/kernel": np.array([[True, False]])},
        weights={
            "fc/kernel": np.array([[0.5, -1.5]], np.float32),
            "fc/bias": np.array([0.25, 0], np.float32),
        },
        level=3,
        rewind_step=100,
        method="by hand",
        verdict="fine",
        history=({"level": 0, "density": 1.0},),
    )
    assert_same(Ticket.load(path), expected)


def test_others_can_open_a_ticket(path):
    make().save(path)
    tensors = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(tensors["mask/fc3/kernel"], make().mask["fc3/kernel"])
    np.testing.assert_array_equal(tensors["weights/fc3/kernel"], make().weights["fc3/kernel"])


@pytest.mark.parametrize("name", ["nothing", "folder", "folder/nothing"])
def test_a_missing_file_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=f"There is no file '{re.escape(str(tmp_path / name))}'"):
        Ticket.load(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"123",
        b"PK\x03\x04" + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        b"loss,accuracy\n0.5,0.9\n",
        raw({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        raw({"__metadata__": {"tf_lottery": "{"}}),
        raw({"__metadata__": {"pytorch": "{}"}}),
        safetensors.numpy.save({"a": np.ones(3, np.float32)}),
    ],
)
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"Cannot read '{re.escape(str(path))}': "):
        Ticket.load(path)


@pytest.mark.parametrize("description", [[], "text", None, 3, {}, {"format": "tf_lottery.state.1"}])
def test_another_file_of_ours_is_no_ticket(path, description):
    files.write_tensors(path, {"a": np.ones(3)}, description)
    expected = f"Cannot load a ticket from '{re.escape(str(path))}': its format is not 'tf_lottery.ticket.1'"
    with pytest.raises(ValueError, match=expected):
        Ticket.load(path)


def test_a_ticket_of_a_later_format_is_refused(path):
    path.write_bytes(raw(described(format="tf_lottery.ticket.2")))
    with pytest.raises(ValueError, match="its format is not 'tf_lottery.ticket.1'"):
        Ticket.load(path)


def test_a_file_with_another_checksum_is_damaged(path):
    tensor = {"mask/a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}
    path.write_bytes(raw({**described(), **tensor}, b"\1"))
    with pytest.raises(
        ValueError, match="it is damaged, or somebody changed it: its checksum is not that of"
    ):
        Ticket.load(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", {"a": np.ones(3)}, r"needs weights of shape \(2,\) for its mask of 'a'"),
        ("weights", {"b": np.ones(2)}, r"needs weights of shape \(2,\) for its mask of 'a'"),
        ("mask", {}, "A mask needs at least one weight"),
        ("mask", {"a": np.ones(2)}, "a mask holds bools"),
        (
            "history",
            None,
            r"The history of a ticket is a tuple of dicts, .* Received: None, of type NoneType",
        ),
        ("level", True, "The level of a ticket is an int of 0 or more. Received: True, of type bool"),
        ("level", -1, "an int of 0 or more. Received: -1"),
        ("rewind_step", 2.0, "The rewind_step of a ticket is an int of 0 or more. Received: 2.0"),
        ("method", None, "The method of a ticket is a string"),
        ("verdict", ["It wins."], "The verdict of a ticket is a string"),
        ("history", {}, "The history of a ticket"),
        ("history", "text", "The history of a ticket"),
        ("history", [[]], "The history of a ticket"),
        ("provenance", [], r"The provenance of a ticket is a mapping. Received: \[\], of type list"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_no_ticket(path, field, value, message):
    ticket = Ticket({"a": np.ones(2, bool)}, {"a": np.ones(2)}, level=1)
    object.__setattr__(ticket, field, value)  # Past the check of the constructor.
    ticket.save(path)
    with pytest.raises(ValueError, match=f"from '{re.escape(str(path))}': .*{message}"):
        Ticket.load(path)


def test_a_ticket_whose_mask_does_not_fit_its_weights_is_refused():
    with pytest.raises(ValueError, match=r"needs weights of shape \(2, 3\) for its mask of 'fc/kernel'"):
        Ticket({"fc/kernel": np.ones((2, 3), bool)}, {"fc/kernel": np.ones((3, 2))}, level=0)
    with pytest.raises(ValueError, match="for its mask of 'fc/kernel'"):
        Ticket({"fc/kernel": np.ones((2, 3), bool)}, {"fc/bias": np.ones(3)}, level=0)
    with pytest.raises(TypeError, match="The mask of 'a' holds int64"):
        Ticket({"a": np.ones(2, np.int64)}, {"a": np.ones(2)}, level=0)


@pytest.mark.parametrize(
    "fields",
    [{"level": np.int64(1)}, {"level": 0, "history": None}, {"level": 0, "provenance": "me"}],
)
def test_a_field_of_another_type_is_refused_at_once(fields):
    name = list(fields)[-1]
    with pytest.raises(ValueError, match=f"The {name} of a ticket is an? .* Received: .*, of type "):
        Ticket({"a": np.ones(2, bool)}, {"a": np.ones(2)}, **fields)


@pytest.mark.parametrize("value", [np.float32(1), np.ones(2), {1, 2}, object()])
def test_what_json_cannot_hold_is_not_saved(path, value):
    for field in ({"history": ({"a": value},)}, {"provenance": {"a": value}}):
        ticket = Ticket({"a": np.ones(2, bool)}, {"a": np.ones(2)}, level=0, **field)
        with pytest.raises(ValueError, match="history and provenance hold what JSON can: .*not JSON serial"):
            ticket.save(path)
    assert not path.exists()


def test_what_json_changes_is_saved_as_it_is_read_again(path):
    provenance = {10: (1, 2), 9: {"a": None}}
    Ticket({"a": np.ones(2, bool)}, {"a": np.ones(2)}, level=0, provenance=provenance).save(path)
    assert Ticket.load(path).provenance == {"10": [1, 2], "9": {"a": None}}


def test_a_bfloat16_ticket_comes_back_in_another_process(path):
    kernel = np.array([[1.5, -0.25]], ml_dtypes.bfloat16)
    Ticket({"a": kernel > 0}, {"a": kernel}, level=0).save(path)
    script = (
        "from tf_lottery.search.ticket import Ticket\n"
        f"a = Ticket.load({str(path)!r}).weights['a']\nprint(a.dtype, a.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "bfloat16 [[1.5, -0.25]]"


def test_a_truncated_file_is_refused(path):
    make().save(path)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="Cannot read"):
            Ticket.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="Cannot read"):
        Ticket.load(path)


@pytest.mark.parametrize("where", ["anywhere", "header", "tensors"])
def test_a_byte_that_changed_is_noticed(path, where, count_refused):
    ticket = make()
    ticket.save(path)
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    low, high = {"anywhere": (0, len(whole)), "header": (8, header), "tensors": (header, len(whole))}[where]
    rng = np.random.default_rng(0)

    def changed():
        content = bytearray(whole)
        for place in rng.integers(low, high, rng.integers(1, 4)):
            content[place] ^= int(rng.integers(1, 256))
        return content

    contents = (changed() for _ in range(200))
    refused = count_refused(path, contents, lambda loaded: assert_same(loaded, ticket))
    assert refused >= 190  # The rest hit the spaces that fill up the header.


def searched(accuracies, **fields):
    """A ticket of three layers whose search trained a network and its control for each accuracy."""
    weights = {
        "fc1/kernel": np.eye(40, 30),
        "fc2/kernel": np.ones((30, 1)),
        "conv/kernel": np.zeros((3, 3, 1, 2)),
    }
    results = [
        Result(1, level, arm, 0.8**level, 700 - level, accuracy, 0.1 + level, accuracy, accuracy, 1000)
        for level, accuracy in enumerate(accuracies)
        for arm in ("ticket", "reinit")
    ]
    history = tuple({**vars(result), "metrics": {"validation/mae": 0.5}} for result in results)
    return Ticket({path: array > 0 for path, array in weights.items()}, weights, 1, history=history, **fields)


def test_the_summary_of_a_ticket_with_a_search():
    ticket = searched([0.967, 0.972], rewind_step=500, method="magic", verdict="It wins.")
    assert (
        ticket.summary()
        == """\
Ticket of level 1: keeps 60 of 1,248 prunable weights (4.81 %), rewound to step 500.
Found by magic.

layer          shape  kept     of  density %
fc1/kernel     40x30    30  1,200       2.50
fc2/kernel      30x1    30     30     100.00
conv/kernel  3x3x1x2     0     18       0.00
total                   60  1,248       4.81

                          ticket                  reinit
level  density %  early stop  test acc %  early stop  test acc %
    0     100.00         700       96.70         700       96.70
    1      80.00         699       97.20         699       97.20

It wins."""
    )


def test_a_summary_without_accuracies_shows_losses():
    assert searched([math.nan, math.nan]).summary().splitlines()[9:11] == [
        "level  density %  early stop  min val loss  early stop  min val loss",
        "    0     100.00         700           0.1         700           0.1",
    ]


ODD = [
    {},
    {"level": 0},
    dict.fromkeys(vars(Result(1, 0, "ticket", 1.0, 7, 0.9, 0.1, 0.9, 0.9, 10))),
    {**searched([0.9]).history[0], "level": "1"},
    {**searched([0.9]).history[0], "arm": None},
    {**searched([0.9]).history[0], "density": [1.0]},
]


@pytest.mark.parametrize("row", ODD)
def test_rows_that_are_no_results_are_not_shown(row):
    bare = Ticket({"a": np.ones(2, bool)}, {"a": np.ones(2)}, 3)
    odd = dataclasses.replace(bare, history=(row,))
    assert odd.summary() == bare.summary()
    assert bare.summary().splitlines() == [
        "Ticket of level 3: keeps 2 of 2 prunable weights (100.00 %), rewound to step 0 (initialization).",
        "",
        "layer  shape  kept  of  density %",
        "a          2     2   2     100.00",
        "total            2   2     100.00",
    ]
    assert len(odd.plot().axes) == 2  # layers, weights
    mixed = searched([0.9, 0.95])
    mixed = dataclasses.replace(mixed, history=(row, *mixed.history))
    assert mixed.summary() == searched([0.9, 0.95]).summary()


@pytest.mark.parametrize("accuracies", [[], [0.9], [0.967, 0.972], [math.nan, math.nan]])
def test_the_figure_shows_the_layers_and_the_search(path, accuracies):
    before = dict(matplotlib.rcParams)
    figure = searched(accuracies).plot()
    search, (layers, *rest) = figure.axes[: 2 * bool(accuracies)], figure.axes[2 * bool(accuracies) :]
    assert [axes.get_title() for axes in rest] == ["fc1/kernel", "fc2/kernel", "conv/kernel"] * 2
    assert [axes.get_title() for axes in search[:1]] == ["Early stop"] * bool(accuracies)
    assert len(search) == (2 if accuracies else 0)
    assert [bar.get_width() for bar in layers.patches] == [2.5, 100, 0]
    assert [label.get_text() for label in layers.get_yticklabels()] == [
        "fc1/kernel",
        "fc2/kernel",
        "conv/kernel",
    ]
    assert layers.get_ylim()[0] > layers.get_ylim()[1]  # the first layer is on top
    assert [text.get_text() for text in layers.get_legend().get_texts()] == ["all layers: 4.81 %"]
    for axes in search:
        (band,) = [line for line in axes.get_lines() if line.get_label() == "this ticket"]
        np.testing.assert_allclose(band.get_xdata(), 100 * 60 / 1248)
    figure.savefig(path, format="png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_many_layers_fit_into_a_figure():
    kernels = {f"backbone/stage_{i}/block_{i}/conv/kernel": np.ones((3, 3)) for i in range(200)}
    figure = Ticket({path: array > 0 for path, array in kernels.items()}, kernels, 0).plot()
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 200 and figure.get_size_inches()[1] < 15
    assert all(above.y0 > below.y0 and above.y0 > below.y1 - 1 for above, below in zip(labels, labels[1:]))
    assert min(label.x0 for label in labels) >= 0


def network(keras, trainable=True):
    initializer = keras.initializers.GlorotNormal(seed=3)
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_initializer=initializer, name="fc1"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Dropout(0.1, name="dropout"),
            keras.layers.Dense(6, "relu", name="fc2", trainable=trainable),
            keras.layers.Dense(3, name="output"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def ticket_of(model, seed=0):
    """A ticket for `model` with a random mask and random weights, none of them zero."""
    masked = MaskedModel(model)
    rng = np.random.default_rng(seed)
    weights = {
        path: rng.uniform(0.1, 1, array.shape).astype(np.float32) if array.dtype == np.float32 else array
        for path, array in network_weights(masked.state()).items()
    }
    return Ticket({path: rng.random(shape) < 0.4 for path, shape in masked.shapes.items()}, weights, level=1)


def assert_applied(ticket, model):
    masked = MaskedModel(model)
    mask, state = masked.mask(), masked.state()
    assert mask.keys() == ticket.mask.keys()
    for path, array in ticket.mask.items():
        np.testing.assert_array_equal(mask[path], array)
        assert mask[path].dtype == bool
    expected = masks.apply(ticket.mask, ticket.weights)
    compared = [path for path in expected if not path.endswith("seed_generator_state")]
    assert len(compared) == 10
    for path in compared:
        np.testing.assert_array_equal(state[path], expected[path], err_msg=path)


def test_apply_sets_mask_and_weights_exactly_and_they_hold(keras, data):
    ticket = ticket_of(network(keras))
    model = network(keras)
    assert ticket.apply(model) is model
    assert_applied(ticket, model)
    model.fit(*data, epochs=1, verbose=0)
    trained = MaskedModel(model).kernels()
    for path, array in ticket.mask.items():
        assert (trained[path][~array] == 0).all()
        assert (trained[path][array] != ticket.weights[path][array]).any()


def test_apply_takes_the_place_of_an_earlier_ticket(keras):
    model = network(keras)
    first, second = ticket_of(model, seed=1), ticket_of(model, seed=2)
    first.apply(model)
    second.apply(model)
    assert_applied(second, model)


def test_a_ticket_fits_the_same_network_in_the_other_keras(keras, path):
    other = flavour.keras_module(next(name for name in flavour.FLAVOURS if name != keras.__name__))
    model = network(keras)
    ticket = ticket_of(model)
    ticket.apply(model)
    ticket.save(path)
    twin = Ticket.load(path).apply(network(other))
    assert isinstance(twin, other.Model)
    assert_applied(ticket, twin)
    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    np.testing.assert_allclose(twin.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


def test_a_ticket_that_does_not_fit_names_every_layer_that_differs(make_model):
    ticket = ticket_of(make_model(widths=(16, 8), batch_norm=True))
    model = make_model(widths=(12, 8, 4))
    before = model.get_weights()
    with pytest.raises(ValueError, match="These arrays do not fit the model") as error:
        ticket.apply(model)
    lines = str(error.value).splitlines()[1:]
    assert sorted(lines) == sorted(
        [
            "  fc1/kernel: shape (8, 16), the model has shape (8, 12)",
            "  fc1/bias: shape (16,), the model has shape (12,)",
            "  fc2/kernel: shape (16, 8), the model has shape (12, 8)",
            "  fc3/kernel: nothing, the model has shape (8, 4)",
            "  fc3/bias: nothing, the model has shape (4,)",
            "  output/kernel: shape (8, 3), the model has shape (4, 3)",
            *(
                f"  bn{i}/{name}: shape ({width},), the model has nothing"
                for i, width in ((1, 16), (2, 8))
                for name in ("gamma", "beta", "moving_mean", "moving_variance")
            ),
        ]
    )
    for array, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(array, other)


def test_a_mask_that_does_not_fit_leaves_the_weights_alone(keras):
    ticket = ticket_of(network(keras))
    model = network(keras, trainable=False)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"\n  fc2/kernel: shape \(16, 6\), the model has nothing$"):
        ticket.apply(model)
    for array, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(array, other)


def test_an_unbuilt_model_is_refused(keras):
    model = keras.Sequential([keras.layers.Dense(3, name="a")], name="net")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="The model 'net' has no weights yet. Build it first"):
        make().apply(model)


@pytest.mark.parametrize(
    ("thing", "name"), [(None, "builtins.NoneType"), (make().weights, "builtins.dict"), (Ticket, "type")]
)
def test_what_is_no_model_is_refused(thing, name):
    with pytest.raises(TypeError, match=rf"Expected a keras.Model .* Received: .*{name}"):
        make().apply(thing)
