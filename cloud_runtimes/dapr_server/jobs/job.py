"""A job as Dapr tells it (``dapr.proto.runtime.v1.Job``), and how it is stored: what was asked for, whole, beside our job's schedule."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, Final

from ...codec import json
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from ...spi.schedule import FailurePolicy, Retry

FOREVER: Final = 2**31 - 1
_SECONDS: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")


@dataclass(frozen=True, slots=True)
class JobData:
    """Data of a job: JSON, as HTTP gives it, or an ``Any``, as gRPC does.

    Attributes:
        value: the JSON value, where there is no type.
        type_url: of an ``Any``; ``None``: it is JSON.
        body: of an ``Any``.
    """

    value: Any = None
    type_url: str | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Policy:
    """Failure policy of a job: ``drop``, or retries at an interval.

    Attributes:
        drop: do not retry.
        interval: seconds; ``None``: not given.
        max_retries: ``None``: no limit.
    """

    drop: bool = False
    interval: float | None = None
    max_retries: int | None = None

    def ours(self) -> FailurePolicy:
        """Return it in our words."""
        if self.drop:
            return "drop"
        attempts = FOREVER if self.max_retries is None else min(FOREVER, self.max_retries)
        return Retry(attempts, 1.0 if self.interval is None else self.interval)


DEFAULT_POLICY: Final = Policy(interval=1.0, max_retries=3)
"""What holds where none was given, and is told then: Dapr's default, and that of our schedules."""


@dataclass(frozen=True, slots=True)
class DaprJob:
    """Job of the Dapr API; fields that were not given are ``None``."""

    name: str
    schedule: str | None = None
    repeats: int | None = None
    due_time: str | None = None
    ttl: str | None = None
    data: JobData | None = None
    policy: Policy | None = None

    def stored(self) -> dict[str, Any]:
        """Return all but the name, for our job's data."""
        document: dict[str, Any] = {
            "schedule": self.schedule,
            "repeats": self.repeats,
            "dueTime": self.due_time,
            "ttl": self.ttl,
        }
        if self.data is not None:
            data = self.data
            document["data"] = (
                {"value": data.value}
                if data.type_url is None
                else {"type": data.type_url, "body": base64.b64encode(data.body).decode("ascii")}
            )
        if self.policy is not None:
            policy = self.policy
            document["policy"] = {"drop": policy.drop, "interval": policy.interval, "maxRetries": policy.max_retries}
        return document


def restored(name: str, document: dict[str, Any]) -> DaprJob:
    """Return a job from our job's data."""
    data, policy = document.get("data"), document.get("policy")
    return DaprJob(
        name,
        document.get("schedule"),
        document.get("repeats"),
        document.get("dueTime"),
        document.get("ttl"),
        None if data is None else data_of(data),
        DEFAULT_POLICY if policy is None else Policy(policy["drop"], policy["interval"], policy["maxRetries"]),
    )


def data_of(stored: dict[str, Any]) -> JobData:
    """Return data as it was stored."""
    if "type" not in stored:
        return JobData(stored["value"])
    return JobData(None, stored["type"], base64.b64decode(stored["body"]))


def go_duration(text: str) -> float | None:
    """Return the seconds of a ``google.protobuf.Duration`` in JSON (``"1.5s"``), ``None``: it is none."""
    match = _SECONDS.fullmatch(text)
    return None if match is None else float(match[1])


def zoned(text: str) -> tuple[str, str]:
    """Return a schedule and its time zone, which Dapr has before it; UTC where there is none."""
    rest, timezone = text.strip(), "UTC"
    for prefix in ("CRON_TZ=", "TZ="):
        if rest.startswith(prefix):
            timezone, _, rest = rest.removeprefix(prefix).partition(" ")
            return rest.strip(), timezone
    return rest, timezone


def any_message(data: JobData) -> Any:
    """Return an ``Any``; JSON is in a ``google.protobuf.Value``."""
    kinds = messages()
    if data.type_url is not None:
        return kinds.Any(type_url=data.type_url, value=data.body)
    from google.protobuf import json_format

    value = json_format.ParseDict(data.value, kinds.Value())
    return kinds.Any(type_url=VALUE_TYPE, value=value.SerializeToString())


def json_of(data: JobData) -> bytes:
    """Return the JSON of an ``Any`` that holds a ``google.protobuf.Value``."""
    value = messages().Value.FromString(data.body)
    return b"" if value.WhichOneof("kind") is None else json.encode(plain(value))
