"""The handle that serves a client's methods: over HTTP, or over the connection of a driver that has one for it."""

from __future__ import annotations

import os
import re
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .._core import fork
from .._core.handles import close_by
from .._core.logs import logger
from .._core.threads import Background
from .._http.threaded import INHERITED, listen
from .._service import RunningHandle, run_in
from ..errors import ClosedError, CloudRuntimesError, InternalError, InvalidArgumentError, PermissionDeniedError
from ..spi.operation import Operation
from ..spi.rpc import Announcement, CallSource, Guard, RpcDriver

if TYPE_CHECKING:
    import asyncio

    from .._http.asgi_server import Server
    from .service import RpcService

_ALL: Final = ("0.0.0.0", "::")
_CANCELLED: Final = 1.0
"""Seconds that handlers have to end once they are cancelled."""


class RpcServer(RunningHandle):
    """Serves the registered methods while it is open; made by `RpcService.serving`.

    ``with`` serves in a thread of its own, ``async with`` in the running loop. It serves once. `close`, or the end of the block, takes no more calls and lets running handlers end.
    """

    def __init__(
        self, service: RpcService, host: str, port: int | None, timeout: float | None, *, callbacks_only: bool = False
    ) -> None:
        super().__init__(service, timeout)
        self._service: RpcService = service
        self._callbacks_only = callbacks_only
        self._bind_to = checked_place(host, port)
        self._port_is_given = port is not None or host.startswith(INHERITED) or bool(os.environ.get("APP_PORT"))
        self._instance = os.urandom(16).hex()
        self._announcement: Announcement | None = None
        self._lifespan: RunningHandle | None = None
        self._calls: CallSource | None = None
        self._server: Server | None = None
        self._socket: socket.socket | None = None
        self._thread: Background | None = None
        self._task: asyncio.Task[None] | None = None
        self._address: str | None = None
        self._failure: BaseException | None = None
        self._started = self._ended = self._closed = False

    @property
    def address(self) -> str:
        """Where it listens, e.g. ``"http://127.0.0.1:41231"``; without a port where calls come from, e.g. ``"nats://127.0.0.1:4222/cr.rpc.shop"``.

        Raises:
            ClosedError: it is not open.
        """
        self._check_process()
        if self._address is None or self._closed:
            raise ClosedError("this server is not open: use it in a with block")
        return self._address

    @property
    def _listening(self) -> str:
        """Where it listens; on all addresses is not on loopback alone, as in `address`."""
        assert self._socket is not None
        host = self._socket.getsockname()[0]
        return (
            f"http://{host if host == '0.0.0.0' else '[::]'}:{urlsplit(self.address).port}"
            if host in _ALL
            else self.address
        )

    # -- opening ----------------------------------------------------------

    def _open(self) -> None:
        op, driver = self._opening()
        try:
            self._calls = driver.receive(op, self._service._host.answer)
            if self._takes_http():
                self._listen()
                self._prepare(driver.guard(op))
            self._thread = Background(self._run, "cloud-runtimes-rpc-server")
            self._thread.start()
            self._check_started(op, self._changes.wait_for(self._begun, op.remaining()))
            if self._server is not None:
                self._announcement = driver.announce(op, self._instance, self._listening)
            self._lifespan = self._make_lifespan()
            if self._lifespan is not None:
                run_in(self._lifespan, self._loop)
                try:
                    self._lifespan.__enter__()
                except PermissionDeniedError as error:
                    self._go_on_without(self._lifespan, error)
        except BaseException:
            self._close_by_client(monotonic() + 5.0)
            raise

    async def _open_async(self) -> None:
        import asyncio

        op, driver = self._opening()
        try:
            self._calls = await driver.receive_async(op, self._service._host.answer)
            if self._takes_http():
                await asyncio.to_thread(self._listen)
                guard = await driver.guard_async(op)
                await asyncio.to_thread(self._prepare, guard)
            self._task = asyncio.get_running_loop().create_task(self._run_async())
            self._check_started(op, await self._changes.wait_for_async(self._begun, op.remaining()))
            if self._server is not None:
                self._announcement = await driver.announce_async(op, self._instance, self._listening)
            # in a thread, since the first time imports the service
            self._lifespan = await asyncio.to_thread(self._make_lifespan)
            if self._lifespan is not None:
                try:
                    await self._lifespan.__aenter__()
                except PermissionDeniedError as error:
                    self._go_on_without(self._lifespan, error)
        except BaseException:
            await asyncio.to_thread(self._close_by_client, monotonic() + 5.0)
            raise

    def _go_on_without(self, lifespan: RunningHandle, error: PermissionDeniedError) -> None:
        """Serve all the same where what runs beside may not, and nobody asked for it."""
        if lifespan.needed:
            raise error
        logger().info("%s: no jobs are run here: %s", self._service._host.app_id, error)
        self._lifespan = None

    def _make_lifespan(self) -> RunningHandle | None:
        return None if self._callbacks_only else self._service._host.lifespan(self._timeout)

    def _takes_http(self) -> bool:
        """Return whether to listen on a port; where calls come without one, only if it was asked for."""
        if self._calls is None or self._port_is_given:
            return True
        self._address = self._calls.address
        return False

    def _opening(self) -> tuple[Operation, RpcDriver]:
        if self._address is not None or self._closed:
            raise ClosedError("this server has served: ask for another by serving()")
        driver = self._service._hosting()
        driver.methods = lambda: list(self._service._host.handlers)
        self._frame.context.handles.add(self)
        self._service._host.servers += 1
        return self._service._operation(self._timeout), driver

    def _listen(self) -> None:
        with fork.importing:
            from .._http import asgi_server  # noqa: F401  before anything listens: its extra may be missing

        listener, self._address = listen(*self._bind_to, "give another host= or port=, or unset APP_PORT")
        self._socket = listener
        if self._bind_to[0].startswith(INHERITED):  # the name of what others may listen on too, and who of them it is
            self._instance = f"{os.fstat(listener.fileno()).st_ino:x}.{self._instance}"
        if self._closed:  # meanwhile, by a cancellation that this thread does not see
            listener.close()

    def _prepare(self, guard: Guard) -> None:
        from .._http.asgi_server import make_server
        from .asgi import RpcApp
        from .registry import listener

        if not guard.secrets and not guard.open and guard.sidecar is None:
            logger().warning(
                "%s: nobody has a token for it, since its home has no registry: set rpc_token in [capa]", self._address
            )
        service = self._service
        app = RpcApp(service._host, service._hosting, listener(self._instance), guard)
        self._server = make_server(app, self._has_started)

    def _has_started(self) -> None:
        self._started = True
        self._changes.announce()

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Return where async handlers run."""
        return self._service._host.loop or self._frame.context.loop()

    def _begun(self) -> bool:
        return self._started or self._ended

    def _check_started(self, op: Operation, begun: bool | None) -> None:
        if not begun:
            raise op.timed_out("the server to start")
        if not self._started:
            raise InternalError(f"the server did not start: {self._failure!r}") from self._failure

    # -- running ----------------------------------------------------------

    def _run(self) -> None:
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._run_async())
            tasks = asyncio.all_tasks(loop)  # handlers that were given up
            for task in tasks:
                task.cancel()
            if tasks:
                _, deaf = loop.run_until_complete(asyncio.wait(tasks, timeout=_CANCELLED))
                for task in deaf:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is told below
                if deaf:
                    logger().warning(
                        "%s: %d async handlers did not end when they were cancelled, and were left behind: "
                        "let a handler raise CancelledError",
                        self._address,
                        len(deaf),
                    )
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _run_async(self) -> None:
        import asyncio

        host = self._service._host
        host.loop = asyncio.get_running_loop()
        try:
            await self._serve()
        except BaseException as error:
            self._failure = error
            if not isinstance(error, (Exception, SystemExit)):
                raise
            logger().error("the server at %s failed: %r", self._address, error, exc_info=error)
        finally:
            if host.loop is asyncio.get_running_loop():
                host.loop = None
            self._ended = True
            self._changes.announce()

    async def _serve(self) -> None:
        import asyncio

        calls, server = self._calls, self._server
        if server is None:
            assert calls is not None
            self._has_started()
            await calls.serve()
            return
        assert self._socket is not None
        if calls is None:
            await server.serve(sockets=[self._socket])
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[self._socket]))
            group.create_task(calls.serve())

    def _over(self) -> bool:
        return bool(self.signal or self._ended or self._closed)

    def _close_by_client(self, end: float | None) -> None:
        if self._generation != fork.generation():
            return
        self._stop(end)
        if self._thread is not None:
            if not self._thread.join(_remaining(end, 0.5)) and self._thread.started:
                logger().warning("%s: handlers were still running when the server was left", self._address)
        elif self._task is not None and not self._ended and not _in_loop(self._task):
            self._changes.wait_for(lambda: self._ended, _remaining(end, 0.5))
        self._finish()

    def _stop(self, end: float | None) -> None:
        """Withdraw the announcement, so that nobody comes any more, and have the server end."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            close_by(lifespan, end)
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            try:
                announcement.close(_remaining(end, 0.1))
            except CloudRuntimesError as error:  # it ends by itself, being a lease
                logger().warning("%s: leaving the registry failed: %s", self._address, error)
        if self._calls is not None:
            self._calls.stop(_remaining(end, 0.0))
        if self._server is not None:
            # wait_for takes a float as well as the whole number that it is declared to be
            self._server.config.timeout_graceful_shutdown = _remaining(end, 0.0)  # type: ignore[assignment]
            self._server.stop()

    def _finish(self) -> None:
        if not self._closed:
            self._service._host.servers -= 1
        self._closed = True
        if self._socket is not None and (self._server is None or not self._started):
            self._socket.close()
        self._frame.context.handles.discard(self)
        self._changes.announce()


