"""The examples of docstrings and of the README run."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import numpy as np
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


@pytest.mark.usefixtures("no_xla")
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


def test_the_examples_of_the_readme(tmp_path, monkeypatch, no_xla, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names = {}
    for block in blocks:
        small = re.sub(r"(epochs|levels|rewind_step|trials)=\d+", r"\1=1", block)
        exec(compile(small, "README.md", "exec"), names)
    assert len(blocks) == 8
    assert "level 1: 81.4% of the weights" in capsys.readouterr().out
    kernels = [kernel for kernel in names["other"].get_weights() if kernel.ndim == 2]
    for kernel, mask in zip(kernels, tf_lottery.Ticket.load("digits.ticket").mask.values()):
        np.testing.assert_array_equal(kernel != 0, mask)
    names["model"].compile("adam", "mse")
    small = {"epochs": 1, "levels": 1, "verbose": 0, "criterion": names["squared_movement"]}
    found = tf_lottery.find_ticket(names["model"], names["x"], np.eye(10)[names["y"]], **small)
    assert found.method == "iterative pruning by squared_movement, scope layer"
