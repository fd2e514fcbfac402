"""Dapr's calls over its HTTP API (Dapr, "Dapr API reference")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from ... import errors
from ..._http.client import HttpClient
from ..._http.http1 import Endpoint
from ..._http.sync_client import NotReached
from ...codec import json
from ...codec.payload import JSON
from ...errors import InternalError, PayloadError
from ...rpc.failures import ERROR_HEADER
from ...spi.configuration import ConfigurationItem
from ...spi.flow import run_sync
from ...spi.operation import Operation
from ...spi.rpc import Body, RpcCall, RpcReply
from ...spi.secret import Secret
from .._sidecar.transport import Flow, StateItem, StateValue, Transport
from .callbacks import DaprCallbacks
from .transport import DaprSidecarError, odd, refusal

T = TypeVar("T")

_REFUSED: Final = b"invalid api token"


class HttpTransport(Transport):
    """See the module."""

    callbacks: DaprCallbacks
    buffers_calls = False  # a call of an application is a stream of its own

    exact = False
    streams = False

    def __init__(self, endpoint: Endpoint, token: str | None, app_id: str, largest: int) -> None:
        super().__init__(endpoint.url)
        self.largest = largest
        self._endpoint = endpoint
        self._app_id = app_id
        self._headers: Mapping[str, str] = {} if token is None else {"dapr-api-token": token}
        self._http = HttpClient()

    # -- requests -----------------------------------------------------------

    def request(
        self,
        verb: str,
        path: str,
        *,
        query: str = "",
        body: Body = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RpcCall:
        """Return a request; ``path`` is percent-encoded, without a ``/`` before it."""
        merged = self._headers if headers is None else {**headers, **self._headers}
        return RpcCall(path, path, verb, body, content_type, merged, query)

    def exchange(self, op: Operation, request: RpcCall) -> RpcReply:
        return run_sync(self._exchange(self._http.send, op, request))

    async def exchange_async(self, op: Operation, request: RpcCall) -> RpcReply:
        return await self._exchange(self._http.send_async, op, request)

    async def _exchange(self, send: Callable[..., Awaitable[RpcReply]], op: Operation, request: RpcCall) -> RpcReply:
        try:
            reply = await send(op, self._endpoint, request, self._app_id)
        except NotReached as error:
            raise errors.UnavailableError(
                f"the sidecar cannot be reached: {error}; start one (cloud-runtimes serve, dapr run), "
                'or work without: runtime="capa"'
            ) from error.__cause__
        if reply.status == 401 and reply.data == _REFUSED:
            raise errors.UnauthenticatedError(
                f"the sidecar at {self.url} refuses the token: give its DAPR_API_TOKEN, in the environment or as api_token="
            )
        return reply

    def writes(self, op: Operation, request: RpcCall) -> bool:
        return request.http_method != "GET" or op.method.service == "rpc"  # of an application's, nothing is known

    def _refuses(self, reply: RpcReply) -> bool:
        return reply.status >= 300

    def close(self) -> None:
        self._closed = True
        self._http.close()

    def _ask(
        self,
        verb: str,
        path: str,
        document: Any = None,
        metadata: Mapping[str, str] | None = None,
        query: Sequence[tuple[str, str]] = (),
        **more: Any,
    ) -> Flow[RpcReply]:
        """Make a request of JSON and return a reply that is no refusal."""
        if document is not None:
            more |= {"body": document if isinstance(document, bytes) else json.encode(document), "content_type": JSON}
        pairs = [*query, *((f"metadata.{name}", value) for name, value in (metadata or {}).items())]
        reply: RpcReply = yield self.request(verb, path, query=urlencode(pairs), **more)
        if reply.status >= 300:
            raise DaprSidecarError(refusal(reply))
        return reply

    def _look(self, read: Callable[[Any], T], verb: str, path: str, document: Any = None, **more: Any) -> Flow[T]:
        """Make a request and return what is read out of the JSON of its reply, of which nothing is believed."""
        reply = yield from self._ask(verb, path, document, **more)
        try:
            content = json.decode(reply.data) if reply.data else {}
        except PayloadError:  # whose words may quote a secret
            raise InternalError("the sidecar's answer is no JSON") from None
        try:
            return read(content)
        except (AttributeError, KeyError, TypeError, ValueError):
            odd()

    # -- the sidecar --------------------------------------------------------

    def ready(self) -> Flow[str]:
        # not /v1.0/healthz: that may wait for the application, which may be waiting here
        reply = yield self.request("GET", "v1.0/healthz/outbound")
        return "" if 200 <= reply.status < 300 else f"status {reply.status}"

    def components(self) -> Flow[dict[str, str]]:
        try:
            return (yield from self._look(_read_components, "GET", "v1.0/metadata"))
        except (DaprSidecarError, InternalError):
            return {}

    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        reply: RpcReply = yield self.request(
            call.http_method,
            f"v1.0/invoke/{service}/method/{call.path}",
            query=call.query,
            body=call.body,
            content_type=call.content_type,
            headers=call.headers,
        )
        if reply.status >= 400 and ERROR_HEADER not in reply.headers:
            error_reply = refusal(reply)
            if error_reply.code == "ERR_DIRECT_INVOKE":
                raise DaprSidecarError(error_reply)
        return reply

    # -- state --------------------------------------------------------------

    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[StateValue | None]:
        query = _consistency(consistency)
        reply = yield from self._ask("GET", _path("v1.0/state", store, key), metadata=metadata, query=query)
        if reply.status == 204:
            return None
        return StateValue(reply.data, reply.headers.get("etag") or None, reply.headers.get("metadata.ttlexpiretime"))

    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, StateValue]]:
        body = {"keys": list(keys), "parallelism": 10, "metadata": dict(metadata)}
        return (yield from self._look(_read_states, "POST", _path("v1.0/state", store, "bulk"), body))

    def save_states(self, store: str, items: Sequence[StateItem]) -> Flow[None]:
        yield from self._ask("POST", _path("v1.0/state", store), b"[" + b",".join(map(_item, items)) + b"]")

    def delete_state(self, store: str, item: StateItem) -> Flow[None]:
        headers = None if item.etag is None else {"if-match": item.etag}
        path, query = _path("v1.0/state", store, item.key), _consistency(item.consistency)
        yield from self._ask("DELETE", path, metadata=item.metadata, query=query, headers=headers)

    def transact(self, store: str, items: Sequence[StateItem], metadata: Mapping[str, str]) -> Flow[None]:
        operations = [
            b'{"operation":"%b","request":%b}' % (b"delete" if item.value is None else b"upsert", _item(item))
            for item in items
        ]
        body = b'{"operations":[' + b",".join(operations) + b'],"metadata":' + json.encode(dict(metadata)) + b"}"
        yield from self._ask("POST", _path("v1.0/state", store, "transaction"), body)

    # -- secrets, configuration, locks --------------------------------------

    def get_secret(self, store: str, key: str, metadata: Mapping[str, str]) -> Flow[Secret]:
        return (yield from self._secrets(_path("v1.0/secrets", store, key), metadata, b'{"":%b}'))[""]

    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        return (yield from self._secrets(_path("v1.0/secrets", store, "bulk"), metadata, b"%b"))

    def _secrets(self, path: str, metadata: Mapping[str, str], form: bytes) -> Flow[dict[str, Secret]]:
        reply = yield from self._ask("GET", path, metadata=metadata)
        secrets = _read_secrets(form % (reply.data or b"{}"))
        del reply  # no frame of an error shows it
        return odd() if secrets is None else secrets

    def get_configuration(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Flow[dict[str, ConfigurationItem]]:
        query = [("key", key) for key in keys]
        path = _path("v1.0/configuration", store)
        return (yield from self._look(_read_configuration, "GET", path, metadata=metadata, query=query))

    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        body = {"resourceId": resource, "lockOwner": owner, "expiryInSeconds": seconds}
        path = _path("v1.0-alpha1/lock", store)
        return (yield from self._look(lambda content: content.get("success", False) is True, "POST", path, body))

    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        body = {"resourceId": resource, "lockOwner": owner}
        path = _path("v1.0-alpha1/unlock", store)
        return (yield from self._look(lambda content: int(content.get("status", 0)), "POST", path, body))

    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        path = _path("v1.0/publish", pubsub, topic)
        yield from self._ask("POST", path, metadata=metadata, body=data, content_type=content_type)

    def publish_bulk(self, pubsub: str, topic: str, events: Sequence[tuple[bytes, Mapping[str, str]]]) -> Flow[None]:
        body = [
            b'{"entryId":"%d","event":%b,"contentType":"application/cloudevents+json","metadata":%b}'
            % (number, event, json.encode(dict(metadata)))
            for number, (event, metadata) in enumerate(events)
        ]
        path, data = _path("v1.0/publish/bulk", pubsub, topic), b"[" + b",".join(body) + b"]"
        reply = yield self.request("POST", path, body=data, content_type=JSON)
        if reply.status >= 300:
            raise DaprSidecarError(refusal(reply), _failed_entries(reply.data))

    def schedule_job(self, name: str, job: Mapping[str, Any], overwrite: bool) -> Flow[None]:
        yield from self._ask("POST", _path("v1.0-alpha1/jobs", name), {**job, "overwrite": overwrite})

    def get_job(self, name: str) -> Flow[Any]:
        return (yield from self._look(lambda content: content, "GET", _path("v1.0-alpha1/jobs", name)))

    def delete_job(self, name: str) -> Flow[None]:
        yield from self._ask("DELETE", _path("v1.0-alpha1/jobs", name))

    def invoke_binding(
        self, name: str, operation: str, data: bytes | None, metadata: Mapping[str, str]
    ) -> Flow[tuple[bytes, Mapping[str, str]]]:
        body: dict[str, Any] = {"operation": operation, "metadata": dict(metadata)}
        if data is not None:  # none would be the text "null", which is base64
            body["data"] = data.decode()
        reply = yield from self._ask("POST", _path("v1.0/bindings", name), body)
        reply_metadata = {
            key.removeprefix("metadata."): text for key, text in reply.headers.items() if key.startswith("metadata.")
        }
        return reply.data, reply_metadata


def _path(*parts: str) -> str:
    """Return a path; all but its beginning are one segment each. Dapr cleans paths, so that a dot would not be safe."""
    return "/".join([parts[0], *(quote(part, safe="").replace(".", "%2E") for part in parts[1:])])


def _consistency(consistency: str | None) -> Sequence[tuple[str, str]]:
    return () if consistency is None else (("consistency", consistency),)


def _item(item: StateItem) -> bytes:
    """Return a save, or a delete of a transaction."""
    options: dict[str, str] = {}
    if item.create:
        options["concurrency"] = "first-write"
    if item.consistency is not None:
        options["consistency"] = item.consistency
    rest: dict[str, Any] = {"key": item.key}
    for name, value in (("etag", item.etag), ("metadata", dict(item.metadata)), ("options", options)):
        if value:
            rest[name] = value
    head = json.encode(rest)
    return head if item.value is None else head[:-1] + b',"value":' + item.value + b"}"


def _read_components(content: Any) -> dict[str, str]:
    return {str(each["name"]): str(each["type"]) for each in content["components"]}


def _read_states(content: Any) -> dict[str, StateValue]:
    values: dict[str, StateValue] = {}
    for each in content or ():
        key: str = each["key"]
        if each.get("error"):
            raise InternalError(f"the sidecar cannot read {key!r}: {str(each['error'])[:1000]}")
        if "data" in each or each.get("etag"):
            expires = (each.get("metadata") or {}).get("ttlExpireTime")
            values[key] = StateValue(json.encode(each.get("data")), each.get("etag") or None, expires)
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_configuration(content: Any) -> dict[str, ConfigurationItem]:
    return {
        key: ConfigurationItem(
            key,
            str(each.get("value") or ""),
            str(each.get("version") or "") or None,
            metadata={name: _text(text) for name, text in (each.get("metadata") or {}).items()},
        )
        for key, each in (content or {}).items()
    }


def _read_secrets(data: bytes) -> dict[str, Secret] | None:
    """Read secrets of an answer; ``None``: it is of another form. No error leaves here, whose frames would show it."""
    try:
        content: Any = json.decode(data)
        return {key: Secret(entries) for key, entries in content.items() if isinstance(entries, dict) or odd()}
    except (PayloadError, InternalError, errors.InvalidArgumentError, AttributeError):
        return None


def _failed_entries(data: bytes) -> frozenset[str] | None:
    """Return the ids of the entries that failed; ``None``: they are not told."""
    try:
        content: Any = json.decode(data)
        return frozenset(str(each["entryId"]) for each in content["failedEntries"])
    except (PayloadError, KeyError, TypeError):
        return None
