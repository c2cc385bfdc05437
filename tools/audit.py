"""Has an installed package a known vulnerability? `python tools/audit.py [arguments of pip-audit]`.

Exits with 1 if one has, except where CI is set: there it is only printed, since it came with the day and
not with the commit. Where pip-audit's data cannot be reached, says so and exits with 0.
"""

import json
import os
import re
import subprocess
import sys

# Identifier -> why we live with it: no version within the bounds of setup.py is free of it, and it does not
# touch what we do with the package.
ALLOWED: dict[str, str] = {}
SECONDS = 60
SKIPPED = "pip-audit: skipped, its data cannot be reached from here."
# The last line on stderr of a pip-audit that got no data: the connection failed, or the answer was no data.
_UNREACHABLE = re.compile(r"^requests\.exceptions\.|\bServiceError\b|your network may be blocking")


def main(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--timeout=5"]
    command += ["--skip-editable", *(f"--ignore-vuln={identifier}" for identifier in ALLOWED), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        print(SKIPPED)
        return 0
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except ValueError:
        if _UNREACHABLE.search(run.stderr.strip().rpartition("\n")[2]):
            print(SKIPPED)
            return 0
        print(f"pip-audit failed:\n{run.stderr}", file=sys.stderr)
        return 1
    return judge(packages)


def judge(packages: list[dict]) -> int:
    """Prints what the "dependencies" of pip-audit's JSON say; returns the exit status."""
    # A mirror that has the packages but not the data answers 404, and pip-audit calls that "No known
    # vulnerabilities found".
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print(SKIPPED)
        return 0
    found = [(package, vulnerability) for package in audited for vulnerability in package["vulns"]]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}.")
        print(f"  {vulnerability['description'][:200]}")
    left = [package["name"] for package in packages if "skip_reason" in package]
    print(f"pip-audit: known vulnerabilities in {len(audited)} packages: {len(found)}.")
    if left:
        print(f"  Not audited: {', '.join(left)}.")
    if found:
        print("  Remove .venv to get newer versions; where none helps, say so in ALLOWED of tools/audit.py.")
    return int(bool(found) and not os.environ.get("CI"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
