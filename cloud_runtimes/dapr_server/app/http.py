"""The application over HTTP/1.1, on connections of the sidecar's one loop. The body of an answer without a length, such as server-sent events, is passed on as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, Self

from ..._core.logs import repeated
from ..._http.async_client import LoopConnection
from ..._http.http1 import CHUNKED, DONE, LENGTH, TO_END, ProtocolError, ResponseParser, TooLargeError
from ..._http.sync_client import ConnectionLost
from ..settings import SidecarSettings
from .channel import AppAnswer, AppCall, AppChannel, NotReached, passed_on


class AnswerParser(ResponseParser):
    """Keeps the headers as they came: `ResponseParser` joins those of one name, which ``set-cookie`` does not survive.

    Attributes:
        pairs: (lower-case name, value).
        begun_body: done once the head of an answer without a length is there, whose body is then in ``arrived``; ``None``: answers are whole.
    """

    __slots__ = ("arrived", "begun_body", "pairs")

    def __init__(self, *, head_only: bool, begun_body: asyncio.Future[None] | None = None) -> None:
        super().__init__(head_only=head_only)
        self.pairs: list[tuple[str, str]] = []
        self.begun_body = begun_body
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    @property
    def streams(self) -> bool:
        """Whether the body is in ``arrived``."""
        return self.begun_body is not None and self.begun_body.done()

    def feed(self, data: bytes) -> bool:
        done = super().feed(data)
        if self.streams:
            for piece in self._body:
                self.arrived.put_nowait(piece)
            self._body = []
        return done

    def eof(self) -> bool:
        """Take an answer that is shorter than its content-length says as it is: daprd passes it on too."""
        if self._state is LENGTH:
            text = "the application announced %d bytes more than it sent: what came is passed on"
            repeated("content-length", text, self._remaining)
            self._state = DONE
        return super().eof()

    def _take_head(self, head: bytes) -> None:
        super()._take_head(head)
        lines = (line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:])
        self.pairs = [(name.lower(), value.strip(" \t")) for name, _, value in lines]
        begun = self.begun_body
        if begun is not None and not begun.done() and self.status >= 200 and self._state in (CHUNKED, TO_END):
            begun.set_result(None)

    def _count(self, size: int) -> None:
        if not self.streams:  # else it is nowhere whole
            super()._count(size)


class Rest:
    """The body of such an answer: iterate it, or close it.

    Args:
        parser: of the answer.
        asking: ends with the answer; its exception is raised by the iteration.
        leave: gives the connection back, or up.
    """

    def __init__(self, parser: AnswerParser, asking: asyncio.Future[None], leave: Callable[[bool], None]) -> None:
        self._parser = parser
        self._asking = asking
        self._leave = leave
        self._closed = False
        asking.add_done_callback(lambda _: parser.arrived.put_nowait(None))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = None if self._closed else await self._parser.arrived.get()
        if piece is not None:
            return piece
        if not self._closed:
            failed = self._asking.cancelled() or self._asking.exception() is not None
            self._give_up(not failed)
            if failed:
                self._asking.result()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Want no more of it."""
        if not self._closed:
            self._asking.cancel()
            self._give_up(False)

    def _give_up(self, whole: bool) -> None:
        self._closed = True
        self._leave(whole)


_IDLE: Final = 4.0
"""Seconds that a connection is kept: uvicorn and others close theirs after 5."""
_CONNECT: Final = 5.0
_REPEATABLE: Final = frozenset(["GET", "HEAD", "OPTIONS"])


