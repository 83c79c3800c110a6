"""Tasks in several processes, one at a time in each; rows come back as they are made."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import msgspec

from joulewise import errors
from joulewise.errors import FederationError, JoulewiseError
from joulewise.results import Row
from joulewise.task import Diverged, Setup, Task, perform

_STOP_SECONDS = 5.0


class Made(msgspec.Struct, frozen=True, tag=True):
    """A row, which is in the row file already."""

    row: Row


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker waits for a task."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The task ended with an exception."""

    kind: str
    message: str
    trace: str


Message = Made | Diverged | Ready | Failed
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def perform_all(tasks: Sequence[Task], setup: Setup, jobs: int) -> Generator[Row | Diverged, None, None]:
    """Run tasks in `jobs` processes; yield what `perform` yields of each.

    The processes are spawned, so a script that calls this needs ``if __name__ == "__main__":``.

    Raises:
        JoulewiseError: a task failed, as it would have in this process; the other workers are stopped.
    """
    waiting = iter(range(len(tasks)))
    workers: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(min(jobs, len(tasks))):
            connection, process = _start(tasks, setup)
            workers[connection] = process
        while workers:
            for connection in [one for one in wait(list(workers)) if isinstance(one, Connection)]:
                message = _receive(connection, workers[connection])
                if isinstance(message, Made):
                    yield message.row
                elif isinstance(message, Diverged):
                    yield message
                elif isinstance(message, Failed):
                    raise _failure(message)
                elif (number := next(waiting, None)) is not None:
                    _give(connection, workers[connection], number)
                else:
                    _finish(connection, workers.pop(connection))
    finally:
        _stop(workers)


def _start(tasks: Sequence[Task], setup: Setup) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, tasks, setup), name="joulewise worker", daemon=True)
    with _interrupts_held():
        process.start()
    theirs.close()  # otherwise a worker's death would not end the pipe
    return ours, process


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back: a new process inherits that, and would show a traceback of it before `_work` begins."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(connection: Connection, process: BaseProcess) -> Message:
    try:
        return _decoder.decode(connection.recv_bytes())
    except (EOFError, ConnectionError):
        raise _killed(process) from None


def _give(connection: Connection, process: BaseProcess, number: int) -> None:
    try:
        connection.send_bytes(str(number).encode())
    except ConnectionError:
        raise _killed(process) from None


def _killed(process: BaseProcess) -> FederationError:
    process.join(_STOP_SECONDS)
    return FederationError(
        f"a worker process was killed (exit code {process.exitcode}), perhaps for want of memory; "
        "rows so far are kept: go on with --resume and fewer --jobs"
    )


def _failure(message: Failed) -> Exception:
    kind = getattr(errors, message.kind, None)
    if isinstance(kind, type) and issubclass(kind, JoulewiseError):
        error = kind.__new__(kind, message.message)
        error.args = (message.message,)  # past __init__, whose arguments are not known here
    else:
        error = FederationError(f"a worker process failed with {message.kind}: {message.message}")
    error.add_note(message.trace)
    return error


def _finish(connection: Connection, process: BaseProcess) -> None:
    connection.close()  # tells the worker that there is nothing left
    process.join()


def _stop(workers: dict[Connection, BaseProcess]) -> None:
    for process in workers.values():
        process.terminate()
    for connection, process in workers.items():
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        connection.close()


# ---------------------------------------------------------------- in the worker


def _work(connection: Connection, tasks: Sequence[Task], setup: Setup) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _send(connection, Ready())
            task = tasks[int(connection.recv_bytes())]
            try:
                for item in perform(task, setup):
                    _send(connection, item if isinstance(item, Diverged) else Made(item))
            except Exception as error:  # whatever it is, the parent has to hear of it
                _send(connection, Failed(type(error).__name__, str(error), traceback.format_exc()))
                return


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)  # without its parent, a worker would go on writing into a folder that a resumed run uses


def _send(connection: Connection, message: Message) -> None:
    connection.send_bytes(msgspec.json.encode(message))
