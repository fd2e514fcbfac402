"""The RPC service: calling methods of other applications, and offering one's own."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from .._core.arguments import CLIENT_TIMEOUT, check_timeout
from .._service import Service, ServiceFrame, error_context, run_until_closed, run_until_closed_async
from ..spi import rpc as spi
from ..spi.operation import Method, Operation
from ..spi.rpc import RpcCall, RpcDriver
from .failures import failure
from .host import Host, Lifespans, deadline
from .prepare import carrying, check_service, prepare
from .types import CallOptions, RpcResponse, decode_body

if TYPE_CHECKING:
    from .._service import ClientContext
    from .asgi import RpcApp
    from .server import RpcServer

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_INVOKE_METHOD = Method("rpc", "invoke_method", repeatable=False)
_INVOKE = Method("rpc", "invoke", repeatable=False)
_SERVE = Method("rpc", "serve", repeatable=False, writes=False, handle=True)


class _RpcFrame(ServiceFrame):
    """Look up services by the names that applications may have; calls carry the trace context."""

    def driver(self, name: str) -> Any:
        """Return the driver for calls of a service."""
        driver = self.drivers.get(name)
        return driver if driver is not None else super().driver(check_service(name))

    def outgoing(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments as the driver gets them, inside of all interceptors."""
        return (carrying(args[0]), *args[1:]) if args and isinstance(args[0], RpcCall) else args


