"""What a call is called in OpenTelemetry's semantic conventions: the name, kind and attributes of its span.

RPC: "Semantic conventions for RPC spans"; pub/sub: "… for messaging spans"; databases: "… for database client spans" (version 1.44). For the other services there are none: their attributes are ours, ``cloud_runtimes.*``.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, get_args

from ..spi import database as sql
from ..spi.operation import Operation
from ..spi.pubsub import OutgoingBatch
from ..spi.rpc import RpcCall

__all__ = ["UNKNOWN", "Description", "Place", "described", "messaging", "place"]

# the first word of a statement, behind comments and parentheses
_WORD: Final = re.compile(r"(?:\s++|\(|--[^\n]*+(?:\n|$)|/\*(?>.*?\*/))*+([A-Za-z]{1,32})", re.DOTALL)
_STATEMENTS: Final = get_args(sql.Statement)
_TABLE_OPERATIONS: Final[dict[type, str]] = {
    sql.Insert: "INSERT",
    sql.Update: "UPDATE",
    sql.CreateTable: "CREATE TABLE",
    sql.DropTable: "DROP TABLE",
}


class Description(NamedTuple):
    """A span before it starts."""

    name: str
    kind: str
    attributes: dict[str, Any]


class Place(NamedTuple):
    """What a component is.

    Attributes:
        vendor: the folder of its driver, ``sqlite``, ``redis`` …; of one from elsewhere its package.
        system: a database's ``db.system.name``.
        namespace: its ``db.namespace``.
    """

    vendor: str
    system: str
    namespace: str | None


UNKNOWN: Final = Place("_OTHER", "other_sql", None)


def place(driver: Any) -> Place:
    """Return what the component of a driver is."""
    parts = type(driver).__module__.split(".")
    vendor = parts[2] if parts[:2] == ["cloud_runtimes", "components"] and len(parts) > 2 else parts[0]
    return Place(vendor, getattr(driver, "system", "") or "other_sql", getattr(driver, "namespace", None))


def described(op: Operation, at: Place, args: tuple[Any, ...]) -> Description:
    """Return the description of a call of a driver; of its arguments only those of public types tell anything."""
    service, subject = op.method.service, args[0] if args else None
    if isinstance(subject, RpcCall):
        name = f"{op.component}/{subject.method}"
        return Description(name, "client", {"rpc.system.name": "cloud_runtimes", "rpc.method": name})
    if isinstance(subject, OutgoingBatch):
        return messaging(op, at, subject.topic, len(subject))
    if service == "database":
        return _database(op, at, subject if isinstance(subject, _STATEMENTS) else None)
    attributes = {
        "cloud_runtimes.service": service,
        "cloud_runtimes.operation": op.method.name,
        "cloud_runtimes.component": op.component,
    }
    return Description(str(op.method), "client", attributes)


def messaging(op: Operation, at: Place, topic: str, count: int | None = None) -> Description:
    """Return the description of a call that publishes; of a batch with the count of its events."""
    attributes: dict[str, Any] = {
        "messaging.system": at.vendor,
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "cloud_runtimes.component": op.component,
    }
    if count is not None:
        attributes["messaging.batch.message_count"] = count
    return Description(f"publish {topic}", "producer", attributes)


def _database(op: Operation, at: Place, statement: sql.Statement | None) -> Description:
    attributes: dict[str, Any] = {"db.system.name": at.system, "cloud_runtimes.component": op.component}
    if at.namespace:
        attributes["db.namespace"] = at.namespace
    operation = _TABLE_OPERATIONS.get(type(statement), op.method.name.upper())
    table: str | None = getattr(statement, "table", None)
    if isinstance(statement, (sql.Query, sql.Execute, sql.ExecuteMany)):
        word = _WORD.match(statement.sql.text)
        if word is not None:
            operation = word[1].upper()
    if isinstance(statement, sql.ExecuteMany) and len(statement.rows) > 1:
        attributes["db.operation.batch.size"] = len(statement.rows)
    attributes["db.operation.name"] = operation
    if table is not None:
        attributes["db.collection.name"] = table
    target = table or at.namespace or at.system
    return Description(f"{operation} {target}", "client", attributes)
