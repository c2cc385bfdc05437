"""The house: which module may import which, and how long files and functions may grow."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "tf_lottery"
# From the bottom. "__init__" and "__main__" are those of the whole package.
FLOORS = [
    ("files", "paths", "names"),
    ("tickets", "keras_api"),
    ("training",),
    ("search", "analysis"),
    ("experiments",),
    ("cli",),
    ("__init__", "__main__"),
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
NUMPY_ONLY = ("tickets", "files", "names")
KERAS = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization")
FILE_LINES, FUNCTION_LINES = 300, 60


class Module:
    """One parsed file of a package.

    Attributes:
        place: its path from the package's folder, `tickets/masks.py`.
        name: `tickets.masks`; a package goes by its folder, the whole one by `__init__`.
    """

    def __init__(self, root, path):
        self.root, self.place = root, path.relative_to(root).as_posix()
        self.package = path.relative_to(root).parts[:-1]
        parts = self.package if path.stem == "__init__" else (*self.package, path.stem)
        self.name = ".".join(parts) or "__init__"
        self.part = parts[0] if parts else "__init__"
        self.source = path.read_text()
        self.tree = ast.parse(self.source)

    def problem(self, node, text):
        return f"{self.place}:{node.lineno}: {text}"

    def imports(self):
        """Yields (node, dotted name of a module) for each import, however deep."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute("." * node.level + (node.module or ""))
                yield from ((node, f"{base}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("import_module", "__import__")
            ):
                name = node.args[0] if node.args else None
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield node, self._absolute(name.value)

    def inside(self):
        """Yields (node, module of this package) for each import of one."""
        for node, name in self.imports():
            package, _, rest = name.partition(".")
            if package == self.root.name:
                yield node, _existing(self.root, rest)

    def _absolute(self, name):
        level = len(name) - len(name.lstrip("."))
        if not level:
            return name
        return ".".join([self.root.name, *self.package[: len(self.package) + 1 - level], name[level:]]).strip(
            "."
        )


def _existing(root, name):
    """The longest beginning of `name` that is a module; `__init__` where it is none."""
    parts = name.split(".") if name else []
    while parts and not (
        root.joinpath(*parts).is_dir() or root.joinpath(*parts).with_suffix(".py").is_file()
    ):
        parts.pop()
    return ".".join(parts) or "__init__"


def modules_of(root):
    return [Module(root, path) for path in sorted(root.rglob("*.py"))]


def misplaced(modules):
    """Imports that point up, and modules on no floor."""
    for module in modules:
        if module.part not in FLOOR:
            yield f"{module.place}:1: is on no floor"
            continue
        for node, target in module.inside():
            floor = FLOOR.get(target.partition(".")[0], len(FLOORS))
            if floor > FLOOR[module.part]:
                yield module.problem(node, f"imports {target}, which lies above")


def circles(modules):
    """Circles of modules, and of packages that share a floor."""
    by_module, by_part = {}, {}
    for module in modules:
        for _, target in module.inside():
            part = target.partition(".")[0]
            by_module.setdefault(module.name, set()).add(target)
            if part != module.part and FLOOR.get(part) == FLOOR.get(module.part):
                by_part.setdefault(module.part, set()).add(part)
    for kind, edges in (("packages", by_part), ("modules", by_module)):
        circle = _circle(edges)
        if circle:
            yield f"a circle of {kind}: {' -> '.join(circle)}"


def _circle(edges):
    """The nodes of a circle, the first again at the end; None where there is none."""
    done = set()

    def walk(node, above):
        if node in above:
            return [*above[above.index(node) :], node]
        if node in done:
            return None
        found = (walk(target, [*above, node]) for target in sorted(edges.get(node, ())))
        circle = next(filter(None, found), None)
        done.add(node)
        return circle

    return next(filter(None, (walk(node, []) for node in sorted(edges))), None)


def keras_below(modules):
    """Imports of TensorFlow or a Keras where NumPy has to do."""
    for module in modules:
        if module.part not in NUMPY_ONLY:
            continue
        for node, name in module.imports():
            if name.partition(".")[0] in KERAS:
                yield module.problem(node, f"imports {name}")
        for node, name in module.inside():
            if name.partition(".")[0] == "keras_api":
                yield module.problem(node, f"imports {name}")


def too_long(modules):
    for module in modules:
        lines = len(module.source.splitlines())
        if lines > FILE_LINES:
            yield f"{module.place}:1: has {lines} lines"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
                if lines > FUNCTION_LINES:
                    yield module.problem(node, f"{node.name} has {lines} lines without its docstring")


def _docstring_lines(function):
    if ast.get_docstring(function) is None:
        return 0
    return function.body[0].end_lineno - function.body[0].lineno + 1


def forbidden(modules):
    for module in modules:
        if "utils" in module.name.split("."):
            yield f"{module.place}:1: is called utils"
        for node, name in module.imports():
            if (first := name.partition(".")[0]) in RUN_WHAT_THEY_READ:
                yield module.problem(node, f"imports {first}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assert):
                yield module.problem(node, "asserts")


def unsafe(modules):
    """What runs, or could run, something that a file says; and what loads a Keras file in any mode."""
    for module in modules:
        for node, name in module.imports():
            if name.partition(".")[0] == "runpy" and module.place != CONFIG_FILES:
                yield module.problem(node, "runs a file")
        for node in ast.walk(module.tree):
            name = ast.unparse(node.func).removeprefix("builtins.") if isinstance(node, ast.Call) else ""
            if name in ("eval", "exec", "compile", "np.load", "numpy.load"):
                yield module.problem(node, f"calls {name}")
            elif isinstance(node, ast.keyword) and node.arg in SWITCHES:
                yield module.problem(node.value, f"says {node.arg}")
            elif isinstance(node, ast.Attribute) and node.attr in KERAS_FILES:
                own = module.place == OWN_FILES and node.attr == "load_model"
                if ast.unparse(node.value) != "self" and not own:  # a tuner's load_model is KerasTuner's word
                    yield module.problem(node, f"uses {node.attr}")
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name in KERAS_FILES:
                        yield module.problem(node, f"uses {alias.name}")


RUN_WHAT_THEY_READ = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "yaml")
CONFIG_FILES = "experiments/flags.py"  # they are the user's own programs
OWN_FILES = "keras_api/exporting.py"  # it opens, in safe mode, what it wrote a moment ago
SWITCHES = ("allow_pickle", "safe_mode", "custom_objects")
KERAS_FILES = (
    "load_model",
    "load_weights",
    "custom_object_scope",
    "CustomObjectScope",
    "Lambda",
    "func_load",
)
KERAS_FILES += ("enable_unsafe_deserialization", "SafeModeScope", "model_from_json")
RULES = [misplaced, circles, keras_below, too_long, forbidden, unsafe]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule):
    modules = modules_of(ROOT)
    assert len(modules) > 25
    assert list(rule(modules)) == []


