"""Secrets of one file: what is served of it, and when it is an error.

While a file is being written, and for `GRACE` seconds while it cannot be parsed, which counts as half-written, the secrets of before are served. A file that is gone, or may not be read, is an error at once.

What parses a file raises nothing, since an error would hold the file's bytes in its frames: what is wrong is text that names places and never values.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..._core.arguments import MAX_KEY_BYTES
from ..._core.clocks import Clocks
from ..._core.config_formats import KINDS, load_parser, read_tables
from ..._core.logs import logger
from ..._core.os_files import MODES_COUNT
from ...errors import BulkError, CloudRuntimesError, NotFoundError, PayloadError
from ...spi.operation import Operation
from ...spi.secret import BULK, Secret, SecretDriver
from .dotenv import parse as parse_dotenv
from .folder import WatchedFolder
from .watched import Watched, fresh

if TYPE_CHECKING:
    from . import FileComponent

GRACE: Final = 2.0
PATIENCE: Final = 5.0
"""Seconds that a call waits at most where there are no secrets of before."""
_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 64

_warned: set[str] = set()


class Document(NamedTuple):
    """The secrets of a file by key, and key → why it cannot be served."""

    secrets: Mapping[str, Secret]
    wrong: Mapping[str, str]


class FileSecret(SecretDriver):
    """Secrets of one file."""

    features = frozenset({BULK})

    def __init__(self, component: FileComponent, name: str) -> None:
        self._component = component
        self._name = name
        component.secrets  # noqa: B018  # what is wrong with the settings is told before any I/O
        self.executor = component.executor

    def get(self, op: Operation, key: str, /) -> Secret:
        file = self._component.secrets
        document = file.load(op)
        if key in document.wrong:
            raise PayloadError(f"secret {key!r} of {self._name!r}: in {file.path} it {document.wrong[key]}")
        secret = document.secrets.get(key)
        if secret is None:
            raise NotFoundError(f"no secret {key!r} in {self._name!r}: add it to {file.path}")
        return secret

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        file = self._component.secrets
        document = file.load(op)
        secrets = dict(document.secrets)
        if document.wrong:
            raise BulkError(
                f"{len(document.wrong)} of {len(secrets) + len(document.wrong)} secrets of {self._name!r} cannot be read",
                failed={
                    key: PayloadError(f"secret {key!r} of {self._name!r}: in {file.path} it {problem}")
                    for key, problem in document.wrong.items()
                },
                result=secrets,
            )
        return secrets


class SecretFile:
    """Reads one file of secrets, for any number of threads. With ``optional``, a missing file holds nothing."""

    def __init__(
        self, path: str, kind: str, clocks: Clocks, *, separator: str, multi_valued: bool, optional: bool
    ) -> None:
        self.path = path
        self._kind = kind
        self._options = (separator, multi_valued)
        self._optional = optional
        self._prepared = False
        watched = WatchedFolder if kind == "folder" else Watched
        self._file: Watched[Document] = watched(path, self._parsed, clocks, keep=False)

    def _parsed(self, data: Any) -> Document | CloudRuntimesError:
        document = parse(self._kind, data, *self._options)
        return PayloadError(f"{self.path}: {document}") if isinstance(document, str) else document

    def load(self, op: Operation) -> Document:
        """Return what the file holds; an error says where something is wrong, and quotes nothing."""
        if not self._prepared:
            if self._kind != "folder":
                load_parser(self._kind, self.path)
            self._prepared = True
        state = self._file.settled(op, patience=PATIENCE, old=True)
        document, problem = state.value, state.problem
        if document is not None and (problem is None or state.again_in or 0 <= state.age < GRACE):
            self._warn(state.mode)
            return document
        assert problem is not None
        if self._optional and isinstance(problem.__cause__, (FileNotFoundError, NotADirectoryError)):
            return Document({}, {})
        raise fresh(problem)

    def _warn(self, mode: int) -> None:
        """Say, once per process, that others may read or write the file."""
        if not MODES_COUNT or not mode & (stat.S_IROTH | stat.S_IWOTH) or self.path in _warned:
            return
        _warned.add(self.path)
        what = "written" if mode & stat.S_IWOTH else "read"
        logger().warning(
            "%s can be %s by every user of this machine (mode %04o): chmod 600", self.path, what, stat.S_IMODE(mode)
        )


def kind_of(path: str) -> str | None:
    """Return the kind of file, by the end of its name: a value of `config_formats.KINDS`, or ``"dotenv"`` for ``*.env``, ``.env`` and ``.env.*``."""
    name = PurePath(path).name.lower()
    if name.startswith(".env.") or name.endswith(".env"):
        return "dotenv"
    return KINDS.get(PurePath(name).suffix)


def parse(kind: str, data: Any, separator: str, multi_valued: bool) -> Document | str:
    """Return what a file says, or what is wrong with it."""
    if kind == "folder":
        return _document({name: _text(each) for name, each in data.items()}, separator, False)
    tree = _dotenv(data) if kind == "dotenv" else read_tables(data, kind)
    return tree if isinstance(tree, str) else _document(tree, separator, multi_valued)


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _dotenv(data: bytes) -> dict[str, str] | str:
    try:
        return parse_dotenv(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"


def _document(tree: dict[Any, Any], separator: str, multi_valued: bool) -> Document | str:
    """Flatten nested tables, as Dapr's local file store does (secretstores/local/file, ``nestedSeparator``, ``multiValued``)."""
    groups: dict[str, dict[str, str]] = {}
    wrong: dict[str, str] = {}
    for count, (path, value) in enumerate(_leaves(tree, ())):
        if count == _MAX_ENTRIES:
            return f"more than {_MAX_ENTRIES} entries"
        if len(path) > _MAX_DEPTH:
            return "nested too deeply"
        key = path[0] if multi_valued else separator.join(path)
        entry = separator.join(path[1:]) if multi_valued and len(path) > 1 else key
        problem = _unfit(key, value)
        if problem is not None:
            wrong[key] = problem if entry == key else f"its entry {entry!r}: {problem}"
        elif entry in groups.setdefault(key, {}):
            wrong[key] = f"{entry!r} stands twice, once in nested tables"
        else:
            groups[key][entry] = value
    return Document({key: Secret(values) for key, values in groups.items() if key not in wrong}, wrong)


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what is no table and no list, with the way to it; an element of a list has its index as name."""
    if len(path) > _MAX_DEPTH or not isinstance(tree, (dict, list)):
        yield path, tree
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(value, (*path, str(name)))


def _unfit(key: str, value: Any) -> str | None:
    """Say why a value cannot be a secret under a key."""
    if isinstance(value, bytes):
        return "is no UTF-8"
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        return f"is {kind}, not text: put it into quotes"
    try:
        size = len(key.encode())
        value.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate, which is not UTF-8"
    if not 0 < size <= MAX_KEY_BYTES or "\0" in key:
        return f"is no key that can be asked for: 1 to {MAX_KEY_BYTES} bytes without NUL"
    return None
