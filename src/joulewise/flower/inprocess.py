"""Engines: a Grid that calls the ClientApp in this process, and Flower's simulation on Ray.

Every name of Flower that is private or deprecated is used here and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar
from uuid import uuid4

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from joulewise.errors import FederationError, JoulewiseError, MissingExtra
from joulewise.flower import wire

Item = TypeVar("Item")

RUN_ID = 1
APP_RAISED = 2  # Flower's code for an exception of a ClientApp


class InProcessGrid(Grid):
    """Delivers each message by calling the ClientApp, one after another. Node i + 1 holds partition i.

    Args:
        client_app: the app of every client.
        nodes: number of clients.
        raising: an exception of the app reaches the caller as it is; otherwise it becomes an error reply, as on
            Flower's own engines.
    """

    def __init__(self, client_app: ClientApp, nodes: int, *, raising: bool = True) -> None:
        _identify_process()
        self._app = client_app
        self._raising = raising
        self._contexts = {
            partition + 1: Context(
                run_id=RUN_ID,
                node_id=partition + 1,
                node_config={"partition-id": partition, "num-partitions": nodes},
                state=RecordDict(),
                run_config={},
            )
            for partition in range(nodes)
        }

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Call the app with each message, and return what it answers."""
        del timeout  # A call returns when it is done.
        return [self._deliver(message) for message in messages]

    def get_node_ids(self) -> list[int]:
        """All nodes: 1 to the number of clients."""
        return list(self._contexts)

    def _deliver(self, message: Message) -> Message:
        # Flower's own Grids set the id of a message in place when they send it.
        message.metadata.__dict__["_message_id"] = uuid4().hex
        # Each side has records of its own, as over a network: what one changes, the others do not see.
        own = Message(content=_own(message.content), metadata=message.metadata)  # type: ignore[call-overload]
        try:
            reply = self._app(own, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            if self._raising:
                raise
            return Message(Error(APP_RAISED, f"{type(error)}:<'{error}'>"), reply_to=message)
        if reply.has_content():
            reply.content = _own(reply.content)
        return reply

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Not needed: make a Message directly."""
        raise _unsupported("create_message")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Not needed: use `send_and_receive`."""
        raise _unsupported("push_messages")

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Not needed: use `send_and_receive`."""
        raise _unsupported("pull_messages")

    def set_run(self, run: Any) -> None:
        """There is one run."""

    @property
    def run(self) -> Any:
        """There is no SuperLink that knows of a run."""
        raise _unsupported("run")


def _own(content: RecordDict) -> RecordDict:
    own = content.copy()
    for key, record in content.items():
        own[key] = wire.parsed(record) if isinstance(record, ArrayRecord) else record.copy()
    return own


def _unsupported(name: str) -> FederationError:
    return FederationError(f"the in-process grid has no {name}; use send_and_receive, or engine 'ray'")


def _identify_process() -> None:
    """Flower from 1.38 on stamps messages with the identity of the process's task, which its engines set."""
    try:
        from flwr.supercore.task_identity import TaskIdentity  # noqa: PLC0415 (absent before 1.38)
    except ImportError:
        return
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 1, 1


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Flower logs every round and every error; a study has its own display, and errors reach its caller."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def simulated(
    serve: Callable[[Grid], Iterator[Item]], client_app: ClientApp, nodes: int, gpus: float
) -> Generator[Item, None, None]:
    """As `simulate`, but yields what `serve` yields: Flower calls the server's side, a queue turns that round.

    Args:
        serve: what the server does with the Grid that it is given.
        client_app: the app of every client.
        nodes: number of clients.
        gpus: share of a GPU for each client.
    """
    done: queue.Queue[Item | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def main(grid: Grid) -> None:
        for item in serve(grid):
            done.put(item)

    def run() -> None:
        try:
            simulate(main, client_app, nodes, gpus, stop)
            done.put(None)
        except BaseException as error:  # Handed to the caller's thread, which raises it.
            done.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := done.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        # Also when the caller wants no more rounds, or pressed Ctrl-C: no process of Ray is left behind.
        stop.set()
        thread.join()


def simulate(
    main: Callable[[Grid], None], client_app: ClientApp, nodes: int, gpus: float, stop: threading.Event
) -> None:
    """Run `main` as a ServerApp on Flower's simulation, with Ray; returns when it is done.

    Args:
        main: what the server does.
        client_app: the app of every client.
        nodes: number of clients.
        gpus: share of a GPU for each client.
        stop: once set, the simulation ends as soon as the clients at work are done.

    Raises:
        MissingExtra: Ray is not installed.
        FederationError: the simulation failed, or was stopped.
    """
    try:
        import ray  # noqa: F401, PLC0415 (heavy, and only this engine needs it)
        from flwr.simulation import run_simulation  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("ray", "The ray engine") from error
    server_app = ServerApp()

    @server_app.main()
    def entry(grid: Grid, context: Context) -> None:
        del context
        # While it waits for replies, Flower's Grid asks for them again and again.
        pull = grid.pull_messages

        def pull_until_stopped(message_ids: Iterable[str]) -> Iterable[Message]:
            if stop.is_set():
                raise FederationError("the simulation was stopped")
            return pull(message_ids)

        grid.pull_messages = pull_until_stopped  # type: ignore[method-assign]
        main(grid)

    backend: dict[str, Any] = {
        "client_resources": {"num_cpus": 1, "num_gpus": gpus},
        "init_args": {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False},
    }
    path = os.environ.get("PYTHONPATH")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_simulation(server_app, client_app, nodes, backend_config=backend)
    except JoulewiseError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise FederationError(f"Flower's simulation on Ray failed: {cause}") from error
    finally:
        stop.set()  # Otherwise a server whose clients never came up would wait for them for ever.
        # Flower writes its whole path there, for the processes of Ray.
        os.environ.pop("PYTHONPATH", None)
        if path is not None:
            os.environ["PYTHONPATH"] = path
