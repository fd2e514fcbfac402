"""Numbers that grow (Layotto, ``GetNextId``), which no other runtime has: an extra of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from ..._service import Service, context_of, error_context
from ...errors import InvalidArgumentError, UnsupportedError
from ...protocols.layotto.messages import messages
from ...spi.operation import Method, Operation
from .._sidecar.transport import Flow
from . import LayottoRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..._service import Client
    from .transport import LayottoTransport

_NEXT: Final = Method("sequencer", "next_id", repeatable=True)  # a number that is lost leaves a gap, no more


class Sequencer(Service):
    """The sequencers of the sidecar of a client: ``Sequencer(client).next_id("orders", "number")``.

    Args:
        client: of the runtime layotto.
    """

    name = "sequencer"

    def __init__(self, client: Client) -> None:
        super().__init__(context_of(client))

    @error_context(_NEXT)
    def next_id(
        self,
        store_name: str,
        key: str,
        *,
        strong: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Return a number that no other call gets for this key.

        Args:
            store_name: of the sequencer.
            key: of the sequence, not empty, without ``||``.
            strong: the numbers grow in the order of the calls, for all; else each sidecar hands out a segment that it has fetched, with gaps.
            timeout: seconds; ``None``: no limit.
            metadata: for the component.

        Raises:
            UnsupportedError: the client's runtime is another.
            ComponentNotFoundError: there is no such sequencer.
        """
        op, transport, request = self._prepared(store_name, key, strong, timeout, metadata)
        return self._frame.call(op, lambda each: transport.run(each, _next(transport, request)))

    @error_context(_NEXT)
    async def next_id_async(
        self,
        store_name: str,
        key: str,
        *,
        strong: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Asynchronous `next_id`."""
        op, transport, request = self._prepared(store_name, key, strong, timeout, metadata)
        return await self._frame.call_async(op, lambda each: transport.run_async(each, _next(transport, request)))

    def _prepared(
        self, store_name: str, key: str, strong: bool, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, LayottoTransport, Any]:
        for what, value in (("store_name", store_name), ("key", key)):
            if not isinstance(value, str) or not value or "||" in value:
                raise InvalidArgumentError(f"{what} {value!r}: give text, not empty and without '||'")
        if not isinstance(strong, bool):
            raise InvalidArgumentError(f"strong must be True or False, got {strong!r}")
        check_metadata(metadata)
        runtime = self._frame.context.runtime()
        self._frame.runtime_name = runtime.name
        if not isinstance(runtime, LayottoRuntime):
            raise UnsupportedError(f"sequencers are Layotto's, and the runtime is {runtime.name}")
        limit = check_timeout(timeout, self._frame.context.timeout)
        pb = messages()
        options = pb.SequencerOptions(increment=int(strong))
        request = pb.GetNextIdRequest(store_name=store_name, key=key, options=options, metadata=metadata or {})
        return Operation(_NEXT, store_name, limit, metadata), runtime.transport, request


def _next(transport: LayottoTransport, request: Any) -> Flow[int]:
    reply = yield from transport.ask("GetNextId", request, "GetNextIdResponse")
    return int(reply.next_id)
