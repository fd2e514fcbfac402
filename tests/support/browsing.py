"""A real browser, and pages of other origins in it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FOREIGN = "evil.example"
"""A name that stands for this machine in the browser, as one that its owner has rebound."""
# nothing of it may reach a network
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--no-proxy-server", "--window-size=1280,900", f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1"),
)


@contextmanager
def chrome(profile: Path) -> Iterator[Chrome]:
    """Start a browser with an empty profile; without one the test is skipped."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = program
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    browser.set_page_load_timeout(60)
    browser.set_script_timeout(60)
    yield browser
    browser.quit()


class OtherOrigin:
    """Serves an empty page, on a free port or one that is given, while it is entered."""

    def __init__(self, port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 1  # a browser may open a connection that it then does not use

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(b"<!doctype html><title>other</title>")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port = self._server.server_port

    def url(self, host: str = "localhost") -> str:
        """Return the page's address under a name."""
        return f"http://{host}:{self.port}/"

    def __enter__(self) -> OtherOrigin:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
