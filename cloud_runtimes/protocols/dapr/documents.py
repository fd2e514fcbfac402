"""Resource files → documents: what all kinds of resources have in common."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..._core.config_formats import load_parser, read_documents
from ...config import unknown
from ...errors import InvalidArgumentError

__all__ = ["KINDS", "Document", "Problems", "read_all", "texts"]

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Component": ("dapr.io/v1alpha1",),
    "Resiliency": ("dapr.io/v1alpha1",),
    "Subscription": ("dapr.io/v1alpha1", "dapr.io/v2alpha1"),
}
"""The kinds that are understood → their versions."""
_OTHERS: Final = ("Configuration", "HTTPEndpoint")
"""The kinds that daprd knows besides."""
_SUFFIXES: Final = (".yaml", ".yml")
_AT_TOP: Final = {key.lower(): key for key in ("apiVersion", "auth", "kind", "metadata", "scopes", "spec")}


class Problems:
    """What is wrong, gathered, so that one run tells all of it."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note what is refused."""
        self.errors.append(f"{where}: {what}")

    def warn(self, where: str, what: str) -> None:
        """Note what has no effect."""
        self.warnings.append(f"{where}: {what}")

    def unknown(self, where: str, table: Mapping[str, Any], known: Collection[str], *, refuse: bool = True) -> None:
        """Note the keys of a table that are not known: they are refused, or have no effect."""
        note = self.add if refuse else self.warn
        for number, key in enumerate(table, 1):
            if key not in known:
                note(where, unknown("key", key, known, number))

    def finish(self) -> None:
        """Raise all that was noted as `InvalidArgumentError`."""
        if self.errors:
            raise InvalidArgumentError("; ".join(self.errors))


@dataclass(frozen=True, slots=True)
class Document:
    """One resource."""

    where: str  # file and name, for messages
    kind: str
    version: str  # the part of ``apiVersion`` behind ``/``
    name: str
    spec: Mapping[str, Any]  # secrets may be in it
    scopes: tuple[str, ...]
    namespace: str  # "": none is given
    secret_store: str | None

    def __repr__(self) -> str:
        return f"<{self.kind} {self.where}>"


def read_all(
    paths: Sequence[str | os.PathLike[str]],
    app_id: str,
    problems: Problems,
    namespace: str = "",
    kinds: Mapping[str, tuple[str, ...]] = KINDS,
) -> list[Document]:
    """Return the resources of folders (all ``*.yaml`` and ``*.yml`` in them, in the order of their names) and files.

    ``kinds`` are those that count. Those whose ``scopes`` leave the application out are left out, and where a ``namespace`` is given those of another. What is wrong inside of files goes to ``problems``.
    """
    found: list[Document] = []
    for file in _files(paths):
        load_parser("yaml", file)
        try:
            documents = read_documents(file.read_bytes())
        except OSError as error:
            problems.add(str(file), f"cannot be read: {error.strerror}")
            continue
        if isinstance(documents, str):
            problems.add(str(file), documents)
            continue
        for number, each in enumerate(documents, 1):
            if each is None:  # nothing between two separators
                continue
            place = str(file) if len(documents) == 1 else f"{file}, document {number}"
            document = _document(place, each, problems, kinds)
            if document is None or (document.scopes and app_id not in document.scopes):
                continue
            if not (namespace and document.namespace) or document.namespace == namespace:
                found.append(document)
    return found


def _files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from (each for each in sorted(path.iterdir()) if each.suffix.lower() in _SUFFIXES and each.is_file())
        elif path.is_file():
            yield path
        else:
            raise InvalidArgumentError(f"the resources path {path} does not exist: give a folder of component files")


def _document(where: str, table: Any, problems: Problems, kinds: Mapping[str, tuple[str, ...]]) -> Document | None:
    if not isinstance(table, dict):
        problems.add(where, f"expected a resource (apiVersion, kind, metadata, spec), found {type(table).__name__}")
        return None
    table = {_AT_TOP.get(str(key).lower(), key): value for key, value in table.items()}  # Go does not mind case
    kind, version = str(table.get("kind")), str(table.get("apiVersion"))
    about = table.get("metadata")
    about = about if isinstance(about, dict) else {}
    name = about.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        problems.add(where, "metadata.name must be text without '/'")
        return None
    if kind not in kinds:
        told = f"kind {kind!r}" if kind in _OTHERS else unknown("kind", kind, kinds)
        problems.warn(f"{where} ({name!r})", f"{told}: the resource has no effect here")
        return None
    where = f"{where} ({kind} {name!r})"
    if version not in kinds[kind]:
        problems.add(where, unknown("apiVersion", version, kinds[kind]))
        return None
    problems.unknown(where, table, frozenset(_AT_TOP.values()), refuse=False)
    spec, auth = table.get("spec") or {}, table.get("auth") or {}
    scopes = texts(table.get("scopes"))
    store = auth.get("secretStore") if isinstance(auth, dict) else None
    if not isinstance(spec, dict):
        problems.add(where, f"spec must be a table, not {type(spec).__name__}")
        return None
    if scopes is None:
        problems.add(where, "scopes must be a list of app ids")
        return None
    space = str(about.get("namespace") or "")
    return Document(where, kind, version.partition("/")[2], name, spec, scopes, space, str(store) if store else None)


def texts(value: Any) -> tuple[str, ...] | None:
    """Return a list of text; ``None``: it is none."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None
    return tuple(value)
