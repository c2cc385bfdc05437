"""Training side by side: who takes how long for a step."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import processes
from benchmarks.contenders import BOUNDS, CONTENDERS, FITS, OURS, PYTORCH, TFMOT, WRAPPED, work_named

Times = dict[str, list[float]]


def measure(work: str, rounds: int, names: Sequence[str] = tuple(CONTENDERS)) -> dict[str, Any]:
    """Returns what contenders took that trained in turn, `rounds` times; ratios are of one round each.

    Milliseconds are per step; first and build are seconds.
    """
    made = work_named(work)
    with processes.started(names, work, made.steps) as (ready, left_out):
        rng, times = np.random.default_rng(0), {name: [] for name in ready}
        for _ in tqdm(range(rounds), desc=made.title, unit="round", leave=False):
            # In an order of its own: no contender comes always after the same one.
            for name in rng.permutation(list(ready)):
                try:
                    times[name].append(ready[name].turn())
                except processes.Failed as error:
                    left_out[name] = str(error)
                    del ready[name], times[name]
        rows = {
            name: {
                **spread(times[name]),
                "build_seconds": contender.build_seconds,
                "first_seconds": contender.first_seconds,
                # A turn takes its steps twice.
                "compile_seconds": contender.first_seconds
                - 2 * statistics.median(times[name]) * made.steps / 1e3,
                "peak_mib": contender.peak_mib,
            }
            for name, contender in ready.items()
        }
    return {
        "work": made.title,
        "rounds": rounds,
        "steps_in_a_turn": made.steps,
        "contenders": rows,
        "left_out": left_out,
        "ratios": _ratios(times),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median and quartiles."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * list(values)
    )
    return {"median": median, "low": low, "high": high}


def ratio(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Returns the spread of `one` over `other`, round by round: the machine is now faster and now slower."""
    return spread([a / b for a, b in zip(one, other, strict=True)])


def _ratios(times: Times) -> dict[str, dict[str, float]]:
    def fastest(names: Sequence[str]) -> list[float]:
        there = [times[name] for name in names if name in times]
        return min(there, key=statistics.median) if there else []

    ours, bound = times.get(OURS, []), fastest(list(BOUNDS))
    # Of one setting it cannot be said that it is the best.
    best = fastest(list(FITS)) if all(name in times for name in FITS) else []
    ratios = {
        "Keras fit / tf_lottery": (times.get("Keras fit"), ours),
        "Keras fit at its best / tf_lottery": (best, ours),
        "TF-MOT fit / tf_lottery in TF-MOT wrappers": (times.get(TFMOT), times.get(WRAPPED)),
        "PyTorch loop / tf_lottery": (times.get(PYTORCH), ours),
        "share of the bound, XLA's products": (times.get("products, XLA"), ours),
        "share of the bound, the fastest products": (bound, ours),
    }
    return {name: ratio(*pair) for name, pair in ratios.items() if all(pair)}


def text(report: dict[str, Any]) -> str:
    """Returns the report as a table."""
    lines = [
        f"{report['work']}; {report['rounds']} rounds of {report['steps_in_a_turn']} steps",
        f"{'':34}{'ms per step':>12}{'quartiles':>18}{'steps/s':>9}"
        f"{'first turn, s':>15}{'compiling, s':>14}{'peak MiB':>10}",
    ]
    for name, row in report["contenders"].items():
        quartiles = f"{row['low']:.2f} to {row['high']:.2f}"
        lines.append(
            f"{name:34}{row['median']:12.2f}{quartiles:>18}{1e3 / row['median']:9.0f}"
            f"{row['first_seconds']:15.1f}{row['compile_seconds']:14.1f}{row['peak_mib']:10.0f}"
        )
    lines += [f"left out: {name} ({why})" for name, why in report["left_out"].items()]
    lines.append("")
    for name, row in report["ratios"].items():
        lines.append(f"{name:48}{row['median']:8.2f}   ({row['low']:.2f} to {row['high']:.2f})")
    return "\n".join(lines)
