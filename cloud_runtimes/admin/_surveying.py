"""Surveying: the methods of `AdminService` that ask all components."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._service import error_context
from ..errors import InvalidArgumentError
from ..spi.operation import Method, Operation
from ._looking import check_limit
from ._operating import Operating
from .overview import OVERVIEW, PATIENCE, Overview, Survey
from .stores import StoreInfo, list_stores, list_stores_async

_STORES: Final = Method("admin", "stores", repeatable=True, writes=False)


class Surveying(Operating):
    """See all that there is."""

    @error_context(_STORES, named=False)
    def stores(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[StoreInfo]:
        """Return the names of state, configuration, files, locks and events: those that are declared, and those with data on the home.

        Args:
            timeout, metadata: as in `topics`.

        Raises:
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame = self._frame
        return frame.call(self._of_all(_STORES, timeout, metadata), list_stores, frame.context.runtime(frame))

    @error_context(_STORES, named=False)
    async def stores_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[StoreInfo]:
        """Return the names of state, configuration, files, locks and events: those that are declared, and those with data on the home.

        Args:
            timeout, metadata: as in `topics`.

        Raises:
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame = self._frame
        op = self._of_all(_STORES, timeout, metadata)
        return await frame.call_async(op, list_stores_async, frame.context.runtime(frame))

    @error_context(OVERVIEW, named=False)
    def overview(
        self,
        *,
        dead_letter_topics: Collection[str] = (),
        limit: int = 100,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Overview:
        """Return what needs a look, the worst first: components that do not answer, groups that lag, dead letters, jobs that failed, and locks that have expired while others wait.

        All components are asked at once, for 5 seconds together. One that does not answer is a line of the result.

        Args:
            dead_letter_topics: whose events are counted, beside those of subscriptions that this client declares.
            limit: lines of each kind at most.
            timeout: seconds, where they are less than 5.
            metadata: as in `topics`.

        Raises:
            InvalidArgumentError: an argument or the client's configuration is wrong.
        """
        return self._survey(dead_letter_topics, timeout, metadata).run(check_limit(limit))

    @error_context(OVERVIEW, named=False)
    async def overview_async(
        self,
        *,
        dead_letter_topics: Collection[str] = (),
        limit: int = 100,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Overview:
        """Return what needs a look, the worst first: components that do not answer, groups that lag, dead letters, jobs that failed, and locks that have expired while others wait.

        All components are asked at once, for 5 seconds together. One that does not answer is a line of the result.

        Args:
            dead_letter_topics: whose events are counted, beside those of subscriptions that this client declares.
            limit: lines of each kind at most.
            timeout: seconds, where they are less than 5.
            metadata: as in `topics`.

        Raises:
            InvalidArgumentError: an argument or the client's configuration is wrong.
        """
        import asyncio

        return await asyncio.to_thread(self._survey(dead_letter_topics, timeout, metadata).run, check_limit(limit))

    def _survey(self, topics: Any, timeout: float | None, metadata: Any) -> Survey:
        if isinstance(topics, str | bytes):
            raise InvalidArgumentError("dead_letter_topics must be a list of topics, not text")
        op = self._of_all(OVERVIEW, timeout, metadata)
        limit = op.remaining()
        context = self._frame.context
        return Survey(context.frame, context.runtime(self._frame), frozenset(topics), min(PATIENCE, limit or PATIENCE))

    def _of_all(self, method: Method, timeout: float | None, metadata: Any) -> Operation:
        runtime = self._frame.context.runtime(self._frame)
        check_metadata(metadata)
        return Operation(method, runtime.name, check_timeout(timeout, self._frame.context.timeout), metadata)
