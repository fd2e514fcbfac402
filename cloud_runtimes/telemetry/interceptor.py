"""Spans and metrics of our own calls and of subscriptions, where ``[telemetry] instrument`` is set: the interceptor of each service then.

Names and attributes are OpenTelemetry's semantic conventions where there are any: "… for RPC spans", "… for messaging spans" and "… for database client spans" (version 1.44). For the other services they are ours, ``cloud_runtimes.*``. No value, key, payload, SQL text or message of an error is told: only what kind of call it was, of which component, and the type of its error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, get_args

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
from ._call_metrics import CallMetrics, SubscriptionMetrics

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
    """A span before it starts, and the metric of its duration."""

    name: str
    kind: str
    attributes: dict[str, Any]
    duration: str = ""


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
        attributes: dict[str, Any] = {"rpc.system.name": "cloud_runtimes", "rpc.method": name, **at.server}
        return _Description(name, "client", attributes, "rpc.client.call.duration")
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
    return _Description(f"publish {topic}", "producer", attributes, "messaging.client.operation.duration")


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
    return _Description(f"{operation} {target}".rstrip(), "client", attributes, "db.client.operation.duration")


def error_type(error: BaseException) -> str:
    """Return what ``error.type`` is: the class, qualified."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _failed(span: kernel.Span, error: str) -> None:
    span.set_attribute("error.type", error)
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
        code = error.code if isinstance(error, CloudRuntimesError) else None
        fault = error if self._faults is None or code is None or code in self._faults else None
        if self._record is not None:
            self._record(perf_counter() - self._begun, None if fault is None else error_type(fault))
        super().leave()
        if code is not None:
            self._span.set_attribute("cloud_runtimes.error.code", code)
        if fault is not None:
            _failed(self._span, error_type(fault))
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


class _Calling:
    """A call under way, in its span and measured; of either there may be none."""

    __slots__ = ("_begun", "_call", "_error", "_owner", "_span", "_token", "_what")

    def __init__(self, owner: SpanInterceptor, call: Call) -> None:
        self._owner = owner
        self._call = call
        self._error: str | None = None
        self._begun = perf_counter()

    def __enter__(self) -> Self:
        self._what, self._span = self._owner.begin(self._call)
        self._token = None if self._span is None else kernel.current.set(self._span)
        return self

    def judge(self, result: Any) -> Any:
        """Return a result, in which something may have failed without an exception: a reply's status, or some of many."""
        if type(result) is RpcReply:
            status = str(result.status)
            if self._span is not None:
                self._span.set_attribute("rpc.response.status_code", status)
            self._what.attributes["rpc.response.status_code"] = status
            if result.status >= 400:
                self._error = result.headers.get(ERROR_HEADER) or status
        elif isinstance(result, Mapping) and result:
            first = next(iter(result.values()))
            if isinstance(first, CloudRuntimesError):
                self._error = error_type(first)
        return result

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            self._error = error_type(error)
        if self._span is not None:
            propagation.give_back(kernel.current, self._token)
            if self._error is not None:
                _failed(self._span, self._error)
            self._span.end()
            self._call.op.span = None
        if self._what.duration and (metrics := self._owner.measures()) is not None:
            args = self._call.args
            sent = len(args[0]) if args and isinstance(args[0], OutgoingBatch) else 0
            metrics.record(self._what.duration, self._what.attributes, perf_counter() - self._begun, self._error, sent)


class SpanInterceptor(Interceptor):
    """Makes the spans of one service, and with a ``meter`` its metrics."""

    def __init__(
        self, find: Callable[[str], Driver | None], tracer: kernel.Tracer, app_id: str, meter: Meter | None = None
    ) -> None:
        self._find = find
        self._tracer = tracer
        self._app_id = app_id
        self._meter = meter
        self._calls: CallMetrics | None = None
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

    def begin(self, call: Call) -> tuple[_Description, kernel.Span | None]:
        """Return what a call is, and its span. A publisher's batch has none where no event was made in one: it would be a trace each, of nothing else."""
        op, args = call.op, call.args
        begun: tuple[_Description, kernel.Span] | None = getattr(op, "span", None)  # it may have begun with `creating`
        if begun is not None:
            return begun
        what = _described(op, self._target(op.component), args)
        is_batch = bool(args) and isinstance(args[0], OutgoingBatch)
        made_in = _contexts(args[0]) if is_batch else []
        if is_batch and not made_in:
            return what, None
        op.span = begun = what, self._start(what, made_in, made_in[0] if made_in else None)
        return begun

    def measures(self) -> CallMetrics | None:
        """Return the metrics of calls; the first that has one makes them, since the first instrument starts a thread."""
        if self._calls is None and self._meter is not None:
            self._calls = CallMetrics(self._meter)
        return self._calls

    def call(self, call: Call) -> Any:
        """Make a call, all its attempts, in a span."""
        if _is_piece(call.method):
            return call.proceed()
        with _Calling(self, call) as calling:
            return calling.judge(call.proceed())

    async def call_async(self, call: Call) -> Any:
        """Make a call, all its attempts, in a span."""
        if _is_piece(call.method):
            return await call.proceed_async()
        with _Calling(self, call) as calling:
            return calling.judge(await call.proceed_async())

    def retrying(self, op: Operation, error: Exception) -> None:
        """Note on the span that an attempt failed and another one follows."""
        begun: tuple[_Description, kernel.Span] | None = getattr(op, "span", None)
        if begun is not None:
            begun[1].add_event(
                "cloud_runtimes.retry", {"error.type": error_type(error), "cloud_runtimes.attempt": op.attempt}
            )

    # -- publishing --

    def creating(self, op: Operation, topic: str) -> _Creating:
        """Start the span of a publishing call before its events are encoded, since they carry it."""
        what = _messaging(op, self._target(op.component), topic)
        span = self._start(what)
        op.span = what, span
        return _Creating(span)

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

    def forwarding(self, pubsub_name: str) -> Callable[[int, int], None] | None:
        """Return the counters of what is forwarded to a broker."""
        if self._meter is None:
            return None
        driver = self._find(pubsub_name)
        attributes = {"messaging.system": driver.system if driver else "", "cloud_runtimes.component": pubsub_name}
        forwarded = self._meter.counter(
            "cloud_runtimes.relay.forwarded", "{event}", "Events that reached their broker."
        )
        refused = self._meter.counter(
            "cloud_runtimes.relay.refused", "{event}", "Events that a broker refused for good."
        )
        counters = forwarded.bind(attributes), refused.bind(attributes)

        def tell(*counts: int) -> None:
            for counter, count in zip(counters, counts, strict=True):
                if count:
                    counter.add(count)

        return tell

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
        metrics = self.measures()
        record = None if metrics is None else partial(metrics.record, "rpc.server.call.duration", what.attributes)
        return Handled(headers, lambda: self._start(what), _SERVER_FAULTS, record)

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


def _contexts(batch: OutgoingBatch) -> list[Any]:
    """Return the contexts in which the events of a publisher's batch were made, each once. Its span has a link to each, and is a child of the first."""
    texts: dict[str, None] = {}
    for record in islice(batch, MAX_LINKS):
        if (text := record.traceparent) is not None:
            texts[text] = None
    contexts = (propagation.extract({"traceparent": text}) for text in texts)
    return [context for context in contexts if context is not None]
