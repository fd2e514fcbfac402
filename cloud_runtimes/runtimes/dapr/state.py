"""State over Dapr's HTTP API (Dapr, "State management API reference")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode

from ..._operation import Operation
from ...codec import json
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, ConflictError, InternalError, PayloadError, UnsupportedError
from ...rpc.driver import RpcReply
from ...state import driver as spi
from ...state.driver import StateDriver, StateWrite, StoredValue
from .failures import error, refusal
from .link import Flow, Link, Request
from .values import unwrap, wrap

__all__ = ["DaprState"]

_BATCH: Final = 1 << 20
"""Bytes of one bulk save; a sidecar takes 4 MiB unless told otherwise."""
_REDIS: Final = "state.redis"
_ABSENT: Final = "-1"
"""The etag by which Redis only creates: its ``first-write`` overwrites what was written otherwise."""
_NO_TTL: Final = "-1"


class DaprState(StateDriver):
    """One store of the sidecar."""

    features = frozenset({spi.CONSISTENCY, spi.ETAG, spi.FIRST_WRITE, spi.TTL, spi.TRANSACTION, spi.TRANSACTION_ETAG})

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._path = f"v1.0/state/{segment(name)}"
        self._kind: str | None = None

    # -- reading ------------------------------------------------------------

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self._link.run(op, self._get(op, key, consistency))

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return await self._link.run_async(op, self._get(op, key, consistency))

    def _get(self, op: Operation, key: str, consistency: str | None) -> Flow[StoredValue | None]:
        pairs = _metadata_query(op.metadata)
        if consistency is not None:
            pairs.append(("consistency", consistency))
        reply = yield self._link.request("GET", f"{self._path}/{segment(key)}", query=urlencode(pairs))
        if reply.status == 204:
            return None
        if reply.status != 200:
            self._refused(reply, applied=False)
        data, content_type = unwrap(reply.data)
        expires = reply.headers.get("metadata.ttlexpiretime")
        return StoredValue(data, content_type, reply.headers.get("etag") or None, _moment(expires))

    def get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> dict[str, StoredValue]:
        return self._link.run(op, self._get_bulk(op, keys, consistency))

    async def get_bulk_async(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue]:
        return await self._link.run_async(op, self._get_bulk(op, keys, consistency))

    def _get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None) -> Flow[dict[str, StoredValue]]:
        found: dict[str, StoredValue] = {}
        if not keys:
            return found
        if consistency is not None:  # which the bulk form does not take
            for key in keys:
                item = yield from self._get(op, key, consistency)
                if item is not None:
                    found[key] = item
            return found
        body = json.encode({"keys": list(keys), "parallelism": 10, "metadata": dict(op.metadata or {})})
        reply = yield self._link.request("POST", f"{self._path}/bulk", body=body, content_type=JSON)
        if reply.status == 204:
            return found
        if reply.status != 200:
            self._refused(reply, applied=False)
        try:
            items: Any = json.decode(reply.data)
        except PayloadError as error_:
            raise InternalError(f"the sidecar's answer is no JSON: {error_.message}") from error_
        for each in items if isinstance(items, list) else ():
            if not isinstance(each, dict) or not isinstance(each.get("key"), str):
                raise InternalError("the sidecar's answer is no list of items")
            if each.get("error"):
                raise InternalError(f"the sidecar cannot read {each.get('key')!r}: {str(each['error'])[:1000]}")
            if "data" in each or each.get("etag"):
                data, content_type = unwrap(json.encode(each.get("data")))
                expires = (each.get("metadata") or {}).get("ttlExpireTime")
                found[each["key"]] = StoredValue(data, content_type, each.get("etag") or None, _moment(expires))
        return found

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        raise UnsupportedError("Dapr has no list of keys")

    async def list_keys_async(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        raise UnsupportedError("Dapr has no list of keys")

    # -- writing ------------------------------------------------------------

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        return self._link.run(op, self._write(op, writes, atomic))

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        return await self._link.run_async(op, self._write(op, writes, atomic))

    def _write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool
    ) -> Flow[Mapping[int, CloudRuntimesError]]:
        if self._kind is None:
            self._kind = yield from self._look()
        if atomic and op.method.name == "transaction":
            yield from self._transact(op, writes)
            return {}
        if atomic:
            yield from self._write_one(op, writes[0])
            return {}
        failed: dict[int, CloudRuntimesError] = {}
        place = 0
        while place < len(writes):
            end, bodies = self._batch(op, writes, place)
            if len(bodies) > 1:
                reply = yield self._save(bodies)
                if reply.status == 204:
                    place = end
                    continue
            # one alone, or one by one, since the sidecar does not tell which of several failed
            for index in range(place, max(end, place + 1)):
                try:
                    yield from self._write_one(op, writes[index])
                except CloudRuntimesError as one:
                    failed[index] = one
            place = max(end, place + 1)
        return failed

    def _batch(self, op: Operation, writes: Sequence[StateWrite], place: int) -> tuple[int, list[bytes]]:
        """Return saves without a condition that follow one another, and where they end."""
        bodies: list[bytes] = []
        size = 0
        for index in range(place, len(writes)):
            write = writes[index]
            if write.data is None or write.etag is not None or write.create or size > _BATCH:
                return index, bodies
            bodies.append(self._item(op, write))
            size += len(bodies[-1])
        return len(writes), bodies

    def _save(self, bodies: Sequence[bytes]) -> Request:
        return self._link.request("POST", self._path, body=b"[" + b",".join(bodies) + b"]", content_type=JSON)

    def _write_one(self, op: Operation, write: StateWrite) -> Flow[None]:
        if write.data is not None:
            reply = yield self._save([self._item(op, write)])
        else:
            metadata = {**(op.metadata or {}), **(write.metadata or {})}
            reply = yield self._link.request(
                "DELETE",
                f"{self._path}/{segment(write.key)}",
                query=urlencode(_metadata_query(metadata)),
                headers=None if write.etag is None else {"if-match": write.etag},
            )
        if reply.status >= 300:
            if write.etag is not None and reply.status == 400 and "invalid etag" in refusal(reply).message:
                raise _conflict(write)  # of a form that this store never gave
            if reply.status == 409:
                raise _conflict(write)
            self._refused(reply, applied=True)

    def _transact(self, op: Operation, writes: Sequence[StateWrite]) -> Flow[None]:
        if self._kind == _REDIS and any(write.etag is not None or write.create for write in writes):
            raise UnsupportedError(
                f"{self._name!r} is Redis behind Dapr, where a failed condition does not undo the rest of a transaction: "
                "leave the conditions out"
            )
        operations = [
            b'{"operation":"%b","request":%b}' % (b"delete" if write.data is None else b"upsert", self._item(op, write))
            for write in writes
        ]
        metadata = json.encode(dict(op.metadata or {}))
        body = b'{"operations":[' + b",".join(operations) + b'],"metadata":' + metadata + b"}"
        reply = yield self._link.request("POST", f"{self._path}/transaction", body=body, content_type=JSON)
        if reply.status < 300:
            return
        # a condition that did not hold is told like any other failure: whether it holds now tells more
        for write in writes:
            if write.etag is not None or write.create:
                now = yield from self._get(op, write.key, "strong")
                if (now is not None) if write.create else (now is None or now.etag != write.etag):
                    raise _conflict(write)
        self._refused(reply, applied=True)

    def _item(self, op: Operation, write: StateWrite) -> bytes:
        """Return a save, or a delete of a transaction, as JSON."""
        metadata = {**(op.metadata or {}), **(write.metadata or {})}
        options: dict[str, str] = {}
        etag = write.etag
        if write.create:
            if self._kind == _REDIS:
                etag = _ABSENT
            else:
                options["concurrency"] = "first-write"
        if write.consistency is not None:
            options["consistency"] = write.consistency
        if write.data is not None:
            metadata.pop("ttlInSeconds", None)
            if write.ttl_ms is not None:
                metadata["ttlInSeconds"] = str(-(-write.ttl_ms // 1000))
            elif self._kind == _REDIS:  # which keeps an earlier one otherwise
                metadata["ttlInSeconds"] = _NO_TTL
        rest: dict[str, Any] = {"key": write.key}
        for name, value in (("etag", etag), ("metadata", metadata), ("options", options)):
            if value:
                rest[name] = value
        if write.data is None:
            return json.encode(rest)
        return json.encode(rest)[:-1] + b',"value":' + wrap(write.data, write.content_type) + b"}"

    def _look(self) -> Flow[str]:
        """Return the type of the component, as the sidecar tells it; ``""``: it does not."""
        reply = yield self._link.request("GET", "v1.0/metadata")
        if reply.status != 200:
            return ""
        try:
            document: Any = json.decode(reply.data)
            return next((str(each["type"]) for each in document["components"] if each["name"] == self._name), "")
        except (CloudRuntimesError, KeyError, TypeError):
            return ""

    def _refused(self, reply: RpcReply, *, applied: bool) -> NoReturn:
        raise error(refusal(reply), applied=applied)


def segment(text: str) -> str:
    """Return text as one segment of a path; Dapr cleans paths, so that a dot would not be safe."""
    return quote(text, safe="").replace(".", "%2E")


def _conflict(write: StateWrite) -> ConflictError:
    if write.create:
        return ConflictError(f"{write.key!r} exists: concurrency='first-write' only creates")
    return ConflictError(f"{write.key!r} has changed: etag {write.etag!r} is not its current one; read it again")


def _metadata_query(metadata: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return [(f"metadata.{name}", value) for name, value in (metadata or {}).items()]


def _moment(text: Any) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None
