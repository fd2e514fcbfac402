"""Jobs of ours as JSON of Dapr's, and back (Dapr, "Jobs API reference"): what Dapr has no place for stands with the data in a wrapper, as values of state do.

Data is plain where it is JSON that Dapr leaves as it is (it decodes numbers into floats) and the job runs the handler of its own name, so that any application of Dapr understands it.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import PayloadError, UnsupportedError
from ...schedule.times import from_ms, parse_duration, to_ms
from ...spi.schedule import FailurePolicy, JobSpec, Retry, RpcTarget, StoredJob, TopicTarget
from .._sidecar.stores import MARK, is_wrapped, wrapper
from .transport import odd

_ZONE: Final = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)
_FIELD: Final = re.compile(r"[0-9A-Za-z*?/,-]+")
_LETTERS: Final = re.compile(r"[LW]", re.IGNORECASE)
_WORDS: Final = re.compile(r"[A-Za-z]{3}")
_SUNDAY: Final = re.compile(r"(?<![0-9/])0?7(?![0-9])")


def stored(spec: JobSpec) -> dict[str, Any]:
    """Return a job as Dapr takes it, without its name."""
    document = {
        "schedule": None if spec.schedule is None else _cron(spec.schedule, spec.timezone),
        "repeats": spec.repeats,
        "dueTime": _time(spec.due_ms, spec.delay_ms),
        "ttl": _time(spec.expires_ms, spec.ttl_ms),
        "failurePolicy": {"drop": {}},
        "data": _data(spec),
    }
    if isinstance(spec.failure_policy, Retry):
        interval, retries = spec.failure_policy.interval, spec.failure_policy.attempts
        document["failurePolicy"] = {"constant": {"interval": f"{interval:.9f}s", "maxRetries": retries}}
    return {name: value for name, value in document.items() if value is not None}


def restored(name: str, job: Any) -> StoredJob:
    """Return a job of whoever has scheduled it. A time that was given as a delay is not known."""
    try:
        return StoredJob(_restored(name, job))
    except (AttributeError, TypeError, ValueError):
        odd()


def _restored(name: str, job: Any) -> JobSpec:
    repeats, data = job.get("repeats"), job.get("data")
    # of an Any in ProtoJSON the value, where its type has one
    body = json.encode(data.get("value", data)) if isinstance(data, dict) and data else b""
    payload, kind, target = opened(name, body)
    due_ms, _ = _moment(job.get("dueTime"))
    expires_ms, ttl_ms = _moment(job.get("ttl"))
    if ttl_ms is not None and due_ms is not None:
        expires_ms = due_ms + ttl_ms
    cron, zone = _our_cron(job.get("schedule"))
    policy = _policy(job.get("failurePolicy"))
    count = None if repeats is None else int(repeats)
    return JobSpec(name, cron, due_ms, None, count, expires_ms, None, payload, kind, target, policy, "once", zone)


def _policy(policy: Any) -> FailurePolicy:
    if policy is not None and "drop" in policy:
        return "drop"
    constant = None if policy is None else policy.get("constant")
    if not isinstance(constant, dict):
        return Retry()  # Dapr's default is ours
    interval = float(constant.get("interval", "0s").removesuffix("s"))
    return Retry(int(constant.get("maxRetries", 2**31 - 1)), interval)


def opened(name: str, data: bytes) -> tuple[bytes | None, str | None, str | RpcTarget | TopicTarget]:
    """Return data, its content type and the target of what Dapr has for a job's data."""
    if not data or data == b"null":
        return None, None, name
    try:
        value: Any = json.decode(data)
    except PayloadError:
        return data, OCTETS, name
    if not isinstance(value, dict) or value.get(MARK) != 1:
        return data, JSON, name
    payload = content_type = None
    try:
        if "data_base64" in value:
            payload = base64.b64decode(value["data_base64"], validate=True)
            content_type = str(value["datacontenttype"])
        return payload, content_type, _target(value.get("target", name))
    except (KeyError, TypeError, ValueError, binascii.Error):  # another one's
        return data, JSON, name


def _target(value: Any) -> str | RpcTarget | TopicTarget:
    if isinstance(value, str):
        return value
    if "service" in value:
        return RpcTarget(str(value["service"]), str(value["method"]))
    return TopicTarget(str(value["pubsub"]), str(value["topic"]))


def _data(spec: JobSpec) -> Any:
    plain = spec.target == spec.name
    if plain and spec.data is None:
        return None
    if plain and spec.data is not None and spec.data != b"null" and not is_wrapped(spec.data, spec.content_type):
        return json.decode(spec.data)
    document: dict[str, Any] = {MARK: 1} if spec.data is None else wrapper(spec.data, spec.content_type)
    if isinstance(spec.target, RpcTarget):
        document["target"] = {"service": spec.target.service, "method": spec.target.method}
    elif isinstance(spec.target, TopicTarget):
        document["target"] = {"pubsub": spec.target.pubsub_name, "topic": spec.target.topic}
    elif not plain:
        document["target"] = spec.target
    return document


def _cron(text: str, timezone: str) -> str:
    """Return a schedule in Dapr's words: six fields, a time zone before them, durations of Go's."""
    if text.startswith("@every"):
        ms = parse_duration(text.removeprefix("@every").strip())
        return f"@every {ms}ms"
    if text.startswith("@"):
        cron = text.lower()
    else:
        fields = text.split()
        if len(fields) == 5:
            fields = ["0", *fields]
        if (
            not all(map(_FIELD.fullmatch, fields))
            or any(_LETTERS.search(_WORDS.sub("", field)) for field in fields)
            or _SUNDAY.search(fields[5])
        ):
            raise UnsupportedError(
                f"schedule {text!r:.80}: Dapr's scheduler has no 'L', 'W' and '#', and Sunday is 0: write it without them"
            )
        cron = " ".join(fields)
    # without it Dapr takes the time zone of the scheduler's machine
    return f"CRON_TZ={timezone} {cron}"


def _our_cron(text: str | None) -> tuple[str | None, str]:
    """Return a schedule in our words: without seconds where these are 0, and the time zone apart."""
    if text is None:
        return None, "UTC"
    timezone = "UTC"
    if match := _ZONE.fullmatch(text.strip()):
        timezone, text = match[1], match[2]
    fields = text.split()
    return (" ".join(fields[1:]) if len(fields) == 6 and fields[0] == "0" else text), timezone


def _moment(text: str | None) -> tuple[int | None, int | None]:
    """Return a time and a duration, of which at most one is told."""
    if text is None:
        return None, None
    if (ms := parse_duration(text)) is not None:
        return None, ms
    try:
        moment = datetime.fromisoformat(text)
        return to_ms(moment), None
    except (ValueError, TypeError):
        return None, None


def _time(ms: int | None, duration_ms: int | None) -> str | None:
    """Return a duration, else a time, as Dapr reads them."""
    if duration_ms is not None:
        return f"{duration_ms}ms"
    return None if ms is None else from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
