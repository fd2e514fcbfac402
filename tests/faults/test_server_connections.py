"""Connections to servers that we speak to ourselves: a server that keeps sending delays nobody, and one that does not read costs no memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import monotonic

import pytest

from cloud_runtimes.components._net.connections import ConnectionLost, Servers
from cloud_runtimes.components._net.partial import Partial
from cloud_runtimes.components.rabbitmq.connection import Connection
from cloud_runtimes.components.rabbitmq.settings import parse_url


@pytest.fixture
def connection() -> Iterator[Connection]:
    """A connection of which something can be read, for ever."""
    address = parse_url("amqp://h:1")
    connected, other = Connection(address, Servers(address.servers), "test"), None
    connected._socket, other = socket.socketpair()
    with other:
        other.sendall(b"\x08")
        yield connected
        connected.close()


def test_a_deadline_that_has_passed(connection: Connection) -> None:
    """It is told also where there is something to read."""
    assert connection.wait(monotonic() + 10)
    assert connection.wait(None)
    assert not connection.wait(monotonic() - 1)


def test_what_has_arrived(connection: Connection) -> None:
    """It is read without waiting, and not for ever."""
    assert 1 < sum(1 for _ in connection.arrived()) < 100
    connection.receive()
    assert not list(connection.arrived())


def test_answers_that_a_server_does_not_read(connection: Connection) -> None:
    for _ in range(10):
        connection.owe(1 << 20, False)
    with pytest.raises(ConnectionLost, match="asks and does not read"):
        connection.owe(1, True)


def test_pieces_are_joined_once() -> None:
    kept = Partial()
    kept.keep(b"a", 5)
    assert [kept.add(each) for each in (b"b", b"", b"cd")] == [b"", b"", b""]
    assert kept.size == 4
    assert kept.add(b"ef") == b"abcdef"
    assert kept.size == 0
