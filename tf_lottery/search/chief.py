"""KerasTuner's chief and its workers, such that none waits for ever.

KerasTuner's own chief waits without end for a worker that died. Here a worker tells every few seconds that
it lives, and the trial of one that has fallen silent is given to another, which goes on in its run directory.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief

SILENCE = 60.0  # seconds after which a worker that is not heard of is taken for dead
PATIENCE = 600.0  # seconds that a chief waits for workers, and a worker for its chief
BEAT = 5.0  # seconds from one sign of life of a worker to the next
_PAUSE = 0.5


class _Servicer(oracle_chief.OracleServicer):
    """Answers the workers, one request after the other.

    Args:
        oracle: says what is tried next.
        ended: is told the id of each trial that has ended.
        say: prints a line.
    """

    def __init__(self, oracle: keras_tuner.Oracle, ended: Callable[[str], None], say: Callable[[str], None]):
        super().__init__(oracle)
        self.heard: dict[str, float] = {}
        self._ended, self._say = ended, say

    def CreateTrial(self, request: Any, context: Any) -> Any:
        self.heard[request.tuner_id] = time.monotonic()
        self._take_back()
        response = super().CreateTrial(request, context)
        status = protos.get_proto().TrialStatus
        if response.trial.status == status.STOPPED and self.oracle.ongoing_trials:
            # It may have to take over what another leaves.
            self.oracle.tuner_ids.add(request.tuner_id)
            response.trial.status = status.IDLE
        return response

    def GetTrial(self, request: Any, context: Any) -> Any:
        for tuner_id, trial in self.oracle.ongoing_trials.items():
            if trial.trial_id == request.trial_id:
                self.heard[tuner_id] = time.monotonic()
        return super().GetTrial(request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:
        if self.oracle.trials[request.trial.trial_id].status in ("COMPLETED", "FAILED"):
            # By one that was taken for dead, and by the one that took its trial over.
            return protos.get_service().EndTrialResponse()
        response = super().EndTrial(request, context)
        self._ended(request.trial.trial_id)
        return response

    def silent(self, tuner_id: str) -> bool:
        return time.monotonic() - self.heard.get(tuner_id, 0) > SILENCE

    def done(self) -> bool:
        """Whether every trial has ended, and every worker that lives knows that there are no more."""
        oracle = self.oracle
        left = oracle.ongoing_trials or not all(map(self.silent, tuple(oracle.tuner_ids)))
        return self.stop_triggered and not left

    def _take_back(self) -> None:
        for tuner_id, trial in tuple(self.oracle.ongoing_trials.items()):
            if self.silent(tuner_id):
                del self.oracle.ongoing_trials[tuner_id]
                self.oracle.tuner_ids.discard(tuner_id)
                self.oracle._retry_queue.append(trial.trial_id)
                self._say(f"Worker {tuner_id!r} is silent: trial {trial.trial_id} goes to another.")


def serve(oracle: keras_tuner.Oracle, ended: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Hands out trials until the last has ended.

    Raises:
        OSError: the address cannot be served at, or no worker has been heard of for ten minutes.
    """
    servicer, began = _Servicer(oracle, ended, say), time.monotonic()
    # With one thread nothing happens at once.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    host, port = _address()
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(
            f"The chief cannot serve at {host}:{port}: is it in use? Set KERASTUNER_ORACLE_IP and "
            "KERASTUNER_ORACLE_PORT to a free address of this machine."
        ) from error
    server.start()
    say(f"The chief hands out trials at {host}:{port}.")
    try:
        while not servicer.done():
            time.sleep(_PAUSE)
            if time.monotonic() - max(servicer.heard.values(), default=began) > PATIENCE:
                raise TimeoutError(
                    f"No worker has been heard of for {PATIENCE:.0f} seconds. Start the chief again, and "
                    "workers with the same command: they go on from what is done."
                )
    finally:
        server.stop(grace=1).wait()


def find_chief() -> None:
    """Waits until the chief answers.

    Raises:
        ConnectionError: it does not for ten minutes.
    """
    host, port = _address()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=BEAT).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"No chief answers at {host}:{port}. Start one, by the same command with "
                    "KERASTUNER_TUNER_ID=chief; if it has ended, all is done, or it says why not."
                ) from error
            time.sleep(_PAUSE)


@contextlib.contextmanager
def beating(oracle: Any, trial_id: str) -> Iterator[None]:
    """Tells the chief every five seconds that this worker is at its trial."""
    over = threading.Event()
    request = protos.get_service().GetTrialRequest(trial_id=trial_id)

    def beat() -> None:
        while not over.wait(BEAT):
            # A chief that is gone is missed when the trial has ended.
            with contextlib.suppress(grpc.RpcError):
                oracle.stub.GetTrial(request, timeout=BEAT)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what gRPC raises in a worker into an error for people."""
    try:
        yield
    except grpc.RpcError as error:
        raise ConnectionError(
            f"The chief at {':'.join(_address())} does not answer as it should: {error.details()}. What it "
            "prints says more; the same commands go on from what is done."
        ) from error


def pause() -> None:
    """Lets a moment go by: KerasTuner asks a chief that has no trial yet again at once."""
    time.sleep(_PAUSE)


def _address() -> tuple[str, str]:
    return os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"]