def test_the_checker_sees_the_imports_that_there_are():
    seen = {module.name: {target for _, target in module.inside()} for module in modules_of(ROOT)}
    assert "keras_api.masked_model" in seen["search.ticket"]  # inside a function
    assert {"tickets.masks", "names"} <= seen["tickets.pruning"]
    parts = {name.partition(".")[0] for name in seen["search.imp"]}
    assert {"keras_api", "tickets", "training"} <= parts


CLEAN = {
    "__init__.py": "import importlib\n",
    "__main__.py": "from made_up import cli\n",
    "cli.py": "def main():\n    from made_up.experiments import driver\n    return driver\n",
    "names.py": "",
    "files.py": "import numpy\n",
    "tickets/__init__.py": "",
    "tickets/masks.py": "import numpy\nfrom made_up import files, names\n",
    "keras_api/__init__.py": "",
    "keras_api/model.py": "import tensorflow\n",
    "training/__init__.py": "",
    "training/loop.py": "from made_up.tickets import masks\nfrom . import data\n",
    "training/data.py": "from ..keras_api.model import Model\n",
    "analysis/__init__.py": "",
    "analysis/verdict.py": "from made_up.training.loop import Loop\n",
    "search/__init__.py": "",
    "search/imp.py": "from made_up.analysis import verdict\n",
    "experiments/__init__.py": "",
    "experiments/driver.py": "from made_up.search.imp import find\n",
}
LAZY = "def f():\n    if True:\n        {}\n"
BAD = {
    misplaced: [
        ("names.py", "import made_up.files\nfrom made_up import cli", "names.py:2: imports cli"),
        ("files.py", "from made_up.tickets import masks", "files.py:1: imports tickets.masks"),
        ("tickets/masks.py", "import made_up.training.loop", "tickets/masks.py:1: imports training.loop"),
        ("tickets/masks.py", "from made_up.training.loop import Loop", "masks.py:1: imports training.loop"),
        ("tickets/masks.py", "from made_up import training", "imports training, which lies above"),
        ("tickets/masks.py", "from ..training import loop", "imports training.loop, which lies above"),
        ("tickets/masks.py", "from .. import training", "imports training, which lies above"),
        ("tickets/__init__.py", "from ..training import loop", "__init__.py:1: imports training.loop"),
        ("tickets/masks.py", "from made_up import Ticket", "tickets/masks.py:1: imports __init__, which"),
        ("tickets/masks.py", "import made_up", "tickets/masks.py:1: imports __init__, which"),
        (
            "keras_api/model.py",
            LAZY.format("from made_up.search import imp"),
            "model.py:3: imports search.imp",
        ),
        ("training/loop.py", LAZY.format("import_module('made_up.search')"), "loop.py:3: imports search"),
        ("training/loop.py", "importlib.import_module('..search', __package__)", "loop.py:1: imports search"),
        ("training/loop.py", "__import__('made_up.cli')", "imports cli, which lies above"),
        ("analysis/verdict.py", "from made_up.experiments import driver", "imports experiments.driver"),
        ("experiments/driver.py", "async def f():\n    import made_up.cli", "driver.py:2: imports cli"),
        ("cli.py", "from made_up import __main__", "cli.py:1: imports __main__, which lies above"),
        ("attic.py", "", "attic.py:1: is on no floor"),
        ("attic/old.py", "", "attic/old.py:1: is on no floor"),
    ],
    circles: [
        ("analysis/tables.py", "from made_up.search import imp", "a circle of packages: analysis -> search"),
        ("training/data.py", "from made_up.training import loop", "modules: training.loop -> training.data"),
        ("names.py", "from made_up import files\nimport made_up.names", "modules: names -> names"),
    ],
    keras_below: [
        ("tickets/masks.py", "import tensorflow as tf", "tickets/masks.py:1: imports tensorflow"),
        ("tickets/masks.py", LAZY.format("from keras import ops"), "tickets/masks.py:3: imports keras.ops"),
        ("tickets/masks.py", LAZY.format("import tf_keras.layers"), "masks.py:3: imports tf_keras.layers"),
        ("tickets/masks.py", "importlib.import_module('keras')", "masks.py:1: imports keras"),
        ("files.py", "import tensorflow_model_optimization", "files.py:1: imports tensorflow_model"),
        ("tickets/masks.py", LAZY.format("from made_up.keras_api import model"), "imports keras_api.model"),
    ],
    too_long: [
        ("names.py", "\n" * 301, "names.py:1: has 301 lines"),
        ("names.py", "def f():\n" + "    pass\n" * 60, "names.py:1: f has 61 lines without its docstring"),
        (
            "names.py",
            "class A:\n    async def f(self):\n" + "        pass\n" * 60,
            "names.py:2: f has 61 lines",
        ),
    ],
    forbidden: [
        ("names.py", "def f(x):\n    assert x", "names.py:2: asserts"),
        ("names.py", LAZY.format("import pickle"), "names.py:3: imports pickle"),
        ("names.py", "from pickle import loads", "names.py:1: imports pickle"),
        ("names.py", "from torch import load", "names.py:1: imports torch"),
        ("names.py", LAZY.format("import yaml"), "names.py:3: imports yaml"),
        ("training/utils.py", "", "training/utils.py:1: is called utils"),
        ("training/utils/io.py", "", "training/utils/io.py:1: is called utils"),
    ],
    unsafe: [
        ("names.py", "x = [eval('1')]", "names.py:1: calls eval"),
        ("names.py", LAZY.format("builtins.exec(text)"), "names.py:3: calls exec"),
        ("names.py", "code = compile(text, '', 'exec')", "names.py:1: calls compile"),
        ("names.py", "numpy.load(file)", "names.py:1: calls numpy.load"),
        ("names.py", "read(file,\n    allow_pickle=allowed)", "names.py:2: says allow_pickle"),
        ("training/loop.py", "read(file, safe_mode=False)", "loop.py:1: says safe_mode"),
        ("training/loop.py", "read(file, custom_objects={})", "loop.py:1: says custom_objects"),
        ("training/loop.py", "keras.models.load_model(path)", "loop.py:1: uses load_model"),
        ("training/loop.py", "from keras.models import load_model", "loop.py:1: uses load_model"),
        ("training/loop.py", "keras.layers.Lambda(f)", "loop.py:1: uses Lambda"),
        ("training/loop.py", "import runpy", "loop.py:1: runs a file"),
    ],
}
GOOD = [
    ("names.py", "\n" * 300),
    ("names.py", "def f():\n" + "    pass\n" * 59),
    ("names.py", "def f():\n    '''Says.\n\n    Much.\n    '''\n" + "    pass\n" * 59),
    ("names.py", "model.eval()\nmodel.compile('adam')\n'''assert, pickle, eval(x)'''"),
    ("experiments/flags.py", "import runpy\nself.load_model(trial)"),
    ("keras_api/exporting.py", "keras.saving.load_model(path)"),
    ("training/loop.py", "import keras\nimport tensorflow\nimport made_up.names"),
    ("keras_api/more.py", "from made_up.keras_api import model\nimport made_upper"),
]


def house(folder, place=None, content=""):
    root = folder / "made_up"
    for name, text in {**CLEAN, **({place: content} if place else {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return modules_of(root)


@pytest.mark.parametrize("rule", RULES)
def test_a_house_in_order_has_no_problems(tmp_path, rule):
    assert list(rule(house(tmp_path))) == []


@pytest.mark.parametrize(("place", "content"), GOOD)
def test_what_is_allowed_is_no_problem(tmp_path, place, content):
    modules = house(tmp_path, place, content)
    assert [problem for rule in RULES for problem in rule(modules)] == []


@pytest.mark.parametrize(
    ("rule", "place", "content", "problem"), [(rule, *case) for rule, cases in BAD.items() for case in cases]
)
def test_a_problem_is_found(tmp_path, rule, place, content, problem):
    problems = list(rule(house(tmp_path, place, content)))
    assert len(problems) == 1 and problem in problems[0], problems
