"""What masks cost: a masked and a dense network in one process, in short turns."""

from typing import Any

from tqdm import tqdm

from benchmarks.contenders import OURS, WRAPPED, loop, work_named
from benchmarks.speed import ratio, spread

_DENSE = {OURS: "dense, Keras 3", WRAPPED: "dense, tf_keras"}


def measure(work: str, rounds: int) -> dict[str, Any]:
    """Returns milliseconds per step of each, and the ratios of masked to dense, round by round."""
    made = work_named(work)
    runs = {
        _DENSE[OURS]: loop(work, masked=False),
        _DENSE[WRAPPED]: loop(work, flavour="tf_keras", masked=False),
        OURS: loop(work),
        WRAPPED: loop(work, flavour="tf_keras"),
    }
    for run in runs.values():
        run(made.steps)
    names, times = list(runs), {name: [] for name in runs}
    for number in tqdm(range(rounds), desc=made.title, unit="round", leave=False):
        # Every other round backwards: none comes always after the same one.
        for name in names[:: -1 if number % 2 else 1]:
            times[name].append(runs[name](made.steps) / made.steps * 1e3)
    return {
        "work": made.title,
        "rounds": rounds,
        "milliseconds": {name: spread(values) for name, values in times.items()},
        "masked_over_dense": {name: ratio(times[name], times[dense]) for name, dense in _DENSE.items()},
    }


def text(report: dict[str, Any]) -> str:
    """Returns the report as a table."""
    lines = [f"{report['work']}; {report['rounds']} rounds", f"{'':34}{'ms per step':>12}{'over dense':>12}"]
    for name, row in report["milliseconds"].items():
        over = report["masked_over_dense"].get(name)
        told = f"{over['median']:12.3f}   ({over['low']:.3f} to {over['high']:.3f})" if over else ""
        lines.append(f"{name:34}{row['median']:12.2f}{told}")
    return "\n".join(lines)
