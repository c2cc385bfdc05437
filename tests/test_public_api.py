"""The public names, their signatures, and what importing them costs."""

import dataclasses
import inspect
import json
import pathlib
import re
import subprocess
import sys

import pytest

import tf_lottery

ROOT = pathlib.Path(__file__).parent.parent
NAMES = [
    "CONTROLS",
    "CRITERIA",
    "REWINDINGS",
    "Rewinding",
    "SCHEDULES",
    "SCOPES",
    "Ticket",
    "TicketTuner",
    "apply_mask",
    "compact",
    "density",
    "find_ticket",
    "iterative_magnitude_pruning",
    "prune",
    "strip",
    "wrap",
]
# `name` must be given, `name=default` need not be; what follows `*` is given by keyword only.
SIGNATURES = {
    "find_ticket": "model, x=None, y=None, *, validation_data=None, validation_split=0.1, test_data=None, "
    "sample_weight=None, class_weight=None, batch_size=32, epochs=None, steps=None, levels=10, "
    "prune_fraction=0.2, target_density=None, "
    "layer_fractions=None, scope='layer', structure='unstructured', criterion='magnitude', "
    "schedule='iterative', rewind_step=0, rewinding=None, score_step=-1, controls=(), "
    "eval_every=None, seed=0, callbacks=None, workdir=None, verbose='auto'",
    "iterative_magnitude_pruning": "model, train, *, levels=10, prune_fraction=0.2, layer_fractions=None, "
    "scope='layer', structure='unstructured', criterion='magnitude', schedule='iterative', "
    "rewinding='original', data=None, seed=0",
    "Rewinding": "restore=0, restart=0, score=-1, steps=None",
    "prune": "mask, scores, fractions, scope='layer', structure='unstructured'",
    "density": "mask",
    "apply_mask": "model, mask",
    "compact": "model",
    "wrap": "model",
    "strip": "model",
    "Ticket": "mask, weights, level, rewind_step=0, method='', verdict='', history=(), provenance=<factory>",
    "TicketTuner": "build, options=None, *, workdir, oracle='random', objective='density', "
    "target_density=0.1, trials=25, seed=0",
    "TicketTuner.search": "self, x, y=None, **arguments",
    "TicketTuner.get_best_tickets": "self, num_tickets=1",
    "TicketTuner.load_model": "self, trial",
    "Ticket.apply": "self, model, *, mask_only=False",
    "Ticket.save": "self, path",
    "Ticket.load": "path",
}


def public(name):
    thing = tf_lottery
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def in_a_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_public_names():
    assert tf_lottery.__all__ == NAMES
    assert re.fullmatch(r"\d+\.\d+\.\d+", tf_lottery.__version__)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_thing_of_that_name(name):
    thing = public(name)
    assert thing is public(name)
    assert getattr(thing, "__name__", name) == name
    namespace = {}
    exec(f"from tf_lottery import {name}", namespace)
    assert namespace[name] is thing


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    signature = inspect.signature(public(name))
    parameters = signature.parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    assert str(inspect.Signature(bare)) == f"({SIGNATURES[name]})"
    assert all(p.annotation is not p.empty for p in parameters if p.name != "self")
    assert signature.return_annotation is not signature.empty


def test_the_fields_of_a_ticket():
    fields = dataclasses.fields(tf_lottery.Ticket)
    assert ", ".join(field.name for field in fields) == re.sub("=[^,]*", "", SIGNATURES["Ticket"])
    assert isinstance(tf_lottery.Ticket.density, property)
    ticket = tf_lottery.Ticket.__new__(tf_lottery.Ticket)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ticket.level = 3


def test_criteria_and_controls_by_name():
    assert (
        list(tf_lottery.CRITERIA)
        == (
            "magnitude magnitude_increase magnitude_same_sign magnitude_increase_same_sign movement "
            "large_init_large_final large_init small_final random snip grasp synflow fisher supermask l0"
        ).split()
    )
    assert list(tf_lottery.SCOPES) == "layer global global_normalized erk uniform_plus threshold".split()
    assert list(tf_lottery.SCHEDULES) == ["iterative", "one_shot", "early_bird"]
    assert list(tf_lottery.REWINDINGS) == ["original", "late", "learning_rate", "fine_tuning"]
    kinds = "reinit shuffle random same_sign signed_constant permuted resampled noise random_ticket inverted"
    kinds += " trained freeze_initial freeze_by_movement freeze_by_movement_all"
    assert list(tf_lottery.CONTROLS) == kinds.split()


def test_every_public_thing_says_what_it_does():
    tables = [name for name in NAMES if name.isupper()]
    assert set(NAMES) - set(tables) <= set(SIGNATURES)
    documented = {name: public(name) for name in SIGNATURES}
    for table in tables:
        documented |= {f"{table}[{name!r}]": thing for name, thing in public(table).items()}
    documented |= {"tf_lottery": tf_lottery, "Ticket.density": tf_lottery.Ticket.density}
    for name, thing in documented.items():
        first = (thing.__doc__ or "").partition("\n")[0]
        assert len(first) > 20 and first.endswith("."), f"{name}: {first!r}"


@pytest.mark.parametrize("name", ["find_ticket", "iterative_magnitude_pruning", "prune", "Ticket"])
def test_every_argument_is_described(name):
    for parameter in inspect.signature(public(name)).parameters:
        assert re.search(rf"^ +{parameter}: \S", public(name).__doc__, re.MULTILINE), parameter


def test_importing_it_imports_next_to_nothing():
    before, after, seconds = in_a_new_process("""
import json, sys, time
before, start = list(sys.modules), time.perf_counter()
import tf_lottery
dir(tf_lottery), tf_lottery.__version__
print(json.dumps([before, list(sys.modules), time.perf_counter() - start]))
""")
    print(f"import tf_lottery: {1000 * seconds:.1f} ms")
    imported = {name.partition(".")[0] for name in set(after) - set(before)}
    assert "tf_lottery" in imported
    assert imported - set(sys.stdlib_module_names) == {"tf_lottery", "wrapt"}


def test_tickets_need_no_tensorflow():
    modules = in_a_new_process("""
import json, pkgutil, sys
import tf_lottery, tf_lottery.tickets
for name in ("CONTROLS", "CRITERIA", "Ticket", "density", "prune"):
    getattr(tf_lottery, name)
for module in pkgutil.iter_modules(tf_lottery.tickets.__path__, "tf_lottery.tickets."):
    __import__(module.name)
print(json.dumps(list(sys.modules)))
""")
    assert {"tf_lottery.search.ticket", "tf_lottery.tickets.controls", "numpy"} <= set(modules)
    heavy = {"tensorflow", "keras", "tf_keras", "tensorflow_model_optimization", "sklearn", "matplotlib"}
    assert not heavy & {name.partition(".")[0] for name in modules}


def test_dir_lists_the_public_names():
    listed = dir(tf_lottery)
    assert listed == sorted(set(listed))
    assert {*NAMES, "__version__", "__doc__"} <= set(listed)


def test_a_star_import_takes_the_public_names():
    namespace = {}
    exec("from tf_lottery import *", namespace)
    assert sorted(set(namespace) - {"__builtins__"}) == NAMES


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tf_lottery' has no attribute 'find_tickets'"):
        tf_lottery.find_tickets  # noqa: B018
    assert getattr(tf_lottery, "nothing", None) is None
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'tf_lottery'"):
        exec("from tf_lottery import nothing", {})
