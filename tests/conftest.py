"""Setup of all tests: the header shows which kernels run; long proofs run at full length with ``--soak``."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

if os.environ.get("CLOUD_RUNTIMES_TEST_PLATFORM") == "bare":
    # before anything of ours is imported, here and in the Pythons that tests start
    _bare = str(Path(__file__).parent / "support" / "bare")
    sys.path.insert(0, _bare)
    os.environ["PYTHONPATH"] = os.pathsep.join([_bare, *filter(None, [os.environ.get("PYTHONPATH")])])

import hypothesis
import pytest

import cloud_runtimes
from cloud_runtimes._core import logs
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support.engines import ENGINES
from tests.support.servers import Address, own_server, shared_server

# a secret that leaks anywhere in a run fails it; of the other two, what a failed assertion compared is shown
pytest_plugins = ["cloud_runtimes.testing.canary", "cloud_runtimes.testing.suites", "tests.packaging"]

_FIGURE = "figure"
_databases = itertools.count(1)
SOAK = Path(__file__).parent.parent / "docs" / "soak.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--embedded", action="store_true", help="leave out the tests that need the server of an engine")
    parser.addoption("--soak", action="store_true", help="run the long proofs at full length and write docs/soak.md")


def pytest_report_header() -> str:
    status = cloud_runtimes.native_status()
    return f"kernels: {'native' if status.native else 'fallback'} ({status.reason})"


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CLOUD_RUNTIMES_NATIVE") == "require":
        assert cloud_runtimes.native_status().native
    check = hypothesis.HealthCheck
    hypothesis.settings.register_profile(
        "tests",
        max_examples=2000 if config.getoption("--soak") else 100,
        deadline=None,
        database=None,
        # examples share a test's fixtures, and the machine
        suppress_health_check=[check.function_scoped_fixture, check.too_slow, check.data_too_large],
    )
    hypothesis.settings.load_profile("tests")
    # a shell's background job ignores the one, nohup the other, and every child that a test signals would inherit that
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (getattr(signal, "SIGHUP", None), signal.SIG_DFL),
    ):
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers ``-n auto`` starts: tests wait more than they compute, but with more than three a core the cores are full, and tests that wait for a time wait longer. Each worker also collects what is run, so a part of the tests is done sooner by fewer."""
    cores = os.cpu_count() or 1
    return min(16, 3 * cores if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 2 * cores)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    embedded = config.getoption("--embedded")
    for item in items:
        short = item.get_closest_marker("short")
        soak = item.get_closest_marker("soak") or (
            short is not None and getattr(item, "originalname", None) not in short.args
        )
        if (
            soak
            or {"rounds", "figure"} & {*getattr(item, "fixturenames", ())}
            or getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        ):
            item.add_marker("long")
        out = (soak and not config.getoption("--soak")) or (embedded and any(name in item.nodeid for name in ENGINES))
        (deselected if out else chosen).append(item)
    config.hook.pytest_deselected(items=deselected)
    # the longest tests first, so that no worker has one left when the others are done
    items[:] = sorted(chosen, key=lambda item: not item.nodeid.startswith(("tests/packaging/", "tests/typing/")))


def pytest_collection_finish() -> None:
    """Spare whatever collects garbage in a test the way through all that pytest has made."""
    _freeze()


@pytest.fixture(scope="module")
def short_collections() -> None:
    """Spare those of a module's tests, which are many, the way through what earlier tests have left too."""
    _freeze()


