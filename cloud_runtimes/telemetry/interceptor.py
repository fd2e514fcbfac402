"""Spans of our own calls, and metrics of subscriptions, where ``[telemetry] instrument`` is set: the interceptor of each service then.

Names and attributes are OpenTelemetry's semantic conventions where there are any: "… for RPC spans", "… for messaging spans" and "… for database client spans" (version 1.44). For the other services they are ours, ``cloud_runtimes.*``. No value, key, payload, SQL text or message of an error is told: only what kind of call it was, of which component, and the type of its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from .._core import propagation
from .._native import telemetry as kernel
from .._service import MAX_NAMES, Call, Interceptor, Outgoing
from ..errors import CloudRuntimesError
from ..rpc.failures import ERROR_HEADER
from ..spi import database as sql
from ..spi.driver import Driver
from ..spi.operation import Operation
from ..spi.pubsub import OutgoingBatch
from ..spi.rpc import RpcCall, RpcReply
from ._consuming import SubscriptionMetrics

if TYPE_CHECKING:
    from ..spi.pubsub import SubscribeRequest
    from ..spi.schedule import DueRun
    from ._meter import Meter

MAX_LINKS: Final = 128
# a stream has one span for each of its steps that decide something, none for each piece
_PIECES: Final = frozenset({"read", "read_async", "write", "write_async", "fetch", "fetch_async"})
# RPC semantic conventions, "server span status": what else a handler raises is its caller's fault
_SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_STATEMENTS: Final = get_args(sql.Statement)
_TABLE_OPERATIONS: Final[dict[type, str]] = {
    sql.Insert: "INSERT",
    sql.Update: "UPDATE",
    sql.CreateTable: "CREATE TABLE",
    sql.DropTable: "DROP TABLE",
}


class _Description(NamedTuple):
    """A span before it starts."""

    name: str
    kind: str
    attributes: dict[str, Any]


class _Target(NamedTuple):
    """A component's engine, a database's ``db.namespace``, and where its server is."""

    system: str
    namespace: str | None
    server: Mapping[str, str | int]


_UNKNOWN: Final = _Target("", None, {})


def _target(driver: Any) -> _Target:
    """Return what the component of a driver is."""
    server = dict(
        zip(("server.address", "server.port"), filter(None, getattr(driver, "server", None) or ()), strict=False)
    )
    return _Target(getattr(driver, "system", ""), getattr(driver, "namespace", None), server)


def _described(op: Operation, at: _Target, args: tuple[Any, ...]) -> _Description:
    """Return the description of a call of a driver; of its arguments only those of public types tell anything."""
    service, subject = op.method.service, args[0] if args else None
    if isinstance(subject, RpcCall):
        name = f"{op.component}/{subject.method}"
        return _Description(name, "client", {"rpc.system.name": "cloud_runtimes", "rpc.method": name, **at.server})
    if isinstance(subject, OutgoingBatch):
        return _messaging(op, at, subject.topic, len(subject))
    if service == "database":
        return _database(op, at, subject if isinstance(subject, _STATEMENTS) else None)
    attributes = {
        "cloud_runtimes.service": service,
        "cloud_runtimes.operation": op.method.name,
        "cloud_runtimes.component": op.component,
        **at.server,
    }
    return _Description(str(op.method), "client", attributes)


def _messaging(op: Operation, at: _Target, topic: str, count: int | None = None) -> _Description:
    """Return the description of a call that publishes; of a batch with the count of its events."""
    attributes: dict[str, Any] = {
        "messaging.system": at.system or "_OTHER",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "cloud_runtimes.component": op.component,
        **at.server,
    }
    if count is not None:
        attributes["messaging.batch.message_count"] = count
    return _Description(f"publish {topic}", "producer", attributes)


def _database(op: Operation, at: _Target, statement: sql.Statement | None) -> _Description:
    """Return the description of a call of a database; what an SQL text is about stands in its summary alone."""
    attributes: dict[str, Any] = {
        "db.system.name": at.system or "other_sql",
        "cloud_runtimes.component": op.component,
        **at.server,
    }
    if at.namespace:
        attributes["db.namespace"] = at.namespace
    operation = _TABLE_OPERATIONS.get(type(statement), op.method.name.upper())
    target: str | None = getattr(statement, "table", None)
    if target is not None:
        attributes["db.collection.name"] = target
    elif isinstance(statement, (sql.Query, sql.Execute, sql.ExecuteMany)):
        operation, _, target = statement.sql.summary.partition(" ")
        attributes["db.query.summary"] = statement.sql.summary
    if isinstance(statement, sql.ExecuteMany) and len(statement.rows) > 1:
        attributes["db.operation.batch.size"] = len(statement.rows)
    attributes["db.operation.name"] = operation
    target = target or at.namespace or ":".join(map(str, at.server.values()))
    return _Description(f"{operation} {target}".rstrip(), "client", attributes)


def error_type(error: BaseException) -> str:
    """Return what ``error.type`` is: the class, qualified."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _failed(span: kernel.Span, error: BaseException) -> None:
    span.set_attribute("error.type", error_type(error))
    span.set_status("error")


