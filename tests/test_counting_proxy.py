"""The proxy by which wire bytes are counted."""

import socket
import threading

from counting_proxy import counting


def answering(listener, answers):
    """Serve connections one after another: each request of 10 bytes gets an answer of 1,000."""
    for _ in range(answers):
        connection, _ = listener.accept()
        with connection:
            while connection.recv(10, socket.MSG_WAITALL):
                connection.sendall(bytes(1000))


def ask(port, times):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(times):
            connection.sendall(bytes(10))
            assert len(connection.recv(1000, socket.MSG_WAITALL)) == 1000


def test_bytes_of_both_directions_connections_and_exchanges_are_counted():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answering, args=(listener, 2))
        server.start()
        with counting(listener.getsockname()[1]) as proxy:
            ask(proxy.port, 3)
            before = proxy.counted.copy()
            ask(proxy.port, 4)
            later = proxy.counted.since(before)
        server.join(10)
        assert not server.is_alive()
    assert (before.up, before.down, before.connections, before.exchanges) == (30, 3000, 1, 3)
    assert (later.up, later.down, later.connections, later.exchanges) == (40, 4000, 1, 4)


def test_where_nobody_listens_the_connection_ends():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with counting(port) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.settimeout(10)
        assert connection.recv(1) == b""
        assert proxy.counted.connections == 0
