"""Answers of the dashboard over HTTP: views, changes with a token, metrics, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard.lags import EVERY, Lags
from cloud_runtimes.dashboard.openmetrics import Family
from cloud_runtimes.dashboard.operations import CHANGES, TOKEN_HEADER, Operations
from cloud_runtimes.dashboard.server import Viewer
from cloud_runtimes.pubsub import DropEvent, Event
from tests.support.waiting import until
from tests.telemetry.viewing import JSON, Reply, ask, viewing

TOKEN = "the-token"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    """A client whose group ``billing`` has dropped two of three orders."""

    def drop(event: Event[dict[str, int]]) -> None:
        if event.data["number"]:
            raise DropEvent(f"number {event.data['number']}")

    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as client:
        client.pubsub.publish_bulk("bus", "orders", [{"number": number} for number in range(3)])
        client.pubsub.subscribe("bus", "orders", group="mail").close()
        with client.pubsub.subscribe("bus", "orders", drop, group="billing", dead_letter_topic="dead"):
            assert until(lambda: client.pubsub.lag("bus", "orders", group="billing") == 0)
        yield client


@pytest.fixture
def viewer(client: CloudRuntimesClient, tmp_path: Path) -> Iterator[Viewer]:
    with viewing(tmp_path / "seen", operations=Operations(client, token=TOKEN)) as instance:
        yield instance


def answer(viewer: Viewer, question: str) -> Any:
    reply = ask(viewer, f"/api/operations/{question}")
    assert reply.status == 200, reply.body
    return reply.json()


def change(viewer: Viewer, method: str, secret: str | None = TOKEN, /, **arguments: Any) -> Reply:
    headers = JSON if secret is None else {**JSON, TOKEN_HEADER: secret}
    return ask(viewer, f"/api/changes/{method}", json.dumps(arguments).encode(), headers)


def test_views(client: CloudRuntimesClient, viewer: Viewer) -> None:
    status = ask(viewer, "/api/status").json()
    assert (status["telemetry"], status["operations"], status["changes"]) == (True, True, True)
    assert answer(viewer, "names?service=pubsub") == {"names": ["bus"]}
    overview = answer(viewer, "overview")["overview"]
    assert [(each["group"]["name"], each["group"]["lag"]) for each in overview["groups"]] == [
        ("mail", 3),
        ("billing", 0),
    ]
    assert [each["topic"]["name"] for each in overview["dead_letters"]] == ["dead"]
    assert [each["name"] for each in answer(viewer, "topics?store=bus")["topics"]] == ["dead", "orders"]
    groups = answer(viewer, "groups?store=bus&topic=orders")["groups"]
    assert [each["name"] for each in groups] == ["billing", "mail"]
    events = answer(viewer, "events?store=bus&topic=orders")["events"]
    assert [each["event"]["data"]["number"] for each in events] == [0, 1, 2]
    (letters,) = answer(viewer, "dead?store=bus&topic=dead")["dead"]
    assert (letters["group"], letters["reason"], letters["error"], letters["count"]) == (
        "billing",
        "dropped",
        "DropEvent",
        2,
    )
    assert letters["sample"]["event"]["dlgroup"] == "billing"


def test_other_services(client: CloudRuntimesClient, viewer: Viewer) -> None:
    client.state.save("carts", "one", {"total": 1})
    client.lock.try_lock("locks", "lamp", "worker")
    client.schedule.schedule_job("nightly", schedule="@daily")
    stores = [(each["service"], each["name"]) for each in answer(viewer, "stores")["stores"]]
    assert stores == [("state", "carts"), ("lock", "locks"), ("pubsub", "bus")]
    assert answer(viewer, "keys?store=carts") == {"keys": ["one"]}
    assert answer(viewer, "value?store=carts&key=one")["value"]["value"] == '{"total":1}'
    (lock,) = answer(viewer, "locks?store=locks")["locks"]
    assert lock["owner"] == "worker"
    (job,) = answer(viewer, "jobs")["jobs"]
    assert (job["name"], job["paused"]) == ("nightly", False)
    assert change(viewer, "break_lock", store_name="locks", resource_id="lamp", token=lock["token"]).status == 200
    assert answer(viewer, "locks?store=locks") == {"locks": []}
    assert change(viewer, "pause_job", name="nightly", app_id="shop").status == 200
    assert answer(viewer, "jobs")["jobs"][0]["paused"] is True


def test_files_and_configuration(client: CloudRuntimesClient, viewer: Viewer, tmp_path: Path) -> None:
    client.file.put_file("reports", "2026/a.csv", b"a,b\n" + b"\xff" * 100_000)
    client.file.put_file("reports", "b.txt", b"b")
    listed = answer(viewer, "files?store=reports")["files"]
    assert [each["name"] for each in listed] == ["2026/", "b.txt"]
    assert (listed[1]["size"], listed[1]["modified"][:2]) == (1, "20")
    assert [each["name"] for each in answer(viewer, "files?store=reports&prefix=2026/")["files"]] == ["2026/a.csv"]
    assert [each["name"] for each in answer(viewer, "files?store=reports&after=2026/")["files"]] == ["b.txt"]
    about = answer(viewer, "file?store=reports&name=2026/a.csv")["file"]
    assert (about["size"], about["content"]) == (100_004, None)
    content = answer(viewer, "file?store=reports&name=2026/a.csv&content=1")["file"]["content"]
    assert content == "a,b\n" + "\ufffd" * ((64 << 10) - 4)
    assert ask(viewer, "/api/operations/file?store=reports&name=absent").status == 404
    given = {
        "timeout": "5",
        "db.password": "a",
        "url": "redis://me:b@host",
        "a.b/api_key": "c",
        "page": "https://x/y:z",
    }
    client.configuration.save_configuration("settings", given)
    items = {each["key"]: each["value"] for each in answer(viewer, "items?store=settings")["items"]}
    assert items == {**dict.fromkeys(given), "timeout": "5", "page": "https://x/y:z"}
    assert [each["key"] for each in answer(viewer, "items?store=settings&prefix=t")["items"]] == ["timeout"]
    with viewing(tmp_path / "hidden", operations=Operations(client, hide_payloads=True)) as hidden:
        assert {each["value"] for each in answer(hidden, "items?store=settings")["items"]} == {None}
        assert answer(hidden, "file?store=reports&name=b.txt&content=1")["file"]["content"] is None


def test_changes(client: CloudRuntimesClient, viewer: Viewer) -> None:
    letters = {"pubsub_name": "bus", "topic": "dead"}
    counted = change(viewer, "redrive", **letters, group="billing", dry_run=True)
    assert counted.json() == {"result": {"count": 2, "remaining": 0}}
    assert client.pubsub.lag("bus", "orders", group="billing") == 0
    assert change(viewer, "redrive", **letters, group="billing", limit=1).json()["result"]["count"] == 1
    assert client.pubsub.lag("bus", "orders", group="billing") == 1
    assert change(viewer, "discard", **letters).json() == {"result": 1}
    group = {"pubsub_name": "bus", "topic": "orders", "group": "mail"}
    assert change(viewer, "pause", **group).json() == {"result": None}
    assert answer(viewer, "groups?store=bus&topic=orders")["groups"][1]["paused"] is True
    assert change(viewer, "seek", **group, to="2025-01-15T09:00:00Z").status == 200
    assert change(viewer, "delete_group", **group).json() == {"result": 3}
    assert change(viewer, "purge", pubsub_name="bus", topic="orders").json() == {"result": 3}


@pytest.mark.parametrize("token", [None, "", "another", TOKEN + "x", "ü"])
def test_no_change_without_the_token(client: CloudRuntimesClient, viewer: Viewer, token: str | None) -> None:
    for method in CHANGES:
        reply = change(viewer, method, token and token.encode().decode("latin-1"), pubsub_name="bus", topic="dead")
        assert (reply.status, "token" in reply.json()["message"]) == (403, True)
    assert len(client.admin.peek("bus", "dead")) == 2


def test_a_dashboard_that_only_shows(client: CloudRuntimesClient, tmp_path: Path) -> None:
    with viewing(tmp_path / "seen", operations=Operations(client)) as viewer:
        assert ask(viewer, "/api/status").json()["changes"] is False
        reply = change(viewer, "purge", pubsub_name="bus", topic="orders")
        assert (reply.status, "--allow-changes" in reply.json()["message"]) == (403, True)
        assert answer(viewer, "topics?store=bus")["topics"]


def test_wrong_requests_are_refused(viewer: Viewer) -> None:
    for path, status in (
        ("/api/operations/nothing", 404),
        ("/api/operations/groups?store=bus", 400),
        ("/api/operations/names", 400),
        ("/api/operations/events?store=bus&topic=orders&group=absent", 404),
        ("/api/operations/value?store=carts&key=absent", 404),
        ("/api/changes/purge", 405),
        ("/scale", 400),
    ):
        assert ask(viewer, path).status == status, path
    assert change(viewer, "topics", pubsub_name="bus").status == 400
    assert change(viewer, "purge", pubsub_name="bus", topic="orders", undo="/tmp/file").status == 400
    assert change(viewer, "seek", pubsub_name="bus", topic="orders", group="mail", to="soon").status == 400
    assert change(viewer, "pause", pubsub_name="bus", topic="orders", group="absent").status == 404
    assert ask(viewer, "/api/changes/purge", b"[1]", {**JSON, TOKEN_HEADER: TOKEN}).status == 400
    assert ask(viewer, "/api/changes/purge", b"{", {**JSON, TOKEN_HEADER: TOKEN}).status == 400
    assert ask(viewer, "/api/changes/purge", b"{}", {TOKEN_HEADER: TOKEN}).status == 415


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}, {"origin": "null"}],
)
def test_other_origins_get_nothing(viewer: Viewer, headers: dict[str, str]) -> None:
    for path in ("/api/operations/overview", "/metrics", "/scale", "/health"):
        assert ask(viewer, path, headers=headers).status in (403, 421)
    body = json.dumps({"pubsub_name": "bus", "topic": "orders"}).encode()
    assert ask(viewer, "/api/changes/purge", body, {**JSON, TOKEN_HEADER: TOKEN, **headers}).status in (403, 421)


def test_payloads_are_hidden_by_setting(client: CloudRuntimesClient, tmp_path: Path) -> None:
    client.state.save("carts", "one", "secret")
    with viewing(tmp_path / "seen", operations=Operations(client, hide_payloads=True)) as viewer:
        for question in ("events?store=bus&topic=orders", "dead?store=bus&topic=dead", "value?store=carts&key=one"):
            text = json.dumps(answer(viewer, question))
            assert "number" not in text
            assert "secret" not in text


def test_metrics_scale_and_health(client: CloudRuntimesClient, viewer: Viewer) -> None:
    reply = ask(viewer, "/metrics")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in _parsed(reply.body.decode())}
    lag = {sample.labels["group"]: sample.value for sample in families["cloud_runtimes_group_lag_events"].samples}
    assert lag == {"mail": 3, "billing": 0}
    (dead,) = families["cloud_runtimes_dead_letter_events"].samples
    assert (dead.labels, dead.value) == ({"component": "bus", "topic": "dead"}, 2)
    assert ask(viewer, "/scale?store=bus&topic=orders&group=mail").json() == {"value": 3}
    assert ask(viewer, "/scale?store=bus&topic=orders&group=absent").status == 404
    assert (ask(viewer, "/health").status, ask(viewer, "/health").json()) == (200, {"away": {}})


def test_the_dashboard_of_grafana_has_each_metric(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: set[str] = set()
    make = Family.__init__

    def noted(self: Family, *arguments: Any) -> None:
        make(self, *arguments)
        exported.add(self.name)

    monkeypatch.setattr(Family, "__init__", noted)
    ask(viewer, "/metrics")
    panels = ask(viewer, "/grafana.json").json()["panels"]
    shown = re.findall(r"cloud_runtimes_\w+", json.dumps([each["targets"] for each in panels]))
    assert {*shown} == exported
    documented = (DOCS / "how-to/dashboard.md").read_text(encoding="utf-8")
    assert {*re.findall(r"`(cloud_runtimes_\w+)`", documented)} == exported
    for each in panels:  # labels of legends are labels of the metric
        labels = {*re.findall(r"{{(\w+)}}", each["targets"][0]["legendFormat"])}
        assert labels <= {"component", "topic", "group", "job", "application", "lock"}


def test_lag_from_before_the_page(client: CloudRuntimesClient, tmp_path: Path) -> None:
    operations = Operations(client)
    with viewing(tmp_path / "seen", operations=operations) as viewer:
        name = ("bus", "orders", "mail")
        assert until(lambda: operations._lags.of(name)), "it looks at its start, and then now and then"
        client.admin.seek("bus", "orders", group="mail", to="latest")
        (mail,) = [each for each in answer(viewer, "groups?store=bus&topic=orders")["groups"] if each["name"] == "mail"]
    assert mail["lag"] == 0
    assert [lag for _, lag in mail["lags"]] == [3]


def test_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [0.0]
    monkeypatch.setattr("cloud_runtimes.dashboard.lags.monotonic", lambda: moment[0])
    lags, name = Lags(), ("bus", "orders", "mail")
    for number in range(300):
        moment[0] = number * EVERY
        lags.note([(name, number), (("bus", "orders", "other"), None)])
        lags.note([(name, -1)])  # at once again
    found = lags.of(name)
    assert [lag for _, lag in found] == list(range(60, 300))
    assert (found[0][0], found[-1][0]) == (239 * EVERY, 0.0)
    assert lags.of(("bus", "orders", "other")) == lags.of(("", "", "")) == []
    lags.note([(("bus", "orders", f"{number}"), 1) for number in range(2000)])
    assert not lags.of(("bus", "orders", "1999")), "it grew without a bound"


def test_keda_reads_the_lag(client: CloudRuntimesClient, tmp_path: Path) -> None:
    """As its metrics-api scaler does: GET, a 200, a number where gjson's path ``valueLocation`` leads."""
    page = (DOCS / "how-to/dashboard.md").read_text(encoding="utf-8")
    block = next(each for each in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "metrics-api" in each)
    (trigger,) = yaml.safe_load(block)["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert int(trigger["metadata"]["targetValue"]) > 0
    url = urlsplit(trigger["metadata"]["url"])
    client.pubsub.publish_bulk("bus", "orders", [{"number": number} for number in range(39)])
    client.pubsub.subscribe("bus", "orders", group="shop", start="earliest").close()
    with viewing(tmp_path / "seen", operations=Operations(client), allowed_hosts=[url.hostname]) as viewer:
        reply = ask(viewer, f"{url.path}?{url.query}", headers={"host": url.netloc})
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        value = reply.json()
        for part in trigger["metadata"]["valueLocation"].split("."):
            value = value[part]
        assert (type(value), value) == (int, 42)


def test_health_names_what_is_away(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "capa": {"home": str(tmp_path / "home")},
        "pubsub": {"bus": {"component": "redis", "url": "redis://127.0.0.1:1"}},
    }
    with (
        CloudRuntimesClient(app_id="shop", config=config) as client,
        viewing(tmp_path / "seen", operations=Operations(client)) as viewer,
    ):
        reply = ask(viewer, "/health")
        assert (reply.status, [*reply.json()["away"]]) == (503, ["pubsub.bus"])
        assert (
            'cloud_runtimes_component_up{service="pubsub",component="bus"} 0' in ask(viewer, "/metrics").body.decode()
        )


def test_labels_are_escaped(client: CloudRuntimesClient, viewer: Viewer) -> None:
    client.pubsub.publish("bus", 'a"b\\c', 1)
    client.pubsub.subscribe("bus", 'a"b\\c', group='g"} 1\\').close()
    families = {family.name: family for family in _parsed(ask(viewer, "/metrics").body.decode())}
    labels = [sample.labels for sample in families["cloud_runtimes_group_lag_events"].samples]
    assert {"component": "bus", "topic": 'a"b\\c', "group": 'g"} 1\\'} in labels


def _parsed(text: str) -> Any:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    return text_string_to_metric_families(text)
