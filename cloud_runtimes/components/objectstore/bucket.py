"""A bucket, which the drivers of a table share, and how the steps of their flows are run by both APIs.

obstore takes time-outs for a store and not for a call. So there is a store for each time that calls have left, to two digits.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import obstore
from obstore.store import AzureStore, GCSStore, S3Store

from ..._core import fork
from ..._core.threads import Mutex
from ...config import without_values
from ...errors import (
    ClosedError,
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from ...spi.flow import FlowEngine
from ...spi.operation import Operation
from .failures import ELSEWHERE, map_error
from .requests import SignedRequests
from .settings import ObjectstoreSettings

T = TypeVar("T")
_STORES: Final = 16
_AT_ONCE: Final = 32
"""Requests of one call with many keys."""
_PIECE: Final = 1024 * 1024
_UNLIMITED: Final = 86_400.0
"""Seconds."""
_CLOUDS: Final[dict[str, Any]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_BY_OBSTORE: Final = frozenset({"proxy_url", "request_payer", "s3_express", "skip_signature"})
"""Options that change requests for a bucket."""
_CREDENTIAL_HOSTS: Final = (
    "169.254.0.0/16", "fd00:ec2::/32", "amazonaws.com", "amazonaws.com.cn", "api.aws", "microsoftonline.com", "windows.net"
)  # fmt: skip
_CREDENTIAL_URLS: Final = frozenset(
    {
        "aws_container_credentials_full_uri", "aws_endpoint_url_sts", "aws_metadata_endpoint", "azure_authority_host",
        "authority_host", "container_credentials_full_uri", "identity_endpoint", "metadata_endpoint", "msi_endpoint", "sts_endpoint",
    }
)  # fmt: skip
_used_at: int | None = None
"""The generation of forks in which obstore started its threads."""


class Step(NamedTuple):
    """Call of an obstore function on a store, or of a method of ``on``."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    on: Any = None


Flow: TypeAlias = Generator["Step | Together | float", Any, T]


class Together(NamedTuple):
    """Flows that are run at once; answered by what each returned or raised."""

    flows: Sequence[Flow[Any]]


