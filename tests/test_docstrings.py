"""The examples of docstrings and of the README run."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import pytest

import tf_lottery

ROOT = pathlib.Path(__file__).parent.parent
MODULES = [
    module.name
    for module in pkgutil.walk_packages(tf_lottery.__path__, "tf_lottery.")
    if module.name != "tf_lottery.__main__"
]


def examples(name):
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name, make_model, data):
    found = examples(name)
    for test in found:
        # What an example may take for granted: a compiled model, and arrays that it fits.
        test.globs.update(model=make_model(), x=data[0], y=data[1])
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
        assert result.failed == 0, test.name


def test_the_public_functions_have_examples():
    for name in (
        "search.find_ticket",
        "search.imp",
        "search.ticket",
        "tickets.pruning",
        "tickets.masks",
        "keras_api.masked_model",
    ):
        assert examples(f"tf_lottery.{name}"), name


def test_the_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names = {}
    exec(compile(blocks[0].replace("epochs=30", "epochs=2"), "README.md", "exec"), names)
    assert tf_lottery.Ticket.load("digits.ticket").level == names["ticket"].level
    trained = []
    names["my_training_loop"] = lambda model: trained.append(model)
    exec(compile(blocks[1].replace("levels=10", "levels=2"), "README.md", "exec"), names)
    assert trained == [names["model"]] * 3
    exec(compile(blocks[2], "README.md", "exec"), names)
    small = {"epochs": 1, "levels": 1, "verbose": 0, "criterion": names["movement"]}
    assert tf_lottery.find_ticket(names["model"], names["x"], names["y"], **small).density <= 1
