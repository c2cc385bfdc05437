"""The command `tf-lottery run`: what it says, and in which processes it trains.

TensorFlow is imported once the flags have been read, and what is wrong with the run directory told.
"""

import contextlib
import os
import shutil
import sys

from tf_lottery import paths
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import flags, jobs, noise, workdirs
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.training import locks, recorded, strategies
from tf_lottery.training.claims import Claims
from tf_lottery.training.runs import InUseError


def run(words: list[str]) -> int:
    """Carries out `tf-lottery run`; returns the exit status."""
    count, tpu, words = flags.take_machines(words)
    study, workdir = flags.parse(words)
    together = _are_of_workers(study, count, tpu)
    if together and strategies.workers()[1] > 0:
        return _follow(study, tpu)
    folders = workdirs.folders(study, workdir)
    alone, in_use, untrained = "" in study, 0, 0
    with noise.dropped():
        if isinstance(paths.path(workdir), paths.RemotePath):  # TensorFlow looks at it
            _start(next(iter(study.values())), tpu)
        claims = {name: workdirs.claims(config, folders[name]) for name, config in study.items()}
        for shared in claims.values():
            shared.directory.check()
        if alone:
            claims[""].check()
    if not alone:
        networks = sum(map(sum, map(config_module.count_networks, study.values())))
        print(f"A study of {len(study)} experiments, {networks} networks: {', '.join(study)}.\n")
    for name, folder in folders.items():
        done = len(recorded.results(folder))
        print(f"{name}: " * (not alone) + _announcement(study[name], folder, done), flush=True)
        try:
            status = _train(study[name], claims[name], count, tpu, [name, *words])
        except InUseError as error:
            if together:  # the others wait for it
                raise
            in_use += 1
            print(f"\n{error}\n", flush=True)
            continue
        if status:
            return status
        print(f"\n{_report(folder)}\n", flush=True)
        untrained += not recorded.results(folder) and bool(recorded.failures(folder))
        if others := claims[name].told():
            print(f"Others are still at work: {others}.\n", flush=True)
    _conclude(workdir, {} if alone else folders)
    return int(in_use + untrained == len(study))


def _are_of_workers(study: dict[str, ExperimentConfig], count: int, tpu: str) -> bool:
    """Whether all processes that TF_CONFIG names train every network together.

    Raises:
        UsageError: some networks only, or in `count` processes beside these.
    """
    together = {strategies.is_of_workers(config.strategy, tpu) for config in study.values()}
    if together == {True, False}:
        raise flags.UsageError(
            "Some experiments of the study are for one machine, and some for all that TF_CONFIG names: give "
            "all the same, such as --config.strategy=auto."
        )
    if count > 1 and True in together:
        raise flags.UsageError(
            "--jobs are processes on the cores of this machine, and TF_CONFIG names other workers: leave one "
            "of them out."
        )
    return True in together


def _follow(study: dict[str, ExperimentConfig], tpu: str) -> int:
    """Trains along with the chief, which alone knows the run directory and says what is done."""
    for config in study.values():
        _train_here(config, folder="", tpu=tpu)
    return 0


def _train(config: ExperimentConfig, claims: Claims, count: int, tpu: str, words: list[str]) -> int:
    """Trains what is left in as many processes as are of use; returns the exit status."""
    claims.check()
    free = claims.free()
    useful = min(count, len(free))
    if useful < 2:
        if useful < count and free:
            print(f"--jobs={count}: one replicate is left, which this process trains.", flush=True)
        _train_here(config, str(claims.directory.path), tpu=tpu)
        return 0
    left = "" if useful == count else ", one for each replicate that is left"
    print(f"In {useful} processes{left}; cores of each: {len(jobs.cores_of(useful)[0])}.", flush=True)
    numbers = ",".join(map(str, claims.unfinished()))
    status = jobs.run([numbers, *words], useful, len(free) * len(claims.networks))
    if status or not claims.free():
        return status
    # A process was killed as the last of the others ended.
    return _train(config, claims, count, tpu, words)


def work(numbers: str, name: str, *words: str) -> None:
    """Trains replicates as one of the processes that `--jobs` starts."""
    jobs.end_with_parent()
    study, workdir = flags.parse(list(words))
    with contextlib.suppress(InUseError):  # the other processes were faster
        folder = workdirs.folders(study, workdir)[name]
        _train_here(study[name], folder, [int(number) for number in numbers.split(",")])


def _train_here(
    config: ExperimentConfig, folder: str, replicates: list[int] | None = None, tpu: str = ""
) -> None:
    with noise.dropped():
        _start(config, tpu)
        import tensorflow as tf

        from tf_lottery.experiments import driver
    try:
        driver.run(config, folder, replicates, tpu)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(
            "Out of memory: lower config.train.batch_size, or take a smaller network."
        ) from error


def _start(config: ExperimentConfig, tpu: str) -> None:
    """Has TensorFlow look for its devices, for which the strategy may have to come first."""
    import tensorflow as tf

    strategies.make(config.strategy, tpu)
    tf.config.list_logical_devices()


def _report(folder: str) -> str:
    """Returns the report, which is written as figures and for TensorBoard too."""
    with noise.dropped():
        import tensorflow as tf

        from tf_lottery.experiments import outputs
        from tf_lottery.experiments.analyses import plot, report

        tf.config.list_logical_devices()
    with locks.alone(folder):  # so that the report that is written last is of all
        findings = report.analyze(folder)
        outputs.write(folder, "report", findings)
        outputs.write(folder, "plot", plot.analyze(folder, ("curves",)))
    return findings.text


def _conclude(workdir: str, study: dict[str, str]) -> None:
    """Compares the experiments of a study, name -> folder, and says where everything is."""
    if study:
        from tf_lottery.experiments import outputs
        from tf_lottery.experiments.analyses import report

        findings = report.compare(study)
        outputs.write(workdir, "report", findings)
        print(f"{findings.text}\n")
    logs = workdir if study else os.path.join(workdir, "tensorboard")
    print(f"Results, figures and tickets are in {workdir}. More figures, and what 'tf-lottery help' names:\n")
    print(f"  tf-lottery plot {workdir}\n\nTo look at it in TensorBoard:\n")
    print(f"  {tensorboard()} --logdir {logs}", flush=True)


def _announcement(config: ExperimentConfig, workdir: str, done: int) -> str:
    tickets, controls = config_module.count_networks(config)
    parts = [f"tickets {tickets} x {config.train.steps} steps"]
    if controls:
        parts.append(f"controls {controls} x {config.train.control_steps or config.train.steps} steps")
    where = f"Goes on in {workdir}; networks done already: {done}." if done else f"Results go to {workdir}."
    return (
        f"{config.network.name} on {config.data.name}, {tickets + controls} networks: {', '.join(parts)}.\n"
        f"{where}"
    )


def tensorboard() -> str:
    """Returns what a shell finds TensorBoard by, in an environment that is not activated too."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    return os.path.relpath(os.path.join(os.path.dirname(sys.executable), "tensorboard"))