class Bucket(FlowEngine[Step | Together | float, Any]):
    """See the module; made without I/O.

    Attributes:
        where: what messages call it.
    """

    def __init__(self, settings: ObjectstoreSettings) -> None:
        self.settings = settings
        self.where = f"{settings.scheme} bucket {settings.bucket!r}"
        self._lock = Mutex()
        self._closed = False
        self._stores: dict[float, Any] = {}
        self._requests = SignedRequests(self)

    def close(self) -> None:
        """Close it: obstore ends its connections with its stores."""
        with self._lock:
            self._closed = True
            self._stores.clear()
        if self.signs:
            self._requests.close()

    @cached_property
    def signs(self) -> bool:
        """Whether obstore only signs requests for the bucket itself, and we make them."""
        settings = self.settings
        changed = any(name.removeprefix("aws_") in _BY_OBSTORE for name, _ in settings.options)
        return settings.scheme == "s3" and not changed and not _has_proxy(settings.endpoint)

    def store(self, op: Operation) -> Any:
        """Return the store for a call's time."""
        seconds = self._seconds(op)
        return self._stores.get(seconds) or self._store(seconds)

    async def store_async(self, op: Operation) -> Any:
        """Asynchronous `store`; making one reads files, and may ask for credentials."""
        seconds = self._seconds(op)
        return self._stores.get(seconds) or await asyncio.to_thread(self._store, seconds)

    def _seconds(self, op: Operation) -> float:
        global _used_at
        if _used_at != fork.generation():
            if _used_at is not None:
                raise UnsupportedError(
                    f"{self.where}: obstore's threads do not live in a forked process: start processes by spawn or forkserver, "
                    "or use the store in them only"
                )
            _used_at = fork.generation()
        remaining = op.remaining()
        if remaining == 0:
            raise op.timed_out("a connection")
        return _UNLIMITED if remaining is None else _two_digits(min(remaining, _UNLIMITED))

    def _store(self, seconds: float) -> Any:
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            store = self._stores.get(seconds) or self._make(seconds)
            if len(self._stores) >= _STORES:
                self._stores.pop(next(iter(self._stores)))
            self._stores[seconds] = store
            return store

    def signing(self, op: Operation, options: Mapping[str, Any]) -> Any:
        """Return a store that only signs, with other options than those of the settings."""
        unsigned = {"access_key_id": "-", "secret_access_key": "-", "skip_signature": False}
        return self._make(self._seconds(op), {**(unsigned if self.settings.anonymous else {}), **options})

    async def in_thread(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """Make a store in a thread, since that reads files."""
        return await asyncio.to_thread(make, *arguments)

    @without_values
    def _make(self, seconds: float, changed: Mapping[str, Any] = MappingProxyType({})) -> Any:
        settings = self.settings
        limit = timedelta(seconds=seconds)
        client: dict[str, Any] = {"timeout": limit, "connect_timeout": min(limit, timedelta(seconds=5))}
        client.update(_hosts(settings))
        if settings.allow_http:
            client["allow_http"] = True
        if settings.ca_file is not None:
            client["root_certificate"] = _content(settings.ca_file)
        names = ("endpoint", "region", "access_key_id", "secret_access_key", "session_token", "account_name",
                 "account_key", "service_account")  # fmt: skip
        options: dict[str, Any] = {
            name: getattr(settings, name) for name in names if getattr(settings, name) is not None
        }
        if settings.anonymous:
            options["skip_signature"] = True
        if settings.profile is not None:
            options["credential_provider"] = _profile(settings.profile)
        options.update(settings.options)
        options.update(changed)
        retry = {"max_retries": settings.retries, "retry_timeout": limit}
        try:
            return _CLOUDS[settings.scheme](settings.bucket, client_options=client, retry_config=retry, **options)
        except (obstore.exceptions.BaseError, TypeError, ValueError):
            pass  # its text may quote values
        raise InvalidArgumentError(
            f"{self.where}: obstore does not take the settings: look at options, keys and ca_file"
        )

    # -- running flows ----------------------------------------------------

    def steps(self, op: Operation, flow: Flow[T]) -> Generator[Any, Any, T]:
        """Yield the steps of a call; raises our error for one of obstore that the flow lets pass."""
        answer, failure = None, None
        try:
            while True:
                step = flow.send(answer) if failure is None else flow.throw(failure)
                answer = failure = None
                if isinstance(step, float):
                    remaining = op.remaining()
                    step = step if remaining is None else min(step, remaining)
                try:
                    answer = yield step
                except BaseException as error:
                    failure = error
        except StopIteration as stop:
            result: T = stop.value
            return result
        except Exception as error:
            if error is not failure or isinstance(error, CloudRuntimesError):
                raise
        finally:
            answer, raised, failure = None, failure, None
        # outside of the block: the text of obstore's error quotes URLs, and would be shown as its context
        raise map_error(self.where, raised, op)

    def _run_all(self, op: Operation, flows: Sequence[Flow[T]]) -> list[T | CloudRuntimesError]:
        """Run flows at once, and return what each gave or raised."""
        if len(flows) == 1:
            return [self._caught(op, flows[0])]
        with ThreadPoolExecutor(min(_AT_ONCE, len(flows) or 1), "cloud-runtimes-objects") as threads:
            return list(threads.map(lambda flow: self._caught(op, flow), flows))

    def _caught(self, op: Operation, flow: Flow[T]) -> T | CloudRuntimesError:
        try:
            return self.run(op, flow)
        except CloudRuntimesError as error:
            return error

    async def _run_all_async(self, op: Operation, flows: Sequence[Flow[T]]) -> list[T | CloudRuntimesError]:
        """Asynchronous `_run_all`."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def caught(flow: Flow[T]) -> T | CloudRuntimesError:
            async with slots:
                try:
                    return await self.run_async(op, flow)
                except CloudRuntimesError as error:
                    return error

        return list(await asyncio.gather(*map(caught, flows)))

    def exchange(self, op: Operation, step: Step | Together) -> Any:
        if isinstance(step, Together):
            return self._run_all(op, step.flows)
        if step.name == "request":
            return self._requests.send(op, *step.arguments)
        if step.name == "list":
            return obstore.list(self.store(op), *step.arguments, **step.options)
        if step.name == "next":
            return next(step.on, None)
        if step.name == "bytes":
            whole = _Body(self.where, step.on)
            for piece in step.on.stream(_PIECE):
                whole.add(piece)
            return whole.joined()
        if step.on is not None:
            return getattr(step.on, step.name)(*step.arguments)
        return getattr(obstore, step.name)(self.store(op), *step.arguments, **step.options)

    async def exchange_async(self, op: Operation, step: Step | Together) -> Any:
        if isinstance(step, Together):
            return await self._run_all_async(op, step.flows)
        if step.name == "request":
            return await self._requests.send_async(op, *step.arguments)
        if step.name == "list":
            return obstore.list(await self.store_async(op), *step.arguments, **step.options)
        if step.name == "next":
            return await anext(step.on, None)
        if step.name == "bytes":
            whole = _Body(self.where, step.on)
            async for piece in step.on.stream(_PIECE):
                whole.add(piece)
            return whole.joined()
        if step.on is not None:
            return await getattr(step.on, f"{step.name}_async")(*step.arguments)
        return await getattr(obstore, f"{step.name}_async")(await self.store_async(op), *step.arguments, **step.options)


def look(prefix: str | None = None) -> Flow[None]:
    """Look whether the bucket is there."""
    stream = yield Step("list", (prefix,), {"chunk_size": 1})
    yield Step("next", on=stream)


class _Body:
    """The bytes of an object, as many as the store has announced."""

    def __init__(self, where: str, result: Any) -> None:
        start, end = result.range
        self._where = where
        self._remaining: int = end - start
        self._pieces: list[Any] = []

    def add(self, piece: Any) -> None:
        """Take what came next."""
        self._remaining -= len(piece)
        if self._remaining < 0:
            raise InternalError(f"{self._where}: the store sends more of an object than it announced")
        self._pieces.append(piece)

    def joined(self) -> bytes:
        """Return all of it."""
        if self._remaining > 0:
            raise UnavailableError(f"{self._where}: the store sent less of an object than it announced")
        return b"".join(self._pieces)


def _has_proxy(url: str | None) -> bool:
    """Return whether requests to a store go through a proxy."""
    parts = urlsplit(url or "https://s3.amazonaws.com")
    return bool(getproxies().keys() & {parts.scheme, "all"}) and not proxy_bypass(parts.hostname or "")


def _hosts(settings: ObjectstoreSettings) -> dict[str, str]:
    """Return options of a client that end requests to other hosts than the endpoint's, and those that credentials come from.

    obstore follows redirects, with a session token if there is one, and has no option against it. So all other hosts are behind a proxy where nobody can listen.
    """
    if (
        settings.endpoint is None
        or _has_proxy(settings.endpoint)
        or any("proxy" in name for name, _ in settings.options)
    ):
        return {}
    given = [value for name, value in (*os.environ.items(), *settings.options) if name.lower() in _CREDENTIAL_URLS]
    hosts = {urlsplit(str(url)).hostname for url in (settings.endpoint, *given)}
    return {"proxy_url": f"http://{ELSEWHERE}", "proxy_excludes": ",".join([*filter(None, hosts), *_CREDENTIAL_HOSTS])}


def _two_digits(seconds: float) -> float:
    step = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return max(0.001, math.floor(seconds / step) * step)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidArgumentError(f"ca_file {path} cannot be read: {error.strerror}") from None


def _profile(name: str) -> Any:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        raise UnsupportedError("profile is read by boto3, which is not installed: pip install boto3") from None
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=name))
    except Exception:
        pass  # of botocore, or of its providers
    raise InvalidArgumentError("profile: ~/.aws has no such one, or it gives no keys: aws configure list-profiles")