class RpcService(Service):
    """Calls methods of services by name, and offers this application's own.

    Where a service is found is the runtime's matter. Capa looks in this process, in the configuration (``[rpc.<service>]``), and in the home, where the processes that share it find each other.
    """

    name = "rpc"
    _frame_type = _RpcFrame

    def __init__(self, context: ClientContext, *, lifespan: Lifespans = lambda timeout: None) -> None:
        super().__init__(context)
        self._host = Host(self._frame, lifespan)

    # -- calling ----------------------------------------------------------

    def _calling(
        self,
        operation: Method,
        service: str,
        method: str,
        data: Any,
        http_method: str,
        content_type: str | None,
        headers: Mapping[str, str] | None,
        query: Mapping[str, Any] | None,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> tuple[Operation, RpcDriver, RpcCall]:
        driver: RpcDriver = self._frame.drivers.get(service) or self._frame.driver(service)
        call = prepare(method, data, http_method, content_type, headers, query, metadata)
        features = driver.features
        if http_method != "POST" and spi.HTTP_METHOD not in features:
            self._frame.need(driver, spi.HTTP_METHOD, f"http_method={http_method!r}", service)
        if (headers is not None or query is not None) and spi.HEADERS not in features:
            self._frame.need(driver, spi.HEADERS, "headers= and query=", service)
        op = Operation(
            operation, service, self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout), metadata
        )
        # a handler's own calls end with the call that it serves
        inherited = deadline.get()
        if inherited is not None and (op.deadline is None or inherited < op.deadline):
            op.deadline = inherited
            op.timeout = op.remaining()
            if not op.timeout:
                raise op.timed_out("its own caller, who has given up")
        return op, driver, call if self._frame.interceptors else carrying(call)

    @overload
    def invoke_method(
        self, service: str, method: str, data: Any = None, *, type: builtins.type[T], **options: Unpack[CallOptions]
    ) -> T: ...
    @overload
    def invoke_method(
        self, service: str, method: str, data: Any = None, *, type: Any = None, **options: Unpack[CallOptions]
    ) -> Any: ...
    @error_context(_INVOKE_METHOD)
    def invoke_method(
        self,
        service: str,
        method: str,
        data: Any = None,
        *,
        http_method: str = "POST",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Call a method and return its decoded reply; ``None`` where the reply has no body.

        >>> with client.rpc.serving():
        ...     client.rpc.invoke_method("shop", "add", [1, 2], type=int)
        3

        Args:
            service, method: the ``app_id`` of an application, and the name of its method, which may hold ``/``.
            data: bytes as they are, ``str`` under ``text/*`` and XML, the rest as JSON or MessagePack; ``None``: no body. A binary file or an iterator of bytes is sent piece by piece and never whole in memory. `invoke_method_async` also takes an async iterator.
            http_method, content_type: the method of HTTP, and how ``data`` is encoded, by default by the payload rules.
            headers, query: visible ASCII without what belongs to the transport; name → value or values.
            type: what to decode into, strictly; ``bytes`` gives the reply undecoded.
            timeout: seconds; it travels with the call, and the handler sees what is left. A plain handler in this process, called from a sync method, is not left before it returns. In a handler never more than its own caller still waits.
            metadata: for the component.

        Raises:
            UnavailableError: the service is unknown or cannot be reached; the message has the remedy.
            NotFoundError: it has no such method.
            DeadlineExceededError: no answer within ``timeout``.
            PayloadError: the reply does not fit ``type``.
            CloudRuntimesError: the method failed: the error that its handler raised, else one by the status; ``error.response`` has all that came.
        """
        op, driver, call = self._calling(
            _INVOKE_METHOD, service, method, data, http_method, content_type, headers, query, timeout, metadata
        )
        reply = self._frame.call(op, driver.invoke, call)
        if reply[0] >= 300:  # a redirect is never followed, and no reply
            raise failure(reply, service, method)
        return decode_body(reply[3], reply[2], type)

    @overload
    async def invoke_method_async(
        self, service: str, method: str, data: Any = None, *, type: builtins.type[T], **options: Unpack[CallOptions]
    ) -> T: ...
    @overload
    async def invoke_method_async(
        self, service: str, method: str, data: Any = None, *, type: Any = None, **options: Unpack[CallOptions]
    ) -> Any: ...
    @error_context(_INVOKE_METHOD)
    async def invoke_method_async(
        self,
        service: str,
        method: str,
        data: Any = None,
        *,
        http_method: str = "POST",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Call a method and return its decoded reply; ``None`` where the reply has no body.

        >>> with client.rpc.serving():
        ...     client.rpc.invoke_method("shop", "add", [1, 2], type=int)
        3

        Args:
            service, method: the ``app_id`` of an application, and the name of its method, which may hold ``/``.
            data: bytes as they are, ``str`` under ``text/*`` and XML, the rest as JSON or MessagePack; ``None``: no body. A binary file or an iterator of bytes is sent piece by piece and never whole in memory. `invoke_method_async` also takes an async iterator.
            http_method, content_type: the method of HTTP, and how ``data`` is encoded, by default by the payload rules.
            headers, query: visible ASCII without what belongs to the transport; name → value or values.
            type: what to decode into, strictly; ``bytes`` gives the reply undecoded.
            timeout: seconds; it travels with the call, and the handler sees what is left. A plain handler in this process, called from a sync method, is not left before it returns. In a handler never more than its own caller still waits.
            metadata: for the component.

        Raises:
            UnavailableError: the service is unknown or cannot be reached; the message has the remedy.
            NotFoundError: it has no such method.
            DeadlineExceededError: no answer within ``timeout``.
            PayloadError: the reply does not fit ``type``.
            CloudRuntimesError: the method failed: the error that its handler raised, else one by the status; ``error.response`` has all that came.
        """
        op, driver, call = self._calling(
            _INVOKE_METHOD, service, method, data, http_method, content_type, headers, query, timeout, metadata
        )
        reply = await self._frame.call_async(op, driver.invoke_async, call)
        if reply[0] >= 300:  # a redirect is never followed, and no reply
            raise failure(reply, service, method)
        return decode_body(reply[3], reply[2], type)

    @error_context(_INVOKE)
    def invoke(
        self,
        service: str,
        method: str,
        data: Any = None,
        *,
        http_method: str = "POST",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> RpcResponse:
        """Call a method and return whatever it answered, of any status.

        Args:
            service, method, data, http_method, content_type, headers, query, timeout, metadata: as in `invoke_method`.

        Raises:
            UnavailableError: the service was not reached.
            DeadlineExceededError: no answer within ``timeout``.
        """
        op, driver, call = self._calling(
            _INVOKE, service, method, data, http_method, content_type, headers, query, timeout, metadata
        )
        return _response(self._frame.call(op, driver.invoke, call))

    @error_context(_INVOKE)
    async def invoke_async(
        self,
        service: str,
        method: str,
        data: Any = None,
        *,
        http_method: str = "POST",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> RpcResponse:
        """Call a method and return whatever it answered, of any status.

        Args:
            service, method, data, http_method, content_type, headers, query, timeout, metadata: as in `invoke_method`.

        Raises:
            UnavailableError: the service was not reached.
            DeadlineExceededError: no answer within ``timeout``.
        """
        op, driver, call = self._calling(
            _INVOKE, service, method, data, http_method, content_type, headers, query, timeout, metadata
        )
        return _response(await self._frame.call_async(op, driver.invoke_async, call))

    # -- offering ---------------------------------------------------------

    def register_method(self, method: str, handler: Callable[..., Any], *, type: Any = None) -> None:
        """Offer a method. Callers in this process find it at once, those in others once it is served.

        Args:
            method: its name; may hold ``/``.
            handler: plain or ``async``. A plain one runs in a thread, which for a sync call from this process is the caller's own. Its parameters get what they are annotated with: the data, the `RpcRequest`, the `CloudRuntimesClient`. Without annotations the first one gets the data and the second the `RpcRequest`. It returns a payload, ``None`` (no body) or an `RpcResponse`. A `CloudRuntimesError` that it raises reaches the caller with class, code and message; another exception as a bare status 500, logged here.
            type: what data is decoded into, strictly, where no annotation says it; what does not fit is the caller's `PayloadError`.

        Raises:
            InvalidArgumentError: the name is taken or no name, the handler takes something else, or an annotation cannot be resolved.
        """
        self._frame.context.runtime(self._frame)  # a closed client refuses
        self._host.register(method, handler, type)

    def method(self, name: str, *, type: Any = None) -> Callable[[F], F]:
        """Return a decorator for `register_method`: ``@client.rpc.method("my-method")``.

        >>> @client.rpc.method("add")
        ... def add(numbers: list[int]) -> int:
        ...     return sum(numbers)
        >>> with client.rpc.serving():
        ...     client.rpc.invoke_method("shop", "add", [1, 2])
        3

        Args:
            name: of the method; may hold ``/``.
            type: what data is decoded into, as in `register_method`.

        Raises:
            InvalidArgumentError: on decorating, as in `register_method`.
        """

        def register(handler: F) -> F:
            self.register_method(name, handler, type=type)
            return handler

        return register

    def _hosting(self) -> RpcDriver:
        """Return the driver that lets others find this application."""
        name = self._frame.context.settings.app_id
        driver: RpcDriver = self._frame.driver(name)
        self._frame.need(driver, spi.HOST, "serving methods", name)
        return driver

    def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Serve the registered methods until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `serve_async` serves in the running loop, which also runs the async handlers. Cancelling it ends it too.

        Args:
            host: address to listen on; other than loopback only in networks that may see what is sent. ``"fd://3"`` is a socket that listens already, and that this process inherited.
            port: to listen on; else ``APP_PORT``, else a free one. On NATS calls come without a port, and HTTP is served beside only on a port that is given.
            timeout, metadata: seconds to start, and again to end; and what is for the component.

        Raises:
            InvalidArgumentError, UnavailableError: ``host`` or ``port`` is wrong, or the port is taken.
        """
        run_until_closed(self.serving(host=host, port=port, timeout=timeout, metadata=metadata))

    async def serve_async(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Serve the registered methods until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `serve_async` serves in the running loop, which also runs the async handlers. Cancelling it ends it too.

        Args:
            host: address to listen on; other than loopback only in networks that may see what is sent. ``"fd://3"`` is a socket that listens already, and that this process inherited.
            port: to listen on; else ``APP_PORT``, else a free one. On NATS calls come without a port, and HTTP is served beside only on a port that is given.
            timeout, metadata: seconds to start, and again to end; and what is for the component.

        Raises:
            InvalidArgumentError, UnavailableError: ``host`` or ``port`` is wrong, or the port is taken.
        """
        await run_until_closed_async(self.serving(host=host, port=port, timeout=timeout, metadata=metadata))

    def serving(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> RpcServer:
        """Return a handle that serves in the background: ``with`` in a thread of its own, ``async with`` in the running loop.

        Args:
            host, port, timeout, metadata: as in `serve`.

        Raises:
            InvalidArgumentError: ``host`` or ``port`` is wrong.
            UnavailableError: on entering, the port is taken.
        """
        from .._core.arguments import check_metadata
        from .server import RpcServer

        check_metadata(metadata)
        return RpcServer(self, host, port, check_timeout(timeout, self._frame.context.timeout))

    def asgi_app(self) -> RpcApp:
        """Return an ASGI application with the registered methods, to mount in Starlette, FastAPI or any server.

        It asks callers for the same token as `serve` does (docs/configuration.md, "RPC"); the health check and the questions of sidecars need none. It is in no registry: callers get its address by configuration.
        """
        from .asgi import RpcApp

        self._host.mounted = True
        return RpcApp(self._host, self._hosting, "")

    def _operation(self, timeout: float | None) -> Operation:
        return Operation(_SERVE, self._frame.context.settings.app_id, timeout)


def _response(reply: tuple[int, Mapping[str, str], str | None, bytes]) -> RpcResponse:
    status, headers, content_type, data = reply
    return RpcResponse(status, dict(headers), content_type, data)