def callback_server(service: RpcService, timeout: float | None) -> RpcServer | None:
    """Return a server on ``APP_PORT`` for what a sidecar sends; ``None``: there is a server, or an application that is mounted."""
    if service._host.servers or service._host.mounted:
        return None
    if not os.environ.get("APP_PORT"):
        raise InvalidArgumentError(
            "due jobs come from the sidecar to the port that it knows: set APP_PORT as it was told, or serve by client.rpc.serving(port=…), which runs them too"
        )
    return RpcServer(service, "127.0.0.1", None, timeout, callbacks_only=True)


def _remaining(end: float | None, least: float) -> float | None:
    return None if end is None else max(least, end - monotonic())


def _in_loop(task: asyncio.Task[None]) -> bool:
    import asyncio

    try:
        return asyncio.get_running_loop() is task.get_loop()
    except RuntimeError:
        return False


def checked_place(host: Any, port: Any) -> tuple[str, int]:
    """Return where to listen; without a port that of ``APP_PORT``, else a free one."""
    if not isinstance(host, str) or not host or not host.isascii() or not host.isprintable() or " " in host:
        raise InvalidArgumentError(f"host {host!r:.80}: give an address or a name such as '127.0.0.1'")
    if host.startswith(INHERITED):
        if not re.fullmatch(r"[0-9]{1,6}", host.removeprefix(INHERITED)):
            raise InvalidArgumentError(
                f"host {host!r:.80}: give the number of a socket that is inherited, as in 'fd://3'"
            )
        return host, 0
    if port is None:
        text = os.environ.get("APP_PORT")
        if not text:
            return host, 0
        if not text.isascii() or not text.isdigit():
            raise InvalidArgumentError("APP_PORT: give a port, 0 to 65535")
        port = int(text)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise InvalidArgumentError(f"port {port!r}: give 0 to 65535; 0 and None are a free one")
    return host, port
