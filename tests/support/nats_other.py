"""Another program beside ours on NATS, which speaks its protocol itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events as kernel
from cloud_runtimes.components.nats.protocol import Message, Session, publish
from cloud_runtimes.spi.pubsub import OutgoingBatch
from tests.support.harnesses.nats import NatsHome

__all__ = ["Other", "batch", "beside", "on", "payloads"]


class Other:
    """Another program: bytes of NATS' protocol, and JetStream's API."""

    def __init__(self, port: int, prefix: str) -> None:
        self.prefix = prefix
        self.stream = f"{prefix}-pubsub-bus"
        self._session = Session()
        self._got: list[Message] = []
        self._session.callbacks[1] = self._got.append
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB _INBOX.other 1\r\n')

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self, count: int = 1) -> list[Message]:
        while len(self._got) < count:
            data = self._socket.recv(1 << 20)
            assert data, self._session.error
            self._session.feed(data)
        messages, self._got[:] = self._got[:count], self._got[count:]
        return messages

    def ask(self, subject: str, data: bytes = b"", **headers: str) -> Message:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(publish(subject, data, b"_INBOX.other", given))
        return self.hear()[0]

    def api(self, verb: str, body: Any = None, rest: str = "") -> Any:
        answer = self.ask(f"$JS.API.{verb}.{self.stream}{rest}", b"" if body is None else json.dumps(body).encode())
        return json.loads(answer.data)

    def subject(self, topic: str = "t") -> str:
        return f"{self.prefix}.bus.t.{topic}"

    def publish(self, data: bytes, topic: str = "t", **headers: str) -> Any:
        return json.loads(self.ask(self.subject(topic), data, **headers).data)

    def stored(self, subject: str | None = None) -> int:
        state = self.api("STREAM.INFO", {"subjects_filter": ">"})["state"]
        return int(state["messages"] if subject is None else state.get("subjects", {}).get(subject, 0))

    def pending(self, consumer: str = "suite=t") -> int:
        """Return how many messages a group has not settled, those that come again among them."""
        count = 0
        for name in (consumer, f"{consumer}=again"):
            info = self.api("CONSUMER.INFO", None, f".{name}")
            count += info["num_pending"] + info["num_ack_pending"]
        return count

    def counter(self, what: str, group: str = "suite", topic: str = "t") -> int:
        subject = f"{self.prefix}-counters.bus.{what}.{group}.{topic}"
        answer = self.ask(f"$JS.API.DIRECT.GET.{self.prefix}-counters.{subject}")
        return int(json.loads(answer.data)["val"]) if answer.data else 0

    def pull(self, consumer: str, count: int) -> list[Message]:
        body = json.dumps({"batch": count, "expires": 5_000_000_000}).encode()
        self.send(publish(f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{consumer}", body, b"_INBOX.other"))
        return self.hear(count)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def beside(port: int, prefix: str = "cr") -> Iterator[Other]:
    other = Other(port, prefix)
    try:
        yield other
    finally:
        other.close()


def on(home: NatsHome, **settings: Any) -> CloudRuntimesClient:
    given = {"url": home.server.url, "prefix": home.prefix, **settings}
    client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": given}})
    home._clients.append(client)
    return client


def payloads(deliveries: list[Any]) -> list[bytes]:
    return [each.record.payload for each in deliveries]


def batch(topic: str, *numbers: int) -> OutgoingBatch:
    records = [kernel.encode_record(b"%d" % number, "application/json") for number in numbers]
    return OutgoingBatch(topic, [kernel.build_frame("suite", "t", topic, records)], len(records))