def _freeze() -> None:
    gc.collect()
    if hasattr(gc, "freeze"):  # not on PyPy
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_configuration_above(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refuse to test beside a configuration that clients without one would find."""
    os.environ.pop("CLOUD_RUNTIMES_CONFIG", None)
    for folder in {*tmp_path_factory.getbasetemp().parents, Path.cwd(), *Path.cwd().parents}:
        for name in ("cloud-runtimes.toml", ".cloud_runtimes"):
            assert not (folder / name).exists(), f"{folder / name} would be found by the tests: move it"


@pytest.fixture(autouse=True)
def _logs() -> None:
    """Have each test see what is said once a minute."""
    logs._said.clear()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder that is not there yet."""
    return tmp_path / "home"


@pytest.fixture(params=[SyncApi, AsyncApi], ids=["sync", "async"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """Both APIs in turn."""
    instance: Api = request.param()
    yield instance
    instance.close()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Return the length of a proof: short in CI, full with ``--soak``."""
    soak = request.config.getoption("--soak")
    return lambda short, full: full if soak else short


@pytest.fixture(scope="session")
def _chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser of this worker."""
    from tests.support.browsing import chrome  # selenium, which few tests need

    with chrome(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(_chrome: Any) -> Iterator[Any]:
    """A window of its own: what a module overrides in it, such as its size, is gone with it."""
    first = _chrome.current_window_handle
    _chrome.switch_to.new_window("window")
    yield _chrome
    _chrome.close()
    _chrome.switch_to.window(first)


for _engine in ENGINES.values():
    for _fixture, _server in _engine.get("servers", {}).items():
        globals()[_fixture] = (
            own_server(_server["start"], *_server.get("arguments", ()))
            if _server.get("own")
            else shared_server(
                _server["start"], Address if _server.get("address") else str, variable=_server.get("variable", "")
            )
        )


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    psycopg: Any = pytest.importorskip("psycopg")
    name = f"test_{os.getpid()}_{next(_databases)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{postgres_url.rpartition('/')[0]}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def objectstore_url(request: pytest.FixtureRequest) -> str:
    """The URL of the object store of this run, with a key and a secret; ``OBJECTSTORE`` names another."""
    if "OBJECTSTORE" in os.environ:
        return os.environ["OBJECTSTORE"]
    moto: str = request.getfixturevalue("moto_url")
    return moto.replace("://", "://key:secret@")


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours."""
    for name in list(os.environ):
        if name.startswith(("CLOUD_RUNTIMES_", "DAPR_", "LAYOTTO_")) and name != "CLOUD_RUNTIMES_NATIVE":
            monkeypatch.delenv(name)
    monkeypatch.delenv("APP_ID", raising=False)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Note a measured figure; ``--soak`` writes them down."""

    def note(what: str, value: str) -> None:
        # in the report, so that it also comes from a worker
        request.node.user_properties.append((_FIGURE, (what, value)))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = {
        value[0]: (value[1], report.nodeid.split("::", 1)[0])
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _FIGURE
    }
    for what, (value, _) in sorted(figures.items()):
        terminalreporter.write_line(f"figure: {what}: {value}")
    if config.getoption("--soak") and figures:
        SOAK.write_text("".join(_page(figures, chosen=bool(config.option.keyword))), encoding="utf-8")


# what may be skipped where nothing may be missing: a feature that a component does not declare, a trait that this Python or an engine has not,
# tests of sources that are not there, or over a real daprd or Layotto
_MAY_BE_SKIPPED = (
    "is not declared",
    "not on this Python",
    "the installed package is tested",
    "DAPRD names no daprd",
    "LAYOTTO names no Layotto",
    " cannot be set, and ",
)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On a laptop a missing server or tool is a skip that one sees; in CI it is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if not os.environ.get("CI") or reporter is None or not ended:
        return
    reasons = {str(report.longrepr) for report in reporter.stats.get("skipped", ())}
    if missing := [reason for reason in reasons if not any(allowed in reason for allowed in _MAY_BE_SKIPPED)]:
        reporter.write_line(f"skipped in CI: {'; '.join(missing)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _page(figures: dict[str, tuple[str, str]], *, chosen: bool) -> Iterator[str]:
    status = cloud_runtimes.native_status()
    yield "# Long proofs\n\nWritten by `make soak`: the process tests at full length. A run of some of them (`pytest --soak PATH -k …`) renews their rows and leaves the others. [A billion events in one hour](billion.md) has a log and a picture of its own.\n\n"
    yield (
        f"Last on {platform.python_implementation()} {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release().split('-')[0]}, "
        f"{os.cpu_count()} cores, {'native' if status.native else 'fallback'} kernels.\n\n"
    )
    today = date.today().isoformat()
    rows = {what: f"| {what} | {value} | `{test}` | {today} |\n" for what, (value, test) in figures.items()}
    yield "| proof | figure | test | run on |\n|---|---|---|---|\n"
    for _, row in sorted({**_earlier(set() if chosen else {test for _, test in figures.values()}), **rows}.items()):
        yield row


def _earlier(run: set[str]) -> dict[str, str]:
    """Return the rows of the page, without those of files that were run as a whole."""
    lines = SOAK.read_text(encoding="utf-8").splitlines(keepends=True) if SOAK.exists() else []
    cells = {line: [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line[0] == "|"}
    return {
        cell[0]: line
        for line, cell in cells.items()
        if len(cell) == 4 and cell[2].startswith("`") and cell[2].strip("`") not in run
    }
