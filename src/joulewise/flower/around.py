"""A Grid around another, which passes on what it does not change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid


class Around(Grid):
    """Hands over to the Grid within.

    Args:
        grid: the Grid within.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Any) -> None:
        """As the Grid within."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As the Grid within."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As the Grid within."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """As the Grid within."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the Grid within; use `send_and_receive`, which decodes."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the Grid within; use `send_and_receive`, which decodes."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As the Grid within."""
        return self._grid.send_and_receive(messages, timeout=timeout)
