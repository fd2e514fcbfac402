"""Database (alpha): SQL with bound parameters, typed rows, streams and transactions."""

from ._rows import RowStream
from .driver import DatabaseCursor, DatabaseDriver, DatabaseSession
from .service import DatabaseService
from .transaction import DatabaseTransaction
from .types import Column, ColumnInfo, ColumnKind, ExecuteResult, Isolation, Row, TableSchema

__all__ = [
    "Column",
    "ColumnInfo",
    "ColumnKind",
    "DatabaseCursor",
    "DatabaseDriver",
    "DatabaseService",
    "DatabaseSession",
    "DatabaseTransaction",
    "ExecuteResult",
    "Isolation",
    "Row",
    "RowStream",
    "TableSchema",
]
