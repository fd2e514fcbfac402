"""A pytest plugin: a secret that gives itself away wherever it leaks.

Load it with ``pytest_plugins = ["cloud_runtimes.testing.canary"]`` in the top ``conftest.py``. The fixture ``canary`` gives secrets to put into stores; all hold one random text. The run fails when that text, plain, in base64 or in hex, turns up in

* a report: what a test printed or wrote to its streams, in any phase, whether it passed or not, its traceback, its name;
* a log record, of any test once the fixture was used; ``cloud_runtimes`` logs from DEBUG on where it is;
* a warning;
* a file below the temporary folder of the run, save those that `Canary.declare` names: the stores themselves.

A failed comparison of secrets, which pytest explains by the items of both, shows none where the plugin is loaded.

What a test catches is in no report: `Canary.raises` is ``pytest.raises`` and looks through the error too.
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
import stat
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import pytest

E = TypeVar("E", bound=BaseException)

_PLUGIN: Final = "cloud_runtimes_canary"
_CHUNK: Final = 1 << 20
_LOGGER: Any = logging.Logger
_PACKAGE: Final = __name__.partition(".")[0]


class Canary:
    """The secrets of one run, and what was found of them."""

    def __init__(self) -> None:
        self._text = f"canary{secrets.token_hex(16)}"
        self._count = 0
        self._declared: set[Path] = set()
        plain = self._text.encode()
        # in base64 only what does not depend on the neighbours
        shifted = [base64.b64encode(b"\0" * shift + plain)[4:-4] for shift in range(3)]
        self._needles = [plain, plain.hex().encode(), *shifted]
        self.leaks: list[str] = []

    def value(self) -> str:
        """Return a secret like no other."""
        self._count += 1
        return f"{self._text}-{self._count}"

    def declare(self, path: Path) -> Path:
        """Return ``path``, a file or folder that holds secrets on purpose."""
        self._declared.add(path.resolve())
        return path

    def shows(self, data: object) -> bool:
        """Return whether a secret stands in bytes, text, or the ``repr`` of anything else."""
        if not isinstance(data, bytes):
            text = data if isinstance(data, str) else repr(data)
            data = text.encode("utf-8", "surrogatepass")
        return any(needle in data for needle in self._needles)

    def look(self, where: str, *data: object) -> None:
        """Note a leak, if there is one."""
        if any(map(self.shows, data)):
            self.leaks.append(where.replace(self._text, "<the secret>"))

    @contextmanager
    def raises(self, expected: type[E], match: str | None = None) -> Iterator[pytest.ExceptionInfo[E]]:
        """Expect an error, as ``pytest.raises`` does, and look through it, its causes and contexts, and the variables of their frames."""
        with pytest.raises(expected, match=match) as caught:
            yield caught
        self.look_through(caught.value)

    def look_through(self, error: BaseException) -> None:
        """Fail where an error shows a secret."""
        todo, seen = [error], set()
        while todo:
            each = todo.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            todo += [more for more in (each.__cause__, each.__context__) if more is not None]
            todo += getattr(each, "exceptions", ())
            if isinstance(failed := getattr(each, "failed", None), Mapping):
                todo += failed.values()
            shown = [str(each), repr(each), each.args, vars(each), *traceback.format_exception(each)]
            if any(map(self.shows, shown)):
                pytest.fail(f"the {type(each).__name__} shows a secret")
            for name, value in _variables(each.__traceback__):
                if self.shows(value):
                    pytest.fail(f"the variable {name}, in a frame of the {type(each).__name__}, shows a secret")

    def search(self, folder: Path) -> None:
        """Look through the files below a folder."""
        folder = folder.resolve()
        for path in (Path(where, name) for where, _, names in os.walk(folder) for name in names):
            if not self._declared.isdisjoint((path, *path.parents)):
                continue
            self.look(f"the name of {path.relative_to(folder)}", str(path))
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    self.look(f"the file {path.relative_to(folder)}", *_pieces(path, len(self._needles[1])))
            except OSError:
                continue  # gone, or of another user


def _variables(trace: TracebackType | None) -> Iterator[tuple[str, object]]:
    """Yield the variables of the frames of an error, from the package's first one on: those above are the test's own."""
    inside = False
    for frame, _ in traceback.walk_tb(trace):
        module = frame.f_globals.get("__name__", "")
        ours = module.startswith(f"{_PACKAGE}.") and not module.startswith(f"{_PACKAGE}.testing")
        inside = inside or ours
        if inside:
            for name, value in frame.f_locals.items():
                yield f"{name} of {frame.f_code.co_qualname}", value


def _pieces(path: Path, overlap: int) -> Iterator[bytes]:
    """Yield a file in pieces that overlap, so that nothing is cut in two."""
    with path.open("rb") as file:
        last = b""
        while piece := file.read(_CHUNK):
            yield last + piece
            last = piece[-overlap:]


class _Plugin:
    """Looks through all that a run leaves."""

    def __init__(self) -> None:
        self.canary = Canary()
        self.folder: Path | None = None
        self._handle: Callable[[logging.Logger, logging.LogRecord], None] | None = None

    def start(self, folder: Path) -> Canary:
        """Begin to look; nothing of before can hold what nobody had."""
        if self.folder is None:
            self.folder = folder
            # not the record's factory: what `extra` gives is added behind it
            self._handle = handle = logging.Logger.handle

            def seen(logger: logging.Logger, record: logging.LogRecord) -> None:
                where = f"a log record of {record.name}, line {record.lineno} of {record.filename}"
                self.canary.look(where, *_texts(record))
                handle(logger, record)

            _LOGGER.handle = seen
        return self.canary

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, text in report.sections:
            self.canary.look(f"{name} of {report.nodeid}", text)
        self.canary.look(f"the report of {report.nodeid}, {report.when}", report.longreprtext, report.user_properties)
        self.canary.look(f"the name of {report.nodeid}", report.nodeid)

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        self.canary.look(f"a warning of {nodeid}", str(warning_message.message))

    @pytest.hookimpl(tryfirst=True)
    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> list[str] | None:
        """Explain a comparison of secrets by what they show of themselves."""
        from ..secret import Secret

        return [f"{left!r} {op} {right!r}"] if isinstance(left, Secret) and isinstance(right, Secret) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._handle is not None:
            _LOGGER.handle = self._handle
        if self.folder is not None:
            self.canary.search(self.folder)
        if self.canary.leaks:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output[_PLUGIN] = self.canary.leaks

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over the leaks that a worker of pytest-xdist found; it has secrets of its own."""
        self.canary.leaks += getattr(node, "workeroutput", {}).get(_PLUGIN, ())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for leak in dict.fromkeys(self.canary.leaks):
            terminalreporter.write_line(f"a secret leaked: {leak}", red=True)


def _texts(record: logging.LogRecord) -> Iterator[object]:
    yield vars(record)
    try:
        yield record.getMessage()
    except Exception:
        return  # arguments that do not fit: logging will say so
    if record.exc_info and record.exc_info[1] is not None:
        yield "".join(traceback.format_exception(record.exc_info[1]))


def pytest_configure(config: pytest.Config) -> None:
    """Begin a run."""
    config.pluginmanager.register(_Plugin(), _PLUGIN)


@pytest.fixture
def canary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Canary:
    """Secrets that are found wherever they leak."""
    plugin: Any = request.config.pluginmanager.get_plugin(_PLUGIN)
    monkeypatch.setattr(logging.getLogger(_PACKAGE), "level", logging.DEBUG)
    result: Canary = plugin.start(tmp_path_factory.getbasetemp())
    return result
