"""Where experiments are kept, and what of them there is to share out among processes."""

import os
from collections.abc import Mapping, Sequence

from tf_lottery.experiments import config as config_module
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.training.claims import Claims
from tf_lottery.training.runs import RunDirectory


def folders(study: Mapping[str, ExperimentConfig], workdir: str) -> dict[str, str]:
    """Returns name -> run directory of the experiments of a study; that of a single one is the workdir."""
    return {name: os.path.join(workdir, name) if name else workdir for name in study}


def directory(config: ExperimentConfig, workdir: str | os.PathLike[str]) -> RunDirectory:
    """Returns the run directory of an experiment at that path."""
    return RunDirectory(workdir, config_module.entries_of(config), extendable=config_module.EXTENDABLE)


def claims(config: ExperimentConfig, workdir: str, replicates: Sequence[int] | None = None) -> Claims:
    """Returns the replicates of an experiment, or some of them, as processes share them out."""
    numbers = range(1, config.replicates + 1) if replicates is None else replicates
    return Claims(directory(config, workdir), numbers, config_module.networks_of(config))
