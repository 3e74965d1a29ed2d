"""Jobs side by side: a thread for each worker hands it one job after the other, and begins a new worker where one died."""

from __future__ import annotations

import dataclasses
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from clipvet.cli.jobs import Do, Job, Outcome, Worker, WorkerDiedError, portable
from clipvet.errors import UnreadableError

__all__ = ["TRIES", "LocalWorker", "outcomes"]

TRIES = 3  # of a delivery: there are some that kill whoever reads them


def outcomes(jobs: Sequence[Job], begin: Callable[[], Worker], workers: int) -> Generator[tuple[int, Outcome], None, None]:
    """Do jobs in several workers and yield (place, outcome) as they are finished, in any order.

    A job whose worker dies is done again, from the state that it left, by a new worker; after three deaths its outcome is an error.
    When the iterator is closed, the workers are ended, whatever they are doing.

    Args:
        jobs: what is to be done.
        begin: begins a worker.
        workers: how many at most.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(jobs)):
        waiting.put(place)
    finished: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = queue.SimpleQueue()
    hands = [_Hand(jobs, begin, waiting, finished) for _ in range(min(workers, len(jobs)))]
    try:
        for hand in hands:
            hand.start()
        for _ in jobs:
            place, outcome = finished.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield place, outcome
    finally:
        for hand in hands:
            hand.stop()


class _Hand(threading.Thread):
    """Takes jobs off a queue and has one worker do them."""

    def __init__(
        self,
        jobs: Sequence[Job],
        begin: Callable[[], Worker],
        waiting: queue.SimpleQueue[int],
        finished: queue.SimpleQueue[tuple[int, Outcome | BaseException]],
    ) -> None:
        super().__init__(daemon=True)
        self._jobs, self._begin, self._waiting, self._finished = jobs, begin, waiting, finished
        self._worker: Worker | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        with suppress(queue.Empty):
            while not self._stopped.is_set():
                place = self._waiting.get_nowait()
                try:
                    self._finished.put((place, self._do(self._jobs[place])))
                except BaseException as error:  # nobody would hear of it in a thread
                    self._finished.put((place, error))
        self.stop()  # a worker that has nothing to do holds memory, and on a cluster a place that another waits for

    def _do(self, job: Job) -> Outcome:
        card = _state_of(job)
        for _ in range(TRIES):
            if self._worker is None:
                self._worker = self._begin()
            try:
                return self._worker.do(job)
            except WorkerDiedError as error:
                why = str(error)
            if self._stopped.is_set():
                break
            if _state_of(job) not in (None, card):  # this very run had begun to keep its state
                job = dataclasses.replace(job, options=dataclasses.replace(job.options, resume=True))
        message = (
            f"{job.delivery}: expected to inspect it in {TRIES} tries, but its worker died in each ({why}), often for want of "
            "memory: use fewer --workers, or a machine with more memory, and go on with --resume"
        )
        return Outcome(error=UnreadableError(message))

    def stop(self) -> None:
        self._stopped.set()
        if self._worker is not None:
            self._worker.close()


def _state_of(job: Job) -> tuple[int, int] | None:
    """What tells the card of a run's state from that of an earlier run; None where there is none."""
    if job.options.work is None:
        return None
    try:
        found = (job.options.work / "run.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class LocalWorker:
    """A process of this machine, begun with the first job.

    Args:
        do: what it does; pickled, so that its state is the process's own.
        threads: of torch.
    """

    def __init__(self, do: Do, threads: int) -> None:
        self._do, self._threads = do, threads
        self._process: SpawnProcess | None = None
        self._line: Connection | None = None

    def do(self, job: Job) -> Outcome:
        """Do one job; see :meth:`Worker.do`."""
        if self._process is None or self._line is None:
            self._line, theirs = get_context("spawn").Pipe()
            self._process = get_context("spawn").Process(target=_serve, args=(theirs, self._do, self._threads), daemon=True)
            self._process.start()
            theirs.close()  # so that the end of the process is the end of the line
        try:
            self._line.send(job)
            outcome = self._line.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code, self._process = self._process.exitcode, None
            raise WorkerDiedError(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}") from error
        assert isinstance(outcome, Outcome)
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()


def _serve(line: Connection, do: Do, threads: int) -> None:
    """The life of a worker process: jobs in, outcomes out, until the line ends."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    torch.set_num_threads(threads)
    with suppress(EOFError):
        while True:
            outcome = portable(do(line.recv()))
            # Pickled here, not by the line: torch would hand tensors over in shared memory, of which containers have little.
            line.send_bytes(pickle.dumps(outcome))
