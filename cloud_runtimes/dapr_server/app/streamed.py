"""An answer over HTTP whose body is passed on as it comes: one without a length, such as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from ..._core.logs import repeated
from ..._http.http1 import CHUNKED, DONE, LENGTH, TO_END, ResponseParser


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
