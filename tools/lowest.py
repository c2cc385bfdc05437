"""Prints constraints for pip: each requirement of the installed tf_lottery at its lower bound."""

import importlib.metadata
import sys

from packaging.requirements import Requirement

for requirement in map(Requirement, importlib.metadata.requires("tf_lottery")):
    lower = [clause.version for clause in requirement.specifier if clause.operator in (">=", "~=", "==")]
    if not lower:
        sys.exit(f"{requirement} in setup.py has no lower bound.")
    print(f"{requirement.name}=={lower[0]}")
