"""Whether a config is that of the run that was made with it, or of the worker that is to train along."""

from collections.abc import Collection
from typing import Any


def differences(before: Any, now: Any, extendable: Collection[str]) -> list[str]:
    """Returns a line for each entry that differs between two configs, as JSON has them.

    Args:
        before: the config of the run directory, or of the chief.
        now: the config of this run, or of this worker.
        extendable: dotted names of entries that may have grown.
    """
    before, now = _flat(before), _flat(now)
    return [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
        and not (name in extendable and _extends(before.get(name), now.get(name)))
    ]


def _extends(before: Any, now: Any) -> bool:
    """Whether an entry only grew: a number, or a list of names or numbers that holds all it held."""
    if isinstance(before, list) and isinstance(now, list):
        return set(before) <= set(now)
    return isinstance(before, int) and isinstance(now, int) and before <= now


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        name: value
        for key, entry in config.items()
        for name, value in _flat(entry, f"{prefix}.{key}" if prefix else key).items()
    }
