"""Types of the database service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

Params: TypeAlias = Mapping[str, Any] | None
"""Values of the parameters of a statement: name → value."""


class Row(Mapping[str, Any]):
    """Row of a result: a mapping column → value, in the order of the columns.

    A column is an attribute too (``row.total``), unless its name is one of a mapping's methods (``row["items"]``).
    Compares equal to a mapping of the same columns and values.
    """

    __slots__ = ("_index", "_values")

    _index: Mapping[str, int]
    _values: Sequence[Any]

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._index = {name: at for at, name in enumerate(values)}
        self._values = tuple(values.values())

    @classmethod
    def _build(cls, index: Mapping[str, int], values: Sequence[Any]) -> Row:
        row = cls.__new__(cls)
        row._index = index
        row._values = values
        return row

    def __getitem__(self, name: str) -> Any:
        return self._values[self._index[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in Row.__slots__:
            raise AttributeError(name)
        try:
            return self._values[self._index[name]]
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}; it has {', '.join(self._index)}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._index})

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self),)

    def __repr__(self) -> str:
        return f"Row({dict(self)!r})"


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Row)
else:
    from typing import TypeVar

    T = TypeVar("T")
