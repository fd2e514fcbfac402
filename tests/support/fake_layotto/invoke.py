"""Hello, and calls of services by a route over HTTP."""

from __future__ import annotations

import http.client
import socket
from typing import Any

from cloud_runtimes.protocols.layotto.messages import messages

from .quirks import Quirks, Refuse

__all__ = ["Invoke"]

_VERBS = ["NONE", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
_PASSED_BY = ("grpc-", "te", "user-agent", "content-type")
_OF_A_CONNECTION = ("connection", "content-length", "content-type", "date", "server", "transfer-encoding")
_TIMEOUT = 3000


class Invoke:
    """See the module.

    Attributes:
        routes: service → ``host:port``.
    """

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks
        self.routes: dict[str, str] = {}

    def SayHello(self, request: Any, context: Any) -> Any:
        if request.service_name != "helloworld":
            raise Refuse("UNKNOWN", "no instance found")
        return messages().SayHelloResponse(hello="hi")

    def InvokeService(self, request: Any, context: Any) -> Any:
        asked = request.message
        address = self.routes.get(request.id)
        if address is None:
            raise Refuse("UNAVAILABLE", f"no route for {request.id}")
        headers = {key: value for key, value in context.invocation_metadata() if not key.startswith(_PASSED_BY)}
        if self._quirks.tells_of_grpc:
            own = {"user-agent": "grpc", "grpc-accept-encoding": "identity, deflate, gzip", "query_string": ""}
            headers = own | headers
        timeout = int(headers.pop("rpc_request_timeout", _TIMEOUT))
        headers["content-type"] = "application/grpc" if self._quirks.only_200 else asked.content_type
        verb = _VERBS[asked.http_extension.verb] if asked.HasField("http_extension") else "GET"
        path = f"/{asked.method.lstrip('/')}"
        if asked.http_extension.querystring:
            path += f"?{asked.http_extension.querystring}"
        # the authority of gRPC comes as a line that is no header of HTTP, which no library writes
        head = {"host": "localhost", "content-length": str(len(asked.data.value)), "id": request.id, **headers}
        if self._quirks.writes_authority:
            head[": authority"] = address
        lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout / 1000) as connection:
                connection.sendall("\r\n".join(lines).encode("latin-1") + asked.data.value)
                reply = http.client.HTTPResponse(connection, method=verb)
                reply.begin()
                body = reply.read()
        except TimeoutError:
            raise Refuse("DEADLINE_EXCEEDED", "timeout") from None
        except (OSError, http.client.HTTPException) as error:
            raise Refuse("UNAVAILABLE", str(error)) from None
        if reply.status != 200 and self._quirks.only_200:
            raise Refuse("UNAVAILABLE", f"http response code {reply.status}, body: {body!r}")
        initial_metadata = [
            (name.lower(), value) for name, value in reply.getheaders() if name.lower() not in _OF_A_CONNECTION
        ]
        context.send_initial_metadata(initial_metadata)
        kinds = messages()
        made_up = "text/plain; charset=utf-8" if self._quirks.tells_of_grpc else ""
        kind = reply.getheader("content-type") or made_up
        return kinds.InvokeResponse(data=kinds.Any(value=body), content_type=kind)