class Handled(propagation.Entered):
    """A span around a handler: its parent is what came with the call or event, and what is current in the handler is it."""

    __slots__ = ("_begun", "_faults", "_record", "_span")

    def __init__(
        self,
        headers: Any,
        start: Callable[[], kernel.Span],
        faults: frozenset[str] | None = None,
        record: Callable[[float, str | None], None] | None = None,
    ) -> None:
        super().__init__(propagation.extract(headers), propagation.extract_baggage(headers))
        self._faults = faults
        self._record = record
        self._begun = perf_counter()
        self._span = start()
        kernel.current.set(self._span)  # `leave` gives back what was before the headers

    def leave(self, error: BaseException | None = None) -> None:
        """End the span too; in it tell how long it took, and what failed."""
        if self._record is not None:
            self._record(perf_counter() - self._begun, None if error is None else error_type(error))
        super().leave()
        if error is not None:
            if isinstance(error, CloudRuntimesError):
                self._span.set_attribute("cloud_runtimes.error.code", error.code)
            if self._faults is None or not isinstance(error, CloudRuntimesError) or error.code in self._faults:
                _failed(self._span, error)
        self._span.end()


class _Creating(Outgoing):
    """Makes the call's span current, so that encoding inside belongs to it."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: kernel.Span) -> None:
        self._span = span
        self._token = kernel.current.set(span)

    def leave(self) -> None:
        """Give back what was current before."""
        propagation.give_back(kernel.current, self._token)

    def tell(self, name: str, value: Any) -> None:
        """Set an attribute of the span."""
        self._span.set_attribute(name, value)


class SpanInterceptor(Interceptor):
    """Makes the spans of one service, and with a ``meter`` the metrics of subscriptions."""

    def __init__(
        self, find: Callable[[str], Driver | None], tracer: kernel.Tracer, app_id: str, meter: Meter | None = None
    ) -> None:
        self._find = find
        self._tracer = tracer
        self._app_id = app_id
        self._meter = meter
        self._metrics: dict[tuple[str, str, str], SubscriptionMetrics] = {}
        # what was found out about each component: closing the client takes its drivers away, while handlers still run
        self._targets: dict[str, _Target] = {}

    def _target(self, component: str) -> _Target:
        if component not in self._targets and (driver := self._find(component)) is not None:
            if len(self._targets) >= MAX_NAMES:
                self._targets.clear()
            self._targets[component] = _target(driver)
        return self._targets.get(component, _UNKNOWN)

    # -- around calls --

    def _start(self, what: _Description, links: Sequence[Any] = (), parent: Any = None) -> kernel.Span:
        return self._tracer.start_span(
            what.name, kind=what.kind, attributes=what.attributes, links=links, parent=parent
        )

    def _begin(self, op: Operation, args: tuple[Any, ...]) -> tuple[kernel.Span, Any]:
        span: kernel.Span | None = getattr(op, "span", None)  # there is one where it began with `creating`
        if span is None:
            made_in = _contexts(args[0]) if _is_batch(args) else []
            parent = made_in[0] if made_in else None
            span = op.span = self._start(_described(op, self._target(op.component), args), made_in, parent)
        return span, kernel.current.set(span)

    @contextmanager
    def _around(self, call: Call) -> Iterator[kernel.Span]:
        span, token = self._begin(call.op, call.args)
        try:
            yield span
        except BaseException as error:
            _failed(span, error)
            raise
        finally:
            propagation.give_back(kernel.current, token)
            span.end()
            call.op.span = None

    def call(self, call: Call) -> Any:
        """Make a call, all its attempts, in a span."""
        if _is_piece(call.method) or _is_apart(call):
            return call.proceed()
        with self._around(call) as span:
            result = call.proceed()
            _judge(span, result)
            return result

    async def call_async(self, call: Call) -> Any:
        """Make a call, all its attempts, in a span."""
        if _is_piece(call.method) or _is_apart(call):
            return await call.proceed_async()
        with self._around(call) as span:
            result = await call.proceed_async()
            _judge(span, result)
            return result

    def retrying(self, op: Operation, error: Exception) -> None:
        """Note on the span that an attempt failed and another one follows."""
        span: kernel.Span | None = getattr(op, "span", None)
        if span is not None:
            span.add_event(
                "cloud_runtimes.retry", {"error.type": error_type(error), "cloud_runtimes.attempt": op.attempt}
            )

    # -- publishing --

    def creating(self, op: Operation, topic: str) -> _Creating:
        """Start the span of a publishing call before its events are encoded, since they carry it."""
        op.span = self._start(_messaging(op, self._target(op.component), topic))
        return _Creating(op.span)

    # -- around handlers --

    def _consumer(self, pubsub_name: str, request: SubscribeRequest) -> dict[str, Any]:
        at = self._target(pubsub_name)
        return {
            "messaging.system": at.system or "_OTHER",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": request.topic,
            "messaging.consumer.group.name": request.group,
            "cloud_runtimes.component": pubsub_name,
            **at.server,
        }

    def consuming(self, pubsub_name: str, request: SubscribeRequest) -> SubscriptionMetrics | None:
        """Return the metrics of a subscription."""
        if self._meter is None:
            return None
        if len(self._metrics) >= MAX_NAMES:
            self._metrics.clear()
        metrics = SubscriptionMetrics(self._meter, self._consumer(pubsub_name, request))
        self._metrics[pubsub_name, request.topic, request.group] = metrics
        return metrics

    def processing(self, pubsub_name: str, request: SubscribeRequest, events: Sequence[Any], *, batch: bool) -> Handled:
        """Return the span around a handler of events; of a batch it has a link for each event instead of a parent."""
        metrics = self._metrics.get((pubsub_name, request.topic, request.group))
        attributes = self._consumer(pubsub_name, request) if metrics is None else metrics.processing.copy()
        links: list[Any] = []
        headers: Mapping[str, str] = {}
        if batch:
            attributes["messaging.batch.message_count"] = len(events)
            contexts = (propagation.extract(propagation.event_headers(event)) for event in events[:MAX_LINKS])
            links = [context for context in contexts if context is not None]
        else:
            attributes["messaging.message.id"] = events[0].id
            headers = propagation.event_headers(events[0])
        what = _Description(f"process {request.topic}", "consumer", attributes)
        return Handled(headers, lambda: self._start(what, links), record=None if metrics is None else metrics.processed)

    def serving(self, method: str, headers: Mapping[str, str]) -> Handled:
        """Return the span around a handler of an RPC method."""
        name = f"{self._app_id}/{method}"
        what = _Description(name, "server", {"rpc.system.name": "cloud_runtimes", "rpc.method": name})
        return Handled(headers, lambda: self._start(what), _SERVER_FAULTS)

    def running(self, run: DueRun) -> Handled:
        """Return the span around a run of a job, which begins a trace."""
        attributes = {
            "cloud_runtimes.service": "schedule",
            "cloud_runtimes.operation": "run",
            "cloud_runtimes.job.name": run.spec.name,
            "cloud_runtimes.job.run.id": run.run_id,
            "cloud_runtimes.job.run.attempt": run.attempt,
        }
        what = _Description(f"run {run.spec.name}", "internal", attributes)
        return Handled({}, lambda: self._start(what))


def _is_piece(method: Any) -> bool:
    return getattr(method, "__name__", "") in _PIECES and not isinstance(getattr(method, "__self__", None), Driver)


def _judge(span: kernel.Span, result: Any) -> None:
    """See in a result what failed without an exception: a reply's status, or some of many."""
    if type(result) is RpcReply:
        span.set_attribute("rpc.response.status_code", str(result.status))
        if result.status >= 400:
            span.set_attribute("error.type", result.headers.get(ERROR_HEADER) or str(result.status))
            span.set_status("error")
    elif isinstance(result, Mapping) and result:
        first = next(iter(result.values()))
        if isinstance(first, CloudRuntimesError):
            _failed(span, first)


def _is_batch(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], OutgoingBatch)


def _is_apart(call: Call) -> bool:
    """Return whether a publisher's batch has no event that was made in a span: one span a batch would be a trace each, of nothing else."""
    return _is_batch(call.args) and getattr(call.op, "span", None) is None and not _contexts(call.args[0])


def _contexts(batch: OutgoingBatch) -> list[Any]:
    """Return the contexts in which the events of a publisher's batch were made, each once. Its span has a link to each, and is a child of the first."""
    texts: dict[str, None] = {}
    for record in islice(batch, MAX_LINKS):
        if (text := record.traceparent) is not None:
            texts[text] = None
    contexts = (propagation.extract({"traceparent": text}) for text in texts)
    return [context for context in contexts if context is not None]
