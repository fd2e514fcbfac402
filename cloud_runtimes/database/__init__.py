"""Database (alpha): SQL with bound parameters, typed rows, streams and transactions."""

from ..spi.database import Column, ColumnInfo, ColumnKind, ExecuteResult, Isolation, TableSchema
from ._rows import RowStream
from .service import DatabaseService
from .transaction import DatabaseTransaction
from .types import Row

__all__ = [
    "Column",
    "ColumnInfo",
    "ColumnKind",
    "DatabaseService",
    "DatabaseTransaction",
    "ExecuteResult",
    "Isolation",
    "Row",
    "RowStream",
    "TableSchema",
]
