"""The management interface of RabbitMQ, over HTTP: it lists what AMQP does not. Its counts of queues are as old as the server's last look at them, which is every five seconds unless ``quorum_tick_interval`` says otherwise."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from ..._http.client import HttpClient
from ...errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, UnauthenticatedError, UnavailableError
from ...rpc.peers import endpoint
from ...spi.rpc import RpcCall
from .._net.http import Flow, FlowClient, document, tls
from .settings import Address

_COUNTS: Final = {"disable_stats": "true", "enable_queue_totals": "true"}
"""Parameters that ask for counts alone. They cost little, and a server without statistics tells them too, but not those of streams."""


class Counts(NamedTuple):
    """Messages of a queue, as far as the server has looked.

    Attributes:
        messages: that it has.
        held: how many of these consumers have.
    """

    messages: int | None
    held: int | None


class Management(FlowClient):
    """The connections to one server's interface. The login is that of the component's URL."""

    def __init__(self, url: str, address: Address) -> None:
        super().__init__("")
        self._endpoint = endpoint(url, "rabbitmq: management")
        self.where = f"rabbitmq {self._endpoint.authority} (management)"
        if address.login is None:
            raise InvalidArgumentError(
                "rabbitmq: management wants a user and a password in url: it takes no certificate"
            )
        self._user = address.login[0]
        login = b64encode(":".join(address.login).encode()).decode()
        self._headers = {"authorization": f"Basic {login}"}
        self._vhost = address.vhost
        self._http = HttpClient(tls(address.cafile, "rabbitmq: cafile"))

    def __repr__(self) -> str:
        return f"<Management of {self.where}>"

    def exchanges(self, begin: str) -> Flow[list[str]]:
        """Return the names of exchanges that begin so, in order."""
        found = yield from self._list("exchanges", begin, "name", _COUNTS)
        return [each["name"] for each in found]

    def queues(self, begin: str, *, streams: bool) -> Flow[dict[str, Counts]]:
        """Return queues whose names begin so, and with ``streams`` those too."""
        columns = "name,messages,messages_unacknowledged"
        found = yield from self._list("queues", begin, columns, {} if streams else _COUNTS)
        return {each["name"]: Counts(each.get("messages"), each.get("messages_unacknowledged")) for each in found}

    def consumers(self) -> Flow[list[tuple[str, str, str | None]] | None]:
        """Return the consumers: of which queue, over which connection, from which host; ``None``: the server collects no statistics."""
        found = yield from self._get("consumers/{vhost}", {}, absent=400)
        if found is None:
            return None
        about = [(each["queue"]["name"], each.get("channel_details") or {}) for each in found]
        return [(queue, str(of.get("connection_name", "?")), of.get("peer_host")) for queue, of in about]

    def keys(self, exchange: str) -> Flow[set[str]]:
        """Return the routing keys with which queues are bound to an exchange."""
        path = f"exchanges/{{vhost}}/{quote(exchange, safe='')}/bindings/source"
        found = yield from self._get(path, {"columns": "routing_key"}, absent=404)
        return {each["routing_key"] for each in found or ()}

    def _list(self, kind: str, begin: str, columns: str, more: dict[str, str]) -> Flow[list[dict[str, Any]]]:
        """Return what begins so, in order. A page of it would cost the server as much as all of the virtual host."""
        found = yield from self._get(f"{kind}/{{vhost}}", {"columns": columns, **more})
        return sorted((each for each in found if each["name"].startswith(begin)), key=lambda each: str(each["name"]))

    def _get(self, path: str, query: dict[str, Any], *, absent: int | None = None) -> Flow[Any]:
        """Return the list that answers a request; ``None``: its status is ``absent``."""
        path = f"api/{path.replace('{vhost}', quote(self._vhost, safe=''))}"
        reply = yield RpcCall(path, path, "GET", b"", None, self._headers, urlencode(query))
        if reply.status == absent:
            return None
        if reply.status == 401:
            raise UnauthenticatedError(
                f"{self.where}: it refuses the user {self._user!r}, or that has no tag for it: "
                f"rabbitmqctl set_user_tags {self._user} management"
            )
        if reply.status == 403:
            raise PermissionDeniedError(f"{self.where}: the user {self._user!r} may not see {self._vhost!r}")
        found = document(reply.data) if reply.status == 200 else None
        if reply.status == 404 or (reply.status == 200 and not isinstance(found, list)):
            raise NotFoundError(
                f"{self.where}: there is no virtual host {self._vhost!r}, or this is no management interface: "
                "rabbitmq-plugins enable rabbitmq_management adds one"
            )
        if found is None:
            raise UnavailableError(f"{self.where}: it answers with status {reply.status}")
        return found
