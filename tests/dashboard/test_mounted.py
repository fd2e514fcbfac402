"""The dashboard as an application below another, behind its login."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dashboard import app
from cloud_runtimes.dashboard.operations import TOKEN_HEADER


def test_below_a_path_of_fastapi() -> None:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        client.pubsub.publish("bus", "orders", 1)
        api = FastAPI()
        api.mount("/ops", app(client, token="the-token"))
        web = TestClient(api, base_url="http://localhost")
        page = web.get("/ops/")
        assert (page.status_code, "Cloud Runtimes" in page.text) == (200, True)
        for name in ("app.js", "charts.js", "map.js", "stores.js", "style.css", "icon.svg"):
            assert web.get(f"/ops/{name}").status_code == 200
        status = web.get("/ops/api/status").json()
        assert status == {"telemetry": False, "operations": True, "changes": True}
        assert web.get("/ops/api/operations/topics?store=bus").json()["topics"][0]["name"] == "orders"
        assert web.get("/ops/api/traces").status_code == 404
        assert web.post("/ops/v1/traces", json={}).status_code == 405
        purge = {"pubsub_name": "bus", "topic": "orders"}
        assert web.post("/ops/api/changes/purge", json=purge).status_code == 403
        done = web.post("/ops/api/changes/purge", json=purge, headers={TOKEN_HEADER: "the-token"})
        assert done.json() == {"result": 1}


def test_a_name_must_be_allowed() -> None:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        for hosts, status in (([], 421), (["ops.example.com"], 200)):
            api = FastAPI()
            api.mount("/ops", app(client, allowed_hosts=hosts))
            assert TestClient(api, base_url="http://ops.example.com").get("/ops/metrics").status_code == status


def test_a_login_stands_before_it() -> None:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        api = FastAPI()

        @api.middleware("http")
        async def check(request: Request, call_next: Any) -> Any:
            logged_in = request.headers.get("authorization") == "me"
            return await call_next(request) if logged_in else Response(status_code=401)

        api.mount("/ops", app(client))
        web = TestClient(api, base_url="http://localhost")
        assert web.get("/ops/api/operations/overview").status_code == 401
        assert web.get("/ops/api/operations/overview", headers={"authorization": "me"}).status_code == 200