class HttpChannel(AppChannel):
    """See the module."""

    protocol = "http"

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = f"{host}:{self._port}"
        self._idle: list[LoopConnection] = []
        self._closed = False

    async def invoke(self, call: AppCall, timeout: float | None = None) -> AppAnswer:
        return await self._ask(call, timeout, False)

    async def invoke_streaming(self, call: AppCall, timeout: float | None = None) -> AppAnswer:
        """As `invoke`; the body of an answer without a length is in ``rest``, which has no limits of time and size."""
        return await self._ask(call, timeout, True)

    async def _ask(self, call: AppCall, timeout: float | None, stream: bool) -> AppAnswer:
        data = self._request(call)
        end = monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            connection = self._take() or await self._connect(end)
            begun = asyncio.get_running_loop().create_future() if stream else None
            parser = AnswerParser(head_only=call.verb == "HEAD", begun_body=begun)
            try:
                asking = await self._begin(connection, data, parser, end)
            except ConnectionLost as error:
                again = not error.sent or (call.verb in _REPEATABLE and not parser.begun)
                if again and not connection.fresh:
                    continue
                raise NotReached(
                    f"the application at {self._authority} broke the connection: {error}", sent=error.sent
                ) from error
            except TimeoutError as error:
                connection.transport.abort()
                raise NotReached(f"the application at {self._authority} did not answer in time", sent=True) from error
            except (ProtocolError, TooLargeError) as error:
                raise NotReached(
                    f"the application at {self._authority} gave no answer that can be used: {error}", sent=True
                ) from error
            except BaseException:
                connection.transport.abort()
                raise
            if asking is None:
                self._give(connection, parser)
                return _answer(parser, parser.reply().data)
            answer = _answer(parser, b"")
            answer.rest = Rest(parser, asking, partial(self._leave, connection, parser))
            return answer

    async def _begin(
        self, connection: LoopConnection, data: bytes, parser: AnswerParser, end: float
    ) -> asyncio.Future[None] | None:
        """Return once the answer is there, or what goes on until it is, where its body comes without a length."""
        if parser.begun_body is None:
            await connection.ask(data, None, parser, max(0.0, end - monotonic()))
            return None
        asking = asyncio.ensure_future(connection.ask(data, None, parser, None))
        try:
            async with asyncio.timeout(max(0.0, end - monotonic())):
                await asyncio.wait((asking, parser.begun_body), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            asking.cancel()
            raise
        if parser.streams:
            return asking
        asking.result()
        return None

    def _leave(self, connection: LoopConnection, parser: AnswerParser, whole: bool) -> None:
        if whole:
            self._give(connection, parser)
        else:
            connection.transport.abort()

    def _request(self, call: AppCall) -> bytes:
        target = f"/{call.path}?{call.query}" if call.query else f"/{call.path}"
        lines = [f"{call.verb} {target} HTTP/1.1", f"host: {self._authority}"]
        lines += [
            f"{name}: {value}" for name, value in call.headers if name not in ("host", "dapr-api-token", "expect")
        ]
        if self._token is not None:
            lines.append(f"dapr-api-token: {self._token}")
        if call.content_type is not None:
            lines.append(f"content-type: {call.content_type}")
        if call.body or call.verb not in ("GET", "HEAD", "OPTIONS", "DELETE"):
            lines.append(f"content-length: {len(call.body)}")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1 or " " in target:
            raise NotReached("the call has a line end or space where none can be", sent=False)
        return f"{head}\r\n\r\n".encode("latin-1", "replace") + call.body

    def _take(self) -> LoopConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if monotonic() - connection.idle_since < _IDLE and connection.usable():
                return connection
            connection.transport.abort()
        return None

    def _give(self, connection: LoopConnection, parser: AnswerParser) -> None:
        if not parser.keep_alive or connection.lost or self._closed:
            connection.transport.close()
            return
        connection.fresh = False
        connection.idle_since = monotonic()
        self._idle.append(connection)
        while self._idle[0].idle_since < monotonic() - _IDLE:  # the last used is taken first
            self._idle.pop(0).transport.abort()

    async def _connect(self, end: float) -> LoopConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(_CONNECT, max(0.0, end - monotonic()))):
                _, connection = await loop.create_connection(lambda: LoopConnection(loop), self._host, self._port)
                return connection
        except TimeoutError as error:
            raise NotReached(f"the application at {self._authority}: no connection in time", sent=False) from error
        except OSError as error:
            raise NotReached(f"the application at {self._authority}: {error.strerror or error}", sent=False) from error

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().transport.abort()


def _answer(parser: AnswerParser, body: bytes) -> AppAnswer:
    content_type = next((value for name, value in parser.pairs if name == "content-type"), None)
    # the server of the sidecar has a date of its own
    return AppAnswer(parser.status, passed_on(parser.pairs, frozenset(["date"])), content_type, body)
