"""Operation of a server: the accounts of the guide, and the data that the server reports."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats import NatsComponent
from cloud_runtimes.errors import NotFoundError, PermissionDeniedError
from tests.support import Make
from tests.support.nats import Serve
from tests.support.nats_other import Other
from tests.support.ports import reserved_port

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "move-to-nats.md"


def _configuration() -> str:
    match = re.search(r"^```text\n(listen: .*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[1]


def _use(one: CloudRuntimesClient) -> None:
    one.state.save("s", "order", {"total": 1})
    assert "order" in one.state.list_keys("s")
    with one.state.transaction("s") as tx:
        tx.save("a", 1, ttl=60)
        tx.delete("b")
    one.configuration.save_configuration("c", {"colour": "red"})
    with one.configuration.subscribe_configuration("c", ["colour"]) as feed:
        assert next(iter(feed))["colour"].value == "red"
    with one.lock.hold("l", "printer") as lease:
        one.state.save("s", "fenced", 1, fence=lease.token)
    if "pubsub" in NatsComponent.services:
        one.pubsub.publish("bus", "orders", 1)
        with one.pubsub.subscribe("bus", "orders", start="earliest") as subscription:
            event = subscription.receive(5.0)
            assert event is not None
            event.ack()
    if "file" in NatsComponent.services:
        one.file.put_file("f", "a.txt", b"x" * 300_000)
        one.file.put_file("f", "a.txt", b"y")
        assert one.file.get_file("f", "a.txt") == b"y"


def test_the_accounts_of_the_guide(served: Serve, client: Make) -> None:
    with reserved_port() as port:
        server = served(text=f'http: "127.0.0.1:{port}"\n{_configuration()}')
        where = server.url.partition("://")[2]
        owner, shop = f"nats://owner:owner-secret@{where}", f"nats://shop:shop-secret@{where}"
        with client(owner) as one:
            _use(one)
        with client(shop, ensure="check") as one:
            _use(one)
            with pytest.raises(NotFoundError, match="no bucket"):
                one.state.save("new", "k", 1)
        with client(shop) as one, pytest.raises(PermissionDeniedError):
            one.state.save("new", "k", 1)
        answers = {}
        for path in re.findall(r"http://127\.0\.0\.1:8222(/[^']*)'", GUIDE.read_text(encoding="utf-8")):
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
                answers[path] = json.load(reply)
        assert answers["/healthz"] == {"status": "ok"}
        assert "KV_cr-state-s" in json.dumps(answers["/jsz?acc=SHOP&streams=true&consumers=true"])

        server.stop()
        shutil.copytree(server.folder / "jetstream", server.folder / "backup")
        server.start()
        with client(shop, ensure="check") as one:
            one.state.delete("s", "order")
        server.stop()
        shutil.rmtree(server.folder / "jetstream")
        shutil.move(server.folder / "backup", server.folder / "jetstream")
        server.start()
        with client(shop, ensure="check") as one:
            assert one.state.get("s", "order") == {"total": 1}


@pytest.mark.parametrize(("limits", "most"), [("enabled", 100_000), ("{max_consumers: 50}", -1)])
def test_a_stream_takes_as_many_groups_as_its_account(limits: str, most: int, served: Serve, client: Make) -> None:
    account = f"{{jetstream: {limits}, users: [{{user: a, password: a}}]}}"
    text = f"listen: 0.0.0.0:4222\nno_auth_user: a\njetstream {{store_dir: /var/lib/nats}}\naccounts {{A: {account}}}\n"
    server = served(text=text)
    with client(server.url) as one, closing(Other(server.port, "cr")) as other:
        one.pubsub.publish("bus", "orders", 1)
        assert other.api("STREAM.INFO")["config"]["max_consumers"] == most
