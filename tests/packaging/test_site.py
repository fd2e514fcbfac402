"""The site of the documentation, in a real browser: what its search finds first, who can read it, and its links."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.packaging.builds import ROOT, run, tool
from tests.support.waiting import until

QUESTIONS = {
    "publish": "services/pubsub",
    "subscribe": "services/pubsub",
    "state": "services/state",
    "etag": "services/state",
    "lock": "services/locks",
    "secret": "services/secrets",
    "files": "services/files",
    "database": "services/database",
    "invoke method": "services/rpc",
    "configuration": "services/configuration",
    "cron": "explanation/schedule",
    "schedule job": "explanation/schedule",
    "dead letter": "how-to/dead-letters",
    "transaction": "how-to/outbox-and-inbox",
    "outbox": "how-to/outbox-and-inbox",
    "fastapi": "how-to/fastapi",
    "django": "how-to/django",
    "pytest": "how-to/testing",
    "workers": "how-to/workers",
    "kafka": "how-to/move-to-kafka",
    "redis": "how-to/move-to-redis",
    "docker": "how-to/deploy",
    "celery": "how-to/migrate-from-celery",
    "s3": "how-to/files-in-buckets",
    "prometheus": "how-to/dashboard",
    "environment variable": "configuration",
    "ConflictError": "reference/errors",
    "save_bulk": "reference/state",
    "invoke_method": "reference/rpc",
}
"""Words that people type → the page that is to come first."""
READ = (
    "index",
    "tutorial/index",
    "services/pubsub",
    "how-to/deploy",
    "reference/state",
    "reference/features",
    "configuration",
)
"""Pages that axe-core looks at."""
_FOUND = """return (document.querySelector('.search-summary')?.textContent.includes('Search finished')
    ? [...document.querySelectorAll('ul.search li a')].map((a) => new URL(a.href).pathname) : null)"""
_AXE = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations))"

pytestmark = [pytest.mark.process, pytest.mark.soak]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The site, as `make docs-site` makes it, and its address; ``SITE=build/site`` names one that is made."""
    folder = Path(os.environ["SITE"]).resolve() if "SITE" in os.environ else tmp_path_factory.mktemp("site")
    done = "SITE" in os.environ or run(
        tool("sphinx-build"), "--quiet", "--fail-on-warning", "-c", ROOT / "docs", ROOT, folder, timeout=600
    )
    assert done is True or done.returncode == 0, done
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_search_finds_the_right_page_first(site: tuple[Path, str], browser: Chrome) -> None:
    wrong = {}
    for question, page in QUESTIONS.items():
        browser.get(f"{site[1]}/search.html?q={urllib.parse.quote(question)}")
        found: list[str] = until(lambda: browser.execute_script(_FOUND))
        if found[0] != f"/docs/{page}.html":
            wrong[question] = found[:3]
    assert wrong == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(site: tuple[Path, str], browser: Chrome, scheme: str) -> None:
    found = importlib.util.find_spec("axe_core_python")
    assert found is not None
    assert found.origin is not None
    axe = (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    faults = []
    for page in READ:
        browser.get(f"{site[1]}/docs/{page}.html")
        browser.execute_script(axe)
        for each in browser.execute_async_script(_AXE):
            if each["impact"] in ("serious", "critical"):
                faults.append(f"{page}: {each['id']}: {[node['html'][:200] for node in each['nodes']][:3]}")
    assert faults == []


def test_code_is_copied_by_a_button(site: tuple[Path, str], browser: Chrome) -> None:
    origin = {"origin": site[1], "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    for page, copied in (
        ("index", 'pip install ".[standard]"  # in the checkout'),
        ("how-to/when-something-is-stuck", "cloud-runtimes overview"),
    ):
        browser.get(f"{site[1]}/docs/{page}.html")
        button = browser.find_element("css selector", "button.copy")
        browser.execute_script("arguments[0].focus(); arguments[0].click()", button)
        assert until(lambda button=button: button.text == "Copied")
        assert (
            browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])").splitlines()[0] == copied
        )


def test_no_link_is_broken(site: tuple[Path, str]) -> None:
    folder = site[0]
    pages = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken, count = [], 0
    for path, text in pages.items():
        for link in re.findall(r'href="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", link):
                continue
            count += 1
            name, _, anchor = urllib.parse.unquote(link).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.exists() or (
                anchor and target in ids and anchor not in ids[target] and "genindex" not in name
            ):
                broken.append(f"{path.relative_to(folder)}: {link}")
    assert count > 1000
    assert broken == []
