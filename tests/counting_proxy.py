"""A TCP proxy on loopback that counts what crosses it, whatever it is: HTTP, or TLS around it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Counted:
    """What has crossed so far.

    Args:
        up: bytes from those who connect.
        down: bytes to them.
        connections: how many were made.
        exchanges: how often one of them spoke after having been answered: HTTP/1.1 requests, and a TLS handshake for
            each connection.
    """

    up: int = 0
    down: int = 0
    connections: int = 0
    exchanges: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def copy(self) -> Counted:
        """The numbers as they are now."""
        with self.lock:
            return Counted(self.up, self.down, self.connections, self.exchanges)

    def since(self, earlier: Counted) -> Counted:
        """What has crossed since then."""
        now = self.copy()
        return Counted(
            now.up - earlier.up,
            now.down - earlier.down,
            now.connections - earlier.connections,
            now.exchanges - earlier.exchanges,
        )


class CountingProxy:
    """Forwards connections from a port of its own to another one of 127.0.0.1.

    Args:
        target: where to.

    Attributes:
        port: where it listens.
        counted: what has crossed so far.
    """

    def __init__(self, target: int) -> None:
        self.counted = Counted()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and end all connections."""
        for each in (self._listener, *list(self._open)):
            _hang_up(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # Closed.
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # Nobody listens there: the client sees its connection end.
            _hang_up(client)
            return
        with self.counted.lock:
            self.counted.connections += 1
        self._open |= {client, server}
        answered = threading.Event()
        answered.set()
        back = threading.Thread(target=self._pump_down, args=(server, client, answered), daemon=True)
        back.start()
        self._pump_up(client, server, answered)
        back.join()
        self._open -= {client, server}

    def _pump_up(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        for data in _chunks(client):
            with self.counted.lock:
                self.counted.up += len(data)
                self.counted.exchanges += answered.is_set()
            answered.clear()
            with contextlib.suppress(OSError):
                server.sendall(data)
        _hang_up(server)

    def _pump_down(self, server: socket.socket, client: socket.socket, answered: threading.Event) -> None:
        for data in _chunks(server):
            answered.set()
            with self.counted.lock:
                self.counted.down += len(data)
            with contextlib.suppress(OSError):
                client.sendall(data)
        _hang_up(client)


def _chunks(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            yield data


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def counting(target: int) -> Iterator[CountingProxy]:
    """A proxy as long as the block runs."""
    proxy = CountingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
