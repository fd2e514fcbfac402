"""Which requests a server refuses since a web page made a browser send them."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes._http.request_guard import RequestGuard
from cloud_runtimes.errors import InvalidArgumentError

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
GUARD = RequestGuard(["dapr.example.com", "two.example:8080", ".mesh.example"], option="--allow-host")
PAGES = RequestGuard(option="--allow-host", pages=True)


def status(guard: RequestGuard, host: str | None, path: str = "/v1.0/state/s", **headers: str) -> int:
    given = {} if host is None else {"host": host}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    refusal = guard.refusal(scope)
    return 0 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:3500", "LOCALHOST", "localhost.:3500", "app.localhost:3500", "[::1]:3500", "10.0.0.7:3500",
        "dapr", "host.docker.internal:3500", "dapr.example.com", "Dapr.Example.Com:3500", "two.example:8080",
        "a.b.mesh.example",
    ],
)  # fmt: skip
def test_programs_reach_a_server_by_names_that_nobody_can_register(host: str) -> None:
    assert status(GUARD, host) == 0
    assert status(GUARD, host, user_agent="curl/8") == 0
    assert status(GUARD, host, origin=f"http://{host}", sec_fetch_site="same-origin", user_agent=CHROME) == 0


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:3500",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "two.example",
        "two.example:80",
        "mesh.example",
        "xdapr.example.com",
        "127.0.0.1, evil.example",
        "a b",
        "[::1",
        "evil.example\0localhost",
        "user@localhost.evil.example",
        "l" * 10_000,
        ".",
    ],
)
def test_a_rebound_name_is_refused(host: str | None) -> None:
    assert status(GUARD, host) == 421
    assert status(PAGES, host) == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost:3500"},
        {"origin": "http://localhost"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none, same-origin"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
    ],
)
def test_other_origins_are_refused(headers: dict[str, str]) -> None:
    assert status(GUARD, "localhost:3500", "/", **headers) == 403


@pytest.mark.parametrize("host", ["10.0.0.7:3500", "0.0.0.0:3500", "[::ffff:127.0.0.1]:3500", "[::]:3500", "dapr:3500"])
def test_a_browser_that_hides_where_it_comes_from_is_refused(host: str) -> None:
    """Browsers send ``Sec-Fetch-Site`` to loopback addresses alone, and no ``Origin`` with a ``GET``."""
    assert status(GUARD, host, user_agent=CHROME) == 403
    assert status(GUARD, host, user_agent="python-httpx/1") == 0
    assert status(PAGES, host, user_agent=CHROME) == 0  # its GET changes nothing


def test_a_page_behind_tls_may_ask_its_own_server() -> None:
    assert status(GUARD, "dapr.example.com", origin="https://dapr.example.com") == 0
    assert status(GUARD, "dapr.example.com", origin="https://evil.example") == 403


def test_a_link_to_a_page_is_followed_and_a_frame_of_it_is_not() -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert status(PAGES, "localhost:4318", "/", **link) == 0
    assert status(PAGES, "localhost:4318", "/api/status", **link) == 403
    assert status(PAGES, "localhost:4318", "/", **{**link, "sec_fetch_dest": "iframe"}) == 403


@pytest.mark.parametrize("name", ["http://a.example", "a b", "", 5, "a/b", "*"])
def test_what_is_allowed_must_be_names(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="--allow-host: give names such as"):
        RequestGuard([name], option="--allow-host")
