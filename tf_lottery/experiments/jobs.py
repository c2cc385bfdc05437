"""One run in several processes, which share its replicates out among them as separate commands would."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence

import tqdm

from tf_lottery.experiments import stopping

WORK = "work"  # the command that the processes are started with
_THREADS = "TF_NUM_INTRAOP_THREADS"


def run(words: Sequence[str], count: int, networks: int) -> int:
    """Starts processes of the command `work`, and shows what they say, until all have ended.

    Each has its share of the processor's cores, see `cores_of`. They end with this process, however it
    ends; and all of them when one ends with an error, which is told once. The work of one
    that is killed is left to the others.

    Args:
        words: what follows the command.
        count: how many processes.
        networks: how many there are to train, for the live line.

    Returns:
        The exit status: 0, or that of the process that failed.

    Raises:
        KeyboardInterrupt: this process was told to stop; the others have saved what they did, and ended.
    """
    said: queue.Queue[tuple[_Worker, str]] = queue.Queue()
    environment = _environment()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(contextlib.closing(_live_line(networks)))
        workers = {_Worker(words, environment, cores, stack, said) for cores in cores_of(count)}
        stack.enter_context(stopping.saving(lambda: [worker.terminate() for worker in set(workers)]))
        while workers:
            worker, line = said.get()
            if line:
                bar.write(line.rstrip("\n"), file=sys.stdout)
                sys.stdout.flush()
                bar.update()
                continue
            workers.discard(worker)
            status, errors = worker.end()
            if stopping.told():  # as all of them were
                continue
            if status < 0:
                errors += _killed(-status, bool(workers))
            bar.write(errors, file=sys.stderr, end="")
            if status > 0 or status and not workers:
                return status if status > 0 else 128 - status
    if stopping.told():
        raise KeyboardInterrupt
    return 0


def end_with_parent() -> None:
    """Ends this process, one of those that `run` starts, as soon as the one that started it is no more."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written there: it returns at the end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def cores_of(count: int) -> list[set[int]]:
    """Returns the cores that each of so many processes computes on: as many for each, as far as they go."""
    cores = _cores()
    return [set(cores[i::count]) or {cores[i % len(cores)]} for i in range(count)]


class _Worker:
    """One of the processes; puts each line that it prints into a queue, and `""` when it ends."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        cores: set[int],
        stack: contextlib.ExitStack,
        said: queue.Queue,
    ):
        self._errors = stack.enter_context(tempfile.TemporaryFile())
        with _deaf_to_ctrl_c():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tf_lottery", WORK, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                text=True,
            )
        stack.callback(self._kill)
        if hasattr(os, "sched_setaffinity"):  # on Linux; elsewhere all processes have all cores
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, cores)
        threading.Thread(target=self._listen, args=[said], daemon=True).start()

    def end(self) -> tuple[int, str]:
        """Waits for its end; returns the exit status, and what it wrote to standard error."""
        status = self._process.wait()
        self._errors.seek(0)
        return status, self._errors.read().decode(errors="replace")

    def terminate(self) -> None:
        """Tells it to save what it does, and to end."""
        self._process.terminate()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self, said: queue.Queue) -> None:
        for line in self._process.stdout:
            said.put((self, line))
        said.put((self, ""))


def _killed(number: int, others: bool) -> str:
    if others:
        return f"tf-lottery: a process was killed by signal {number}; the others take its work over.\n"
    return (
        f"tf-lottery: a process was killed by signal {number}. What is done is kept, and the same command "
        "goes on from there. If memory ran out, lower --jobs.\n"
    )


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Has a process that is started here not hear Ctrl-C: it ends with its parent, which says so once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[str, str]:
    # The number of threads is the same as in a single process, on fewer cores: how many parts TensorFlow
    # adds a sum up in, and so its last bits, depends on it.
    threads = {_THREADS: str(len(_cores()))}
    # What is imported here is imported there, whatever this process was started as.
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return {**threads, **os.environ, "PYTHONPATH": path}


def _cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _live_line(networks: int) -> tqdm.tqdm:
    return tqdm.tqdm(
        total=networks,
        unit=" networks",
        disable=None,
        leave=False,
        dynamic_ncols=True,
        file=sys.stdout,
        bar_format="{n_fmt} of {total_fmt} networks |{bar:20}| {percentage:3.0f} %, {remaining} left",
    )
