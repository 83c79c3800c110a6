"""Sends to another machine, and the other end of them: payloads over TCP that are read, counted and acknowledged.

A message is ``JWS1``, the length of the payload as a little-endian u32, and the payload; its answer is the length
again. A connection carries any number of messages, one after the other. The sink keeps nothing of them.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator

import msgspec

from joulewise.errors import ArgumentError, CalibrationError

MAGIC = b"JWS1"
HEADER = struct.Struct("<4sI")
ANSWER = struct.Struct("<I")
LARGEST_BYTES = 1 << 30
CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30.0


class Address(msgspec.Struct, frozen=True):
    """Where a sink listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Served(msgspec.Struct, frozen=True):
    """What one connection brought.

    Args:
        peer: who sent.
        messages: how many.
        payload_bytes: of all of them.
        fault: why the connection was closed early; empty when the sender closed it.
    """

    peer: str
    messages: int
    payload_bytes: int
    fault: str


def parse_address(text: str) -> Address:
    """``HOST:PORT``, or ``[HOST]:PORT`` for an IPv6 address.

    Raises:
        ArgumentError: it is something else.

    Example:
        >>> str(parse_address("192.0.2.7:9000")), parse_address("[::1]:9000").host
        ('192.0.2.7:9000', '::1')
    """
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]\s]+)):(\d{1,5})", text)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ArgumentError(
            f"--sink is {text!r}, expected HOST:PORT with a port from 1 to 65535, such as 192.0.2.7:9000"
        )
    return Address(found[1] or found[2], int(found[3]))


# ---------------------------------------------------------------- the machine that sends


def connect(address: Address) -> socket.socket:
    """A connection to a sink.

    Raises:
        CalibrationError: nobody answers there.
    """
    try:
        connection = socket.create_connection((address.host, address.port), timeout=TIMEOUT_S)
    except OSError as error:
        raise CalibrationError(
            f"no connection to sink {address}: {error.strerror or error}; run `joulewise calibrate --serve "
            f"{address.port}` on that machine and let TCP port {address.port} through"
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def send(connection: socket.socket, payload: bytes, address: Address) -> None:
    """Send one payload and wait until the sink says that it has all of it.

    Raises:
        CalibrationError: the sink went away, or answers something else.
    """
    try:
        connection.sendall(HEADER.pack(MAGIC, len(payload)))
        connection.sendall(payload)
        answer = _receive(connection, ANSWER.size)
    except OSError as error:
        raise CalibrationError(
            f"sink {address} went away: {error.strerror or error}; start it and this again"
        ) from error
    if answer != ANSWER.pack(len(payload)):
        raise CalibrationError(
            f"{address} does not answer as a sink does; see that `joulewise calibrate --serve {address.port}` runs "
            "there"
        )


# ---------------------------------------------------------------- the machine that receives


def listen(port: int) -> socket.socket:
    """A socket that listens on every interface of this machine.

    Args:
        port: 0 takes a free one.

    Raises:
        CalibrationError: the port is taken, or may not be used.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise CalibrationError(
            f"--serve cannot listen on port {port}: {error.strerror or error}; try another"
        ) from error


def serve(server: socket.socket) -> Iterator[Served]:
    """Take connections for ever, one at a time, and yield what each brought once it is closed.

    A connection that says something else than a sender, or nothing for half a minute, is closed.
    """
    while True:
        connection, peer = server.accept()
        with connection:
            connection.settimeout(TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield _served(connection, str(peer[0]).removeprefix("::ffff:"))


def _served(connection: socket.socket, peer: str) -> Served:
    messages = payload_bytes = 0
    buffer = bytearray(CHUNK_BYTES)
    while True:
        try:
            header = _receive(connection, HEADER.size)
            if not header:
                return Served(peer, messages, payload_bytes, "")
            fault = _fault(header)
            if not fault:
                fault = _drain(connection, HEADER.unpack(header)[1], buffer)
        except OSError as error:
            fault = str(error.strerror or error)
        if fault:
            return Served(peer, messages, payload_bytes, fault)
        messages, payload_bytes = messages + 1, payload_bytes + HEADER.unpack(header)[1]


def _fault(header: bytes) -> str:
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        return "not a sender of joulewise"
    size = HEADER.unpack(header)[1]
    return f"a payload of {size} bytes, more than {LARGEST_BYTES}" if size > LARGEST_BYTES else ""


def _drain(connection: socket.socket, size: int, buffer: bytearray) -> str:
    left, view = size, memoryview(buffer)
    while left:
        got = connection.recv_into(view[: min(left, len(buffer))])
        if not got:
            return f"closed {left} bytes before the end of a payload"
        left -= got
    connection.sendall(ANSWER.pack(size))
    return ""


def _receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or fewer where the other side closed."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)
