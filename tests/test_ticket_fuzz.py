"""Files that somebody damaged or forged: `Ticket.load` gives a ticket or a ValueError, and nothing else."""

import json
import math
import struct

import numpy as np
import pytest
import safetensors.numpy

from tf_lottery import files
from tf_lottery.search import ticket as module
from tf_lottery.search.ticket import Ticket

RESULT = {"replicate": 1, "level": 0, "arm": "ticket", "density": 1.0, "early_stop_step": 7, "last_step": 9}
MEASURES = ("test_accuracy_at_early_stop", "min_validation_loss", "final_test_accuracy")
RESULT |= dict.fromkeys((*MEASURES, "final_validation_accuracy"), 0.5)
KERNEL = np.array([[0.5, -1.5], [0.25, 3]], np.float32)
TICKET = Ticket(
    mask={"a/kernel": KERNEL > 0, "b": np.array([True])},
    weights={"a/kernel": KERNEL, "b": np.ones(1), "count": np.array(3, np.int64)},
    level=1,
    rewind_step=10,
    method="by hand",
    verdict="It wins.",
    history=(RESULT, {**RESULT, "level": 1, "density": 0.8}),
    provenance={"versions": {"numpy": "2.4"}, "key": [0, 1]},
)
# What a number, a text or a part of the description is replaced by.
VALUES = [None, True, False, -1, 0, 3, 2**63, 2**64, 10**400, 0.5, math.nan, math.inf, "", "x", "\ud800"]
VALUES += [[], {}, [[]], [{}], {"a": 1}, [None], [RESULT], {"": []}]
SIZES = [0, 1, 2, 3, 4, 8, 2**31, 2**50, 2**63, 2**64 - 1, 2**64, -1, 1.5, "2", None, [], True]
DTYPES = [
    "BOOL",
    "U8",
    "I8",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F4",
    "BF16",
    "F16",
    "F32",
    "F64",
    "I64",
    "C64",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "the.ticket"
    TICKET.save(path)
    return path.read_bytes()


def parts(whole):
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8:end]), whole[end:]


def joined(header, data):
    header = json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def flipped(rng, whole):
    content = bytearray(whole)
    for at in rng.integers(0, len(whole), rng.integers(1, 5)):
        content[at] ^= 1 << int(rng.integers(8))
    return bytes(content)


def cut(rng, whole):
    at = int(rng.integers(len(whole)))
    return pick(rng, [whole[:at], whole[at:], whole + whole[at:], whole + b"\0", bytes(at)])


def spliced(rng, whole):
    a, b, c = sorted(rng.integers(0, len(whole), 3).tolist())
    return pick(rng, [whole[:a] + whole[b:], whole[:b] + whole[a:], whole[:a] + whole[b:c] + whole[a:]])


def edited(rng, value, values):
    """A copy of what JSON holds with one part of it replaced, taken away, added or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return pick(rng, values)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, copy = pick(rng, keys), dict(value) if isinstance(value, dict) else list(value)
    what = rng.random()
    if what < 0.1:
        del copy[key]
    elif what < 0.2 and isinstance(copy, dict):
        copy[pick(rng, ["x", "mask", "weights", "mask/x", "weights/x", "self", ""])] = pick(
            rng, [*values, copy[key]]
        )
    else:
        copy[key] = edited(rng, value[key], values)
    return copy


def other_header(rng, whole):
    header, data = parts(whole)
    return joined(edited(rng, header, [*SIZES, *DTYPES]), data)


def other_description(rng, whole):
    header, data = parts(whole)
    written = json.loads(header["__metadata__"]["tf_lottery"])
    header["__metadata__"]["tf_lottery"] = json.dumps(edited(rng, written, VALUES))
    return joined(header, data)


@pytest.mark.parametrize("change", [flipped, cut, spliced, other_header, other_description])
def test_a_file_that_is_changed_is_refused_or_the_same(tmp_path, whole, change, count_refused):
    def check(loaded):
        assert same(loaded, TICKET)

    rng = np.random.default_rng(0)
    changed = (change(rng, whole) for _ in range(400))
    assert count_refused(tmp_path / "the.ticket", changed, check) > 300


def test_a_forged_file_is_refused_or_a_sound_ticket(tmp_path, whole):
    """The checksum is right, so that every other check has to hold by itself."""
    path, rng, sound = tmp_path / "the.ticket", np.random.default_rng(1), 0
    header, data = parts(whole)
    original = json.loads(header["__metadata__"]["tf_lottery"])["description"]
    tensors = safetensors.numpy.load(whole)
    for _ in range(800):
        described = edited(rng, original, VALUES)
        held = forged(rng, tensors) if rng.random() < 0.3 else tensors
        files.write_tensors(path, held, described)
        try:
            loaded = Ticket.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        sound += 1
        assert type(loaded.level) is type(loaded.rewind_step) is int and loaded.level >= 0
        assert isinstance(loaded.provenance, dict) and isinstance(loaded.verdict, str)
        assert all(isinstance(row, dict) for row in loaded.history)
        loaded.summary()
    assert 150 < sound < 650


def forged(rng, tensors):
    name = pick(rng, list(tensors))
    array = tensors[name]
    others = [array[..., None], array.ravel()[:0], array.astype(np.int8), array.astype(np.float16), array > 0]
    held = {**tensors, pick(rng, [name, "mask/x", "weights/x", "x"]): np.ascontiguousarray(pick(rng, others))}
    if rng.random() < 0.3:
        del held[name]
    return held


def same(loaded, ticket):
    return (
        repr([loaded.mask[path] for path in ticket.mask]) == repr(list(ticket.mask.values()))
        and loaded.mask.keys() == ticket.mask.keys()
        and loaded.weights.keys() == ticket.weights.keys()
        and all(loaded.weights[path].tobytes() == array.tobytes() for path, array in ticket.weights.items())
        and all(getattr(loaded, name) == getattr(ticket, name) for name in module._DESCRIPTION)
    )


def test_no_depth_of_nesting_is_too_much(tmp_path, whole):
    header, data = parts(whole)
    path = tmp_path / "the.ticket"
    for depth in [*range(1, 1200, 13), 10**4, 10**5, 10**6]:
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            text = f'{{"format": "tf_lottery.ticket.1", "x": {opening * depth}1{closing * depth}}}'
            path.write_bytes(joined({**header, "__metadata__": {"tf_lottery": text}}, data))
            with pytest.raises(ValueError, match="the.ticket"):
                Ticket.load(path)
