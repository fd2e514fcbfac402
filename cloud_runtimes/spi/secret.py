"""The SPI of the secret service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from hmac import compare_digest
from typing import Any, Final, NoReturn, SupportsIndex

from ..errors import InvalidArgumentError
from .driver import Driver
from .executor import in_thread
from .operation import Operation

__all__ = ["BULK", "Secret", "SecretDriver"]


_SHOWN: Final = 10


_values: Any  # the slot of `Secret` that holds them, out of reach of what walks attributes


class Secret(Mapping[str, str]):
    """A secret: a read-only mapping name → text, mostly of one entry.

    Nothing that shows things shows its values: not ``repr``, ``str``, ``format``, logging, tracebacks with local variables, ``vars``, ``pprint``, ``dataclasses.asdict``. It cannot be pickled or encoded as JSON or MessagePack (``TypeError``, `PayloadError`); copies are the object itself. A value leaves it by its name, by `value` and by iterating over values or items, and is then plain text; so a tool that goes through the items of any mapping it meets, as pytest does to explain a failed comparison, shows them (the plugin `cloud_runtimes.testing.canary` keeps pytest from it).

    Equal are secrets, or a secret and another mapping, of the same names and values; the time that takes tells nothing of where values of one length differ. It has no hash.

    It is made of a mapping of name → text; an `InvalidArgumentError` names an entry that is not text, not its value.
    """

    __slots__ = ("__values",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Mapping[str, str]) -> None:
        wrong = _wrong(values)
        if wrong is not None:
            _values.__set__(self, {})
            del values  # a traceback that shows variables would show them
            raise InvalidArgumentError(f"a secret is a mapping of str to str; {wrong}")
        _values.__set__(self, dict(values))

    @property
    def value(self) -> str:
        """Its only entry.

        Raises:
            InvalidArgumentError: it has none or several; names them.
        """
        names = list(self)
        if len(names) != 1:
            raise InvalidArgumentError(
                f"this secret has {len(names)} entries, so no value of its own: "
                + (f"take one by its name, of {_listed(names)}" if names else "it is empty")
            )
        return self[names[0]]

    def __getitem__(self, name: str) -> str:
        value: str = _values.__get__(self)[name]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(_values.__get__(self)))

    def __len__(self) -> int:
        return len(_values.__get__(self))

    def __contains__(self, name: object) -> bool:
        return name in _values.__get__(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        if self.keys() != other.keys():
            return False
        same = True
        for name in self:
            same &= _same(self[name], other[name])
        return same

    # -- nothing shows it ---------------------------------------------------

    def __repr__(self) -> str:
        return f"<Secret: {_listed(list(self)) if self else 'empty'}>"

    __str__ = __repr__
    # an error tracker that walks through mappings among the variables of a frame asks this first
    __sentry_repr__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        self.__getstate__()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the store's name and the key, and read it there")

    def __setstate__(self, state: object) -> NoReturn:
        self.__getstate__()


_values = vars(Secret)["_Secret__values"]


del Secret._Secret__values  # type: ignore[attr-defined]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _wrong(values: Any) -> str | None:
    """Say what is no mapping or no text."""
    if not isinstance(values, Mapping):
        return f"this is {type(values).__name__}"
    for name, value in values.items():
        if not isinstance(name, str):
            return f"a name is {type(name).__name__}"
        if not isinstance(value, str):
            return f"{name!r} is {type(value).__name__}"
    return None


def _same(one: Any, other: Any) -> bool:
    if not isinstance(other, str):
        return False
    return compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


BULK: Final = "bulk"
"""``get_bulk_secret``: all secrets of the store."""


class SecretDriver(Driver, ABC):
    """The secrets of one store. It only reads.

    A value is in a `Secret` from the moment it is read: no frame that an error may leave, and no error (its message, attributes, cause and context included), holds one as text. What a library beneath raises may hold the whole document (``json.JSONDecodeError.doc``), so its text is not quoted, and it is not chained unless it is known to hold nothing.

    Keys are compared byte for byte; a key is never a pattern. A changed secret is served within seconds, a half-written one never.
    """

    @abstractmethod
    def get(self, op: Operation, key: str, /) -> Secret:
        """Return a secret.

        Raises:
            NotFoundError: there is none; names store, key and the remedy, e.g. the variable to set.
        """

    get_async = in_thread(get)

    @abstractmethod
    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        """Return all secrets of the store: key → secret. Needs `BULK`.

        Raises:
            BulkError: some cannot be read; the others are its ``result``.
        """

    get_bulk_async = in_thread(get_bulk)
