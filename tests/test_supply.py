"""What is installed: the bounds of the dependencies, and the audit of them."""

import ast
import contextlib
import http.server
import importlib.metadata
import json
import pathlib
import runpy
import subprocess
import sys
import threading
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = pathlib.Path(__file__).parent.parent
LOWEST = pathlib.Path(sys.prefix).name == ".venv-lowest"  # the venv of `tools/test.sh --lowest`
LOWER, UPPER = (">=", "~=", "=="), ("<", "~=", "==")
REQUIREMENTS = [Requirement(line) for line in importlib.metadata.requires("tf_lottery")]
INSTALLED = [r for r in REQUIREMENTS if r.marker is None or r.marker.evaluate({"extra": "test"})]
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]

AUDIT = runpy.run_path(str(ROOT / "tools/audit.py"))
HOLE = {
    "id": "PYSEC-2024-1",
    "summary": "Runs what it is told.",
    "affected": [
        {
            "package": {"name": "holed", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


@pytest.mark.parametrize("requirement", [*REQUIREMENTS, *map(Requirement, BUILD)], ids=str)
def test_a_requirement_has_a_lower_and_an_upper_bound(requirement):
    operators = [clause.operator for clause in requirement.specifier]
    assert any(operator in LOWER for operator in operators)
    assert any(operator in UPPER for operator in operators)


@pytest.mark.parametrize("requirement", INSTALLED, ids=str)
def test_the_installed_version_is_within_the_bounds(requirement):
    installed = Version(importlib.metadata.version(requirement.name))
    assert installed in requirement.specifier
    if LOWEST:
        lower = [Version(clause.version) for clause in requirement.specifier if clause.operator in LOWER]
        assert [installed] == lower


def test_every_package_that_is_imported_is_required():
    homes = importlib.metadata.packages_distributions()
    required = {requirement.name for requirement in REQUIREMENTS if requirement.marker is None}
    names = set()
    for path in (ROOT / "tf_lottery").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition(".")[0])
    names -= {*sys.stdlib_module_names, "tf_lottery"}
    assert "tensorflow" in names
    assert [name for name in sorted(names) if not required & set(homes[name])] == []


class Service(http.server.BaseHTTPRequestHandler):
    """Answers as OSV does: `holed` has a hole, what else is asked for has none."""

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"vulns": [HOLE]} if query["package"]["name"] == "holed" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Broken(Service):
    def do_POST(self):
        self.send_error(503)


class Silent(Service):
    def do_POST(self):
        self.rfile.read()  # until pip-audit hangs up


@contextlib.contextmanager
def serving(handler):
    """The arguments that make pip-audit ask that handler."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield ["--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{server.server_port}"]
        finally:
            server.shutdown()


@pytest.fixture
def two_packages(tmp_path, monkeypatch):
    """Arguments that audit two packages, of which one has a hole, in place of what is installed."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("CI", raising=False)
    (tmp_path / "packages.txt").write_text("holed==1.0\nsound==1.0\n")
    return ["--requirement", str(tmp_path / "packages.txt"), "--no-deps", "--disable-pip"]


def test_the_audit_fails_on_a_known_vulnerability_except_in_ci(two_packages, capsys, monkeypatch):
    with serving(Service) as service:
        assert AUDIT["main"]([*two_packages, *service]) == 1
        out = capsys.readouterr().out
        assert "holed 1.0: PYSEC-2024-1, fixed in 1.1.\n  Runs what it is told.\n" in out
        assert "pip-audit: known vulnerabilities in 2 packages: 1.\n" in out
        monkeypatch.setenv("CI", "true")
        assert AUDIT["main"]([*two_packages, *service]) == 0
        assert capsys.readouterr().out == out


def test_what_is_allowed_does_not_fail_the_audit(two_packages, capsys, monkeypatch):
    monkeypatch.setitem(AUDIT["ALLOWED"], "PYSEC-2024-1", "Nobody tells it anything.")
    with serving(Service) as service:
        assert AUDIT["main"]([*two_packages, *service]) == 0
    assert capsys.readouterr().out == "pip-audit: known vulnerabilities in 2 packages: 0.\n"


def test_the_audit_is_skipped_where_its_data_cannot_be_reached(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path))  # what is in the cache needs no network
    run = subprocess.run([sys.executable, "tools/audit.py"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, AUDIT["SKIPPED"] + "\n", "")


@pytest.mark.parametrize("handler", [Broken, Silent])
def test_the_audit_is_skipped_where_the_service_gives_no_data(handler, two_packages, capsys):
    with serving(handler) as service:
        assert AUDIT["main"]([*two_packages, *service, "--timeout=1"]) == 0
    assert capsys.readouterr().out == AUDIT["SKIPPED"] + "\n"


def test_the_audit_is_skipped_where_no_package_was_audited(capsys):
    # What pip-audit makes of a mirror that has the packages and not the data, calling it a success.
    reason = "Dependency not found on PyPI and could not be audited: numpy (2.4.6)"
    assert AUDIT["judge"]([{"name": "numpy", "skip_reason": reason}]) == 0
    assert capsys.readouterr().out == AUDIT["SKIPPED"] + "\n"


def test_an_audit_that_breaks_fails(capsys):
    assert AUDIT["main"](["--no-such-argument"]) == 1
    assert "unrecognized arguments: --no-such-argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("check.sh", ["--fx"], "tools/check.sh takes --fix, --newest (the default) and --lowest, not --fx."),
        ("test.sh", ["--lowest"], "tf_lottery needs Python 3.11 to 3.13. Install one, or name it: PYTHON="),
    ],
)
def test_the_scripts_say_what_is_wrong(script, words, message, monkeypatch):
    monkeypatch.setenv("PYTHON", "/no/python here")
    run = subprocess.run([ROOT / "tools" / script, *words], capture_output=True, text=True)
    assert run.returncode != 0 and message in run.stderr
