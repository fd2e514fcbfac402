"""The public types, as a type checker sees them: ``mypy --strict`` on this file is a test. Nothing here is run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypedDict, assert_type

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from cloud_runtimes import CloudRuntimesClient, NativeStatus, native_status
from cloud_runtimes.codec import Limits, limits
from cloud_runtimes.configuration import ConfigurationItem, ConfigurationService, ConfigurationSubscription
from cloud_runtimes.database import (
    Column,
    DatabaseService,
    DatabaseTransaction,
    ExecuteResult,
    Row,
    RowStream,
    TableSchema,
)
from cloud_runtimes.errors import BulkError, CloudRuntimesError
from cloud_runtimes.file import FileHandle, FileInfo, FileService
from cloud_runtimes.lock import Lease, LockHold, LockService, UnlockStatus
from cloud_runtimes.pubsub import (
    DeliveryReport,
    DropEvent,
    Event,
    EventBatch,
    FailedEvent,
    OutgoingEvent,
    Publisher,
    PublisherStats,
    PubSubService,
    Subscription,
    SubscriptionStats,
)
from cloud_runtimes.resiliency import TargetStats, stats
from cloud_runtimes.rpc import RpcRequest, RpcResponse, RpcServer, RpcService
from cloud_runtimes.schedule import Job, JobRun, JobRunner, Retry, RpcTarget, RunRecord, ScheduleService, TopicTarget
from cloud_runtimes.secret import Secret, SecretService
from cloud_runtimes.state import StateItem, StateService, StateTransaction
from cloud_runtimes.telemetry import (
    Counter,
    Histogram,
    Logger,
    Meter,
    Span,
    SpanContext,
    TelemetryService,
    TelemetryStats,
    Tracer,
    install,
)


@dataclass
class Order:
    """A dataclass."""

    id: int


class Line(TypedDict):
    """A TypedDict."""

    sku: str


def client() -> None:
    """The client and its services."""
    with CloudRuntimesClient() as instance:
        assert_type(instance, CloudRuntimesClient)
        assert_type(instance.state, StateService)
        assert_type(instance.pubsub, PubSubService)
        assert_type(instance.secret, SecretService)
        assert_type(instance.configuration, ConfigurationService)
        assert_type(instance.rpc, RpcService)
        assert_type(instance.lock, LockService)
        assert_type(instance.schedule, ScheduleService)
        assert_type(instance.file, FileService)
        assert_type(instance.database, DatabaseService)
        assert_type(instance.telemetry, TelemetryService)
        assert_type(instance.supports("state.ttl"), bool)
        instance.wait_ready(timeout=None)
        instance.close(timeout=1)
        instance.no_such_service()  # type: ignore[attr-defined]
    CloudRuntimesClient("http://localhost:3500", 5.0, runtime="capa", app_id="a", config={"a": 1}, api_token="t")
    CloudRuntimesClient(None, None)
    CloudRuntimesClient(runtime=5)  # type: ignore[arg-type]
    CloudRuntimesClient("e", 1.0, "capa")  # type: ignore[call-arg]
    assert_type(native_status(), NativeStatus)
    assert_type(native_status().native, bool)
    with CloudRuntimesClient() as ruled:
        assert_type(stats(ruled), dict[str, TargetStats])
        assert_type(stats(ruled)["state.orders"].state, Literal["closed", "open", "half open"] | None)
    assert_type(limits(depth=5, items=10, bytes=100), Limits)
    assert_type(limits().items, int)
    limits(128)  # type: ignore[call-arg]


async def client_async() -> None:
    """The twins."""
    async with CloudRuntimesClient() as instance:
        assert_type(instance, CloudRuntimesClient)
        await instance.wait_ready_async()
        await instance.close_async()


async def calling(rpc: RpcService) -> None:
    """``type=`` decides what comes back; handlers of every shape are taken."""
    assert_type(rpc.invoke_method("s", "m", {"a": 1}, type=Order), Order)
    assert_type(rpc.invoke_method("s", "m", type=list[Order], http_method="GET", query={"n": 1}), list[Order])
    assert_type(await rpc.invoke_method_async("s", "m", b"x", type=bytes, timeout=1, headers={}), bytes)
    assert_type(rpc.invoke("s", "m"), RpcResponse)
    assert_type(await rpc.invoke_async("s", "m", content_type="text/plain"), RpcResponse)
    assert_type(rpc.invoke("s", "m").decode(Order), Order)
    assert_type(rpc.serving(port=0), RpcServer)
    rpc.invoke_method(5, "m")  # type: ignore[call-overload]

    @rpc.method("typed", type=Order)
    async def typed(order: Order, request: RpcRequest) -> Order:
        assert_type(request.remaining(), float | None)
        return order

    rpc.register_method("plain", lambda: None)
    with rpc.serving() as server:
        assert_type(server.address, str)
    await rpc.serve_async(host="::1")


def reading(state: StateService) -> None:
    """``type=`` decides what comes back."""
    assert_type(state.get("s", "k"), Any | None)
    assert_type(state.get("s", "k", type=Order), Order | None)
    assert_type(state.get("s", "k", type=Line), Line | None)
    assert_type(state.get("s", "k", type=list[Order]), list[Order] | None)
    assert_type(state.get("s", "k", type=list[int]), list[int] | None)
    assert_type(state.get("s", "k", type=dict[str, int]), dict[str, int] | None)
    assert_type(state.get("s", "k", type=bytes), bytes | None)
    assert_type(state.get("s", "k", type=int | None), Any | None)
    assert_type(state.get("s", "k", type=Order, consistency="strong", timeout=None, metadata={}), Order | None)
    assert_type(state.get_item("s", "k"), StateItem[Any] | None)
    assert_type(state.get_item("s", "k", type=Order), StateItem[Order] | None)
    assert_type(state.get_bulk("s", ["k"]), dict[str, StateItem[Any]])
    assert_type(state.get_bulk("s", {"k"}, type=list[int]), dict[str, StateItem[list[int]]])
    assert_type(state.list_keys("s", "p", limit=5, after="k"), list[str])
    state.get("s", "k", consistency="weak")  # type: ignore[call-overload]
    state.get("s", 5)  # type: ignore[call-overload]
    state.get("s", "k", typ=Order)  # type: ignore[call-overload]
    state.get("s", "k", Order)  # type: ignore[call-overload]


async def reading_async(state: StateService) -> None:
    """The twins."""
    assert_type(await state.get_async("s", "k"), Any | None)
    assert_type(await state.get_async("s", "k", type=Order), Order | None)
    assert_type(await state.get_async("s", "k", type=list[Line]), list[Line] | None)
    assert_type(await state.get_async("s", "k", type=int | None), Any | None)
    assert_type(await state.get_item_async("s", "k", type=Order), StateItem[Order] | None)
    assert_type(await state.get_bulk_async("s", ["k"], type=Order), dict[str, StateItem[Order]])
    assert_type(await state.list_keys_async("s"), list[str])
    await state.get_async("s", "k", consistency="weak")  # type: ignore[call-overload]


def writing(state: StateService, mapping: Mapping[str, int], items: list[StateItem[int]]) -> None:
    """Writes give nothing."""
    state.save("s", "k", 1, {"m": "v"}, etag="e", ttl=timedelta(1), concurrency="first-write", fence=1, timeout=1)
    state.save("s", "k", object(), ttl=0.5, consistency="eventual", content_type="text/plain")
    state.save_bulk("s", mapping)
    state.save_bulk("s", items)
    state.save_bulk("s", (item for item in items))
    state.delete("s", "k", etag="e", fence=1)
    state.delete_bulk("s", ("a", "b"))
    state.save("s", "k", 1, concurrency="best")  # type: ignore[arg-type]
    state.save("s", "k", 1, ttl="5s")  # type: ignore[arg-type]
    state.save("s", "k", 1, {}, "e")  # type: ignore[call-arg]
    state.save_bulk("s", [1])  # type: ignore[list-item]
    with state.transaction("s", timeout=None) as tx:
        assert_type(tx, StateTransaction)
        tx.save("k", 1, {"m": "v"}, etag="e")
        tx.delete("k", fence=1)
        assert_type(tx.publish("b", "t", 1, key="k", delay=5), str)


async def writing_async(state: StateService, mapping: Mapping[str, int]) -> None:
    """The twins."""
    await state.save_async("s", "k", 1, ttl=1)
    await state.save_bulk_async("s", mapping)
    await state.delete_async("s", "k")
    await state.delete_bulk_async("s", ["k"])
    async with state.transaction("s") as tx:
        assert_type(tx, StateTransaction)
        tx.save("k", 1)


def querying(database: DatabaseService) -> None:
    """``type=`` decides what the rows are."""
    assert_type(database.query("d", "SELECT 1"), list[Row])
    assert_type(database.query("d", "SELECT :a", {"a": 1}, type=Order), list[Order])
    assert_type(database.query("d", "SELECT 1", type=int), list[int])
    assert_type(database.query("d", "SELECT 1", type=int | None), list[Any])
    assert_type(database.query("d", "SELECT 1")[0]["a"], Any)
    assert_type(database.query("d", "SELECT 1")[0].a, Any)
    with database.stream("d", "SELECT 1", type=Line, timeout=None) as rows:
        assert_type(rows, RowStream[Line])
        for row in rows:
            assert_type(row, Line)
    assert_type(database.execute("d", "DELETE FROM t", timeout=1, metadata={}), ExecuteResult)
    assert_type(database.execute_many("d", "…", [{"a": 1}]).rows_affected, int)
    assert_type(database.tables("d"), list[str])
    assert_type(database.table_schema("d", "t"), TableSchema)
    database.create_table("d", "t", {"id": Column(kind="integer", primary_key=True), "a": int, "b": "text"})
    assert_type(database.insert("d", "t", {"a": 1}).last_insert_id, int | None)
    assert_type(database.update("d", "t", {"a": 1}, {"id": 1}), ExecuteResult)
    with database.transaction("d", "serializable") as tx:
        assert_type(tx, DatabaseTransaction)
        assert_type(tx.query("SELECT 1", type=Order), list[Order])
        assert_type(tx.stream("SELECT 1"), RowStream[Row])
        assert_type(tx.publish("b", "t", 1), str)
        tx.commit()
    database.transaction("d", "SERIALIZABLE")  # type: ignore[arg-type]
    database.update("d", "t", {"a": 1})  # type: ignore[call-arg]
    database.query("d", "SELECT 1", [1])  # type: ignore[call-overload]


async def querying_async(database: DatabaseService) -> None:
    """The twins."""
    assert_type(await database.query_async("d", "SELECT 1"), list[Row])
    assert_type(await database.query_async("d", "SELECT 1", type=Order), list[Order])
    async with database.stream("d", "SELECT 1", type=int) as rows:
        async for row in rows:
            assert_type(row, int)
    async with database.transaction("d") as tx:
        assert_type(await tx.execute_async("DELETE FROM t"), ExecuteResult)
        await tx.rollback_async()


def items(plain: StateItem, typed: StateItem[Order]) -> None:
    """``T`` is ``Any`` by default."""
    assert_type(plain, StateItem[Any])
    assert_type(plain.value, Any)
    assert_type(typed.value, Order)
    assert_type(typed.etag, str | None)
    typed.etag = "x"  # type: ignore[misc]
    StateItem("k", 1)  # type: ignore[call-arg]


def publishing(pubsub: PubSubService) -> None:
    """Ids, and sequence numbers."""
    assert_type(pubsub.publish("b", "t", 1, key="k", attributes={"a": 1}, ttl=1, delay=timedelta(1), raw=True), str)
    assert_type(pubsub.publish_bulk("b", "t", [1, OutgoingEvent(1, "k", {"a": 1})]), list[str])

    def report(report: DeliveryReport) -> None:
        assert_type(report.first, int)
        assert_type(report.failed, list[FailedEvent])
        assert_type(report.failed[0].event, bytes)
        assert_type(report.failed[0].error, CloudRuntimesError)

    async def wrong(report: DeliveryReport) -> None: ...

    with pubsub.publisher("b", "t", linger=0.1, on_full="raise", on_delivery=report) as publisher:
        assert_type(publisher, Publisher)
        assert_type(publisher.send(1, key="k", attributes={}, metadata={}, timeout=1), int)
        publisher.flush()
        publisher.flush(5)
        assert_type(publisher.stats(), PublisherStats)
        assert_type(publisher.stats().accepted, int)
    pubsub.publisher("b", "t", on_full="wait")  # type: ignore[arg-type]
    pubsub.publisher("b", "t", 0.1)  # type: ignore[call-arg]
    pubsub.publisher("b", "t", on_delivery=wrong)  # type: ignore[arg-type]


async def publishing_async(pubsub: PubSubService) -> None:
    """The twins."""
    assert_type(await pubsub.publish_async("b", "t", 1), str)
    assert_type(await pubsub.publish_bulk_async("b", "t", [1]), list[str])
    async with pubsub.publisher("b", "t") as publisher:
        assert_type(await publisher.send_async(1), int)
        await publisher.flush_async(1)


def subscribing(pubsub: PubSubService) -> None:
    """``type=`` and ``batch=`` decide what is handed out."""
    assert_type(pubsub.subscribe("b", "t"), Subscription[Event[Any]])
    assert_type(pubsub.subscribe("b", "t", type=Order), Subscription[Event[Order]])
    assert_type(pubsub.subscribe("b", "t", type=list[int]), Subscription[Event[list[int]]])
    assert_type(pubsub.subscribe("b", "t", type=int | None), Subscription[Event[Any]])
    assert_type(pubsub.subscribe("b", "t", batch=5), Subscription[EventBatch[Any]])
    assert_type(pubsub.subscribe("b", "t", batch=5, type=Order), Subscription[EventBatch[Order]])
    assert_type(pubsub.subscribe("b", "t", group="g", start="latest", ack_wait=1), Subscription[Event[Any]])
    with pubsub.subscribe("b", "t", type=Order, workers=2, max_deliveries=3, dead_letter_topic="d") as sub:
        assert_type(sub, Subscription[Event[Order]])
        assert_type(sub.stats(), SubscriptionStats)
        for event in sub:
            assert_type(event, Event[Order])
            assert_type(event.data, Order)
        assert_type(sub.receive(timeout=1), Event[Order] | None)
        sub.wait()
    with pubsub.subscribe("b", "t", type=Order, batch=2) as batches:
        for batch in batches:
            assert_type(batch, EventBatch[Order])
            assert_type(batch[0], Event[Order])
            assert_type(batch.transaction("s"), StateTransaction)
            assert_type(batch[0].transaction("s", timeout=1), StateTransaction)
            batch.retry(1)

    def typed(event: Event[Order]) -> None:
        raise DropEvent

    async def typed_async(event: Event[Order]) -> None: ...

    def plain(event: Event) -> None:
        assert_type(event, Event[Any])

    def typed_batch(batch: EventBatch[Order]) -> None: ...

    pubsub.subscribe("b", "t", typed, type=Order)
    pubsub.subscribe("b", "t", typed_async, type=Order)
    pubsub.subscribe("b", "t", plain)
    pubsub.subscribe("b", "t", typed_batch, type=Order, batch=5)
    pubsub.subscribe("b", "t", start=datetime.now(UTC))
    pubsub.subscribe("b", "t", start="now")  # type: ignore[call-overload]
    assert_type(pubsub.lag("b", "t", group="g"), int)
    pubsub.subscribe("b", "t", wrkers=1)  # type: ignore[call-overload]


async def subscribing_async(pubsub: PubSubService) -> None:
    """The twins."""
    assert_type(await pubsub.lag_async("b", "t"), int)
    async with await pubsub.subscribe_async("b", "t", type=Order) as sub:
        assert_type(sub, Subscription[Event[Order]])
        async for event in sub:
            assert_type(event, Event[Order])
        assert_type(await sub.receive_async(1), Event[Order] | None)
        await sub.wait_async()
        await sub.close_async()
    assert_type(await pubsub.subscribe_async("b", "t", batch=5), Subscription[EventBatch[Any]])
    assert_type(await pubsub.subscribe_async("b", "t", batch=5, type=Order), Subscription[EventBatch[Order]])


def locking(lock: LockService) -> None:
    """Leases."""
    lease = lock.try_lock("s", "r", "me", expiry=5, timeout=1, metadata={"a": "b"})
    assert_type(lease, Lease | None)
    assert_type(lock.unlock("s", "r", "me"), UnlockStatus)
    assert_type(lock.hold("s", "r"), LockHold)
    with lock.hold("s", "r", expiry=1, wait=0, renew=False) as held:
        assert_type(held, Lease)
        assert_type(held.token, int | None)
        assert_type(held.expires_at, datetime)
        assert_type(held.lost, bool)
        held.renew(timeout=1)
        held.release()
    with held as same:
        assert_type(same, Lease)
    lock.hold("s", "r", 5)  # type: ignore[call-arg]


async def locking_async(lock: LockService) -> None:
    """The twins."""
    assert_type(await lock.try_lock_async("s", "r"), Lease | None)
    assert_type(await lock.unlock_async("s", "r", "me"), UnlockStatus)
    async with lock.hold("s", "r") as held:
        assert_type(held, Lease)
        await held.renew_async()
    async with held as same:
        assert_type(same, Lease)


def scheduling(schedule: ScheduleService) -> None:
    """Jobs."""

    @schedule.job("j", type=Order)
    def handler(order: Order, run: JobRun) -> None:
        assert_type(run.fire_time, datetime)
        assert_type(run.attempt, int)

    schedule.schedule_job("j", schedule="@hourly", target=handler, timezone="Europe/Paris", misfire="all")
    schedule.schedule_job("j", schedule=timedelta(seconds=5), repeats=3, ttl="1h", data={"a": 1}, overwrite=True)
    schedule.schedule_job("j", due_time=5, target=RpcTarget("s", "m"), failure_policy="drop")
    schedule.schedule_job("j", due_time="5s", target=TopicTarget("b", "t"), failure_policy=Retry(1, 2))
    assert_type(schedule.get_job("j"), Job)
    assert_type(schedule.get_job("j").next_run, datetime | None)
    assert_type(schedule.list_jobs(), list[Job])
    assert_type(schedule.run_now("j", timeout=1), str)
    assert_type(schedule.list_runs("j"), list[RunRecord])
    schedule.delete_job("j", metadata={"a": "b"})
    assert_type(schedule.running(), JobRunner)
    schedule.schedule_job("j", "@hourly")  # type: ignore[call-arg]
    schedule.schedule_job("j", due_time=1, misfire="never")  # type: ignore[arg-type]


async def scheduling_async(schedule: ScheduleService) -> None:
    """The twins."""
    await schedule.schedule_job_async("j", schedule="@hourly")
    assert_type(await schedule.get_job_async("j"), Job)
    assert_type(await schedule.list_jobs_async(), list[Job])
    assert_type(await schedule.run_now_async("j"), str)
    assert_type(await schedule.list_runs_async("j"), list[RunRecord])
    await schedule.delete_job_async("j")
    async with schedule.running() as runner:
        assert_type(runner, JobRunner)
    await schedule.run_async()


def events(event: Event[Order]) -> None:
    """Attributes and methods of an event."""
    assert_type(event.id, str)
    assert_type(event.key, str | None)
    assert_type(event.extensions, Mapping[str, Any])
    assert_type(event.metadata, Mapping[str, str])
    assert_type(event.delivery_count, int | None)
    assert_type(event.to_json(), bytes)
    event.ack()
    event.retry()
    event.drop()
    event.id = "x"  # type: ignore[misc]


def secrets(secret: SecretService) -> None:
    """Secrets are mappings of text."""
    stored = secret.get_secret("s", "k", timeout=1, metadata={"version_id": "1"})
    assert_type(stored, Secret)
    assert_type(stored.value, str)
    assert_type(stored["k"], str)
    assert_type(dict(stored), dict[str, str])
    assert_type(secret.get_bulk_secret("s"), dict[str, Secret])
    stored["k"] = "x"  # type: ignore[index]
    stored.value = "x"  # type: ignore[misc]


async def secrets_async(secret: SecretService) -> None:
    """The same, asynchronous."""
    assert_type(await secret.get_secret_async("s", "k"), Secret)
    assert_type(await secret.get_bulk_secret_async("s"), dict[str, Secret])


def errors(error: CloudRuntimesError, bulk: BulkError) -> None:
    """Attributes of an error."""
    assert_type(error.code, str)
    assert_type(error.component, str | None)
    assert_type(bulk.failed, Mapping[Any, CloudRuntimesError])


def configuring(service: ConfigurationService, items: dict[str, ConfigurationItem]) -> None:
    """Values are text."""
    assert_type(service.get_configuration("s"), dict[str, str])
    assert_type(service.get_configuration("s", ["k"], group="g", label=None, timeout=1, metadata={}), dict[str, str])
    assert_type(service.get_configuration_items("s", keys=("k",)), dict[str, ConfigurationItem])
    service.save_configuration("s", {"k": "v"})
    service.save_configuration("s", items.values(), group="g")
    service.save_configuration("s", [ConfigurationItem("k", "v", None, "g", "l", {"t": "1"}, {}, False)])
    service.delete_configuration("s", {"k"}, label="l")
    service.save_configuration("s", {"k": 1})  # type: ignore[arg-type]
    service.save_configuration("s", items)  # type: ignore[arg-type]
    service.delete_configuration("s")  # type: ignore[call-arg]
    service.get_configuration("s", [], "g")  # type: ignore[call-arg]
    with service.subscribe_configuration("s", ["k"]) as sub:
        assert_type(sub, ConfigurationSubscription)
        assert_type(sub.receive(), dict[str, ConfigurationItem] | None)
        assert_type(sub.current(), dict[str, ConfigurationItem])
        sub.wait()
        for changed in sub:
            assert_type(changed, dict[str, ConfigurationItem])
    service.subscribe_configuration("s", (), lambda changed: changed["k"].value)
    service.subscribe_configuration("s", handler="print")  # type: ignore[arg-type]


async def configuring_async(service: ConfigurationService) -> None:
    """The twins."""
    assert_type(await service.get_configuration_async("s"), dict[str, str])
    assert_type(await service.get_configuration_items_async("s"), dict[str, ConfigurationItem])
    await service.save_configuration_async("s", {"k": "v"})
    await service.delete_configuration_async("s", ["k"])

    async def handler(changed: dict[str, ConfigurationItem]) -> None: ...

    async with await service.subscribe_configuration_async("s", handler=handler) as sub:
        assert_type(await sub.receive_async(timeout=1), dict[str, ConfigurationItem] | None)
        async for changed in sub:
            assert_type(changed, dict[str, ConfigurationItem])
        await sub.wait_async()


def files(file: FileService, chunks: Iterator[bytes], later: AsyncIterator[bytes]) -> None:
    """Accepted contents of files, and return types of the calls."""
    assert_type(file.put_file("s", "n", b"x", content_type="a/b", metadata={"k": "v"}, overwrite=False), FileInfo)
    file.put_file("s", "n", memoryview(b"x"), timeout=None)
    file.put_file("s", "n", Path("x"))
    with Path("x").open("rb") as opened:
        file.put_file("s", "n", opened)
    file.put_file("s", "n", chunks)
    file.put_file("s", "n", [b"x", bytearray(b"y")])
    file.put_file("s", "n", "text")  # type: ignore[arg-type]
    file.put_file("s", "n", later)  # type: ignore[arg-type]
    file.put_file("s", "n", b"x", "a/b")  # type: ignore[call-arg]
    assert_type(file.get_file("s", "n", start=1, length=2), bytes)
    assert_type(file.exists("s", "n"), bool)
    assert_type(file.list_files("s", "p", recursive=False, limit=1, after="a"), list[FileInfo])
    assert_type(file.copy_file("s", "a", "b"), FileInfo)
    assert_type(file.move_file("s", "a", "b"), FileInfo)
    assert_type(file.url("s", "n", expires=60, method="PUT"), str)
    file.url("s", "n", expires=60, method="POST")  # type: ignore[arg-type]
    info = file.stat_file("s", "n")
    assert_type(info.modified, datetime | None)
    assert_type(info.metadata, Mapping[str, str])
    file.open_file("s", "n", "r")  # type: ignore[arg-type]
    with file.open_file("s", "n", "wb") as handle:
        assert_type(handle, FileHandle)
        assert_type(handle.write(b"x"), int)
    for chunk in file.open_file("s", "n").chunks(10):
        assert_type(chunk, bytes)


async def files_async(file: FileService, later: AsyncIterator[bytes]) -> None:
    """The twins."""
    assert_type(await file.put_file_async("s", "n", later), FileInfo)
    assert_type(await file.get_file_async("s", "n"), bytes)
    async with file.open_file("s", "n") as handle:
        assert_type(handle, FileHandle)
        assert_type(await handle.read_async(5), bytes)
        async for chunk in handle.chunks():
            assert_type(chunk, bytes)


def telemetry(telemetry: TelemetryService) -> None:
    """Traces and logs."""
    tracer = telemetry.tracer("t", "1.0")
    assert_type(tracer, Tracer)
    with tracer.span("s", attributes={"a": 1}, kind="server", parent=telemetry.extract({}), links=()) as span:
        assert_type(span, Span)
        span.set_attribute("k", [1, 2])
        span.add_event("e", {"a": 1})
        span.record_exception(ValueError())
        span.set_status("error", "why")
    tracer.span("s", {"a": 1})  # type: ignore[call-arg]
    tracer.start_span("s", parent=span).end()
    assert_type(telemetry.logger("l"), Logger)
    telemetry.logger("l").info("message", key=1)
    meter = telemetry.meter("m")
    assert_type(meter, Meter)
    assert_type(meter.counter("c"), Counter)
    assert_type(meter.histogram("h", bounds="exponential"), Histogram)
    meter.histogram("g", bounds=[1, 2.5]).bind({"a": 1}).record(0.5)
    meter.histogram("i", bounds="linear")  # type: ignore[arg-type]
    meter.counter("c").add(1, {"a": 1})
    meter.observable_gauge("o", lambda: [1, (2.5, {"a": 1})])
    assert_type(telemetry.extract([("traceparent", "")]), SpanContext | None)
    assert_type(telemetry.flush(1.0), bool)
    assert_type(telemetry.stats(), TelemetryStats)
    assert_type(telemetry.tracer_provider(), TracerProvider)
    assert_type(telemetry.meter_provider(), MeterProvider)
    assert_type(telemetry.logger_provider(), LoggerProvider)
    assert_type(install(), CloudRuntimesClient)
    assert_type(install(CloudRuntimesClient()), CloudRuntimesClient)


async def telemetry_async(telemetry: TelemetryService) -> None:
    """The same, asynchronous."""
    async with telemetry.tracer("t").span("s") as span:
        assert_type(span, Span)
    assert_type(await telemetry.flush_async(), bool)
