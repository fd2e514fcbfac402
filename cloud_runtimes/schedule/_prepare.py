"""Checks and encoding of the schedule service before any I/O."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Final

from ..codec.payload import encode_payload
from ..errors import InvalidArgumentError
from ..pubsub.outgoing import check_topic
from ..rpc.prepare import check_method, check_service
from ..spi.schedule import JobSpec, Retry, RpcTarget, TopicTarget
from .times import find_zone, occurrences, parse_duration, to_ms

_MISFIRES: Final = ("once", "skip", "all")
_MAX_MS: Final = 10**13
_LOOSE: Final = re.compile(r"[_: -]")
# RFC 1123, section 2.1, as Kubernetes and Dapr read it, without the dashes, which are taken out before
_LABELS: Final = re.compile(r"[a-z0-9]+(?:\.[a-z0-9]+)*")


def check_job_name(name: Any) -> str:
    """Return a job's name: what Dapr takes for one."""
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= 253
        or not name.isascii()
        or not _LABELS.fullmatch(_LOOSE.sub("", name).lower())
    ):
        shown = f"{name!r:.80}" if isinstance(name, str) else type(name).__name__
        raise InvalidArgumentError(
            f"job {shown}: a name is 1 to 253 ASCII letters, digits and '-', '_', ':', space, with '.' between parts that have a letter or digit"
        )
    return name


def make_spec(
    name: Any,
    target: Any,
    failure_policy: Any,
    schedule: Any,
    due_time: Any,
    repeats: Any,
    ttl: Any,
    data: Any,
    misfire: Any,
    timezone: Any,
) -> JobSpec:
    """Return a job, checked and encoded; ``target`` is a target or the name of a handler."""
    check_job_name(name)
    if schedule is None and due_time is None:
        raise InvalidArgumentError(
            f"job {name!r}: give schedule= (cron, '@every 5s', '@hourly', timedelta) or due_time="
        )
    find_zone(timezone)
    text = _schedule(schedule, timezone)
    first, last = _moment("due_time", due_time), _moment("ttl", ttl)
    if repeats is not None and (isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats < 2**31):
        raise InvalidArgumentError(f"repeats must be a whole number, 1 or more, not {repeats!r:.80}")
    if text is None and ttl is not None:
        raise InvalidArgumentError("ttl= needs a schedule=: a job with due_time= alone has one occurrence")
    if text is None and repeats not in (None, 1):
        raise InvalidArgumentError("repeats= more than 1 needs a schedule=")
    if last[1] == 0:
        raise InvalidArgumentError("ttl must be more than 0")
    if misfire not in _MISFIRES:
        raise InvalidArgumentError(f"misfire must be one of {', '.join(map(repr, _MISFIRES))}, not {misfire!r:.80}")
    _check_policy(failure_policy)
    _check_target(target)
    encoded, encoding = (None, None) if data is None else encode_payload(data)
    return JobSpec(name, text, *first, repeats, *last, encoded, encoding, target, failure_policy, misfire, timezone)


def _schedule(schedule: Any, timezone: str) -> str | None:
    if schedule is None:
        return None
    if isinstance(schedule, timedelta):
        schedule = f"@every {schedule // timedelta(milliseconds=1)}ms"
    if not isinstance(schedule, str):
        raise InvalidArgumentError(
            f"schedule must be cron text, '@every 5s', '@hourly' … or a timedelta, not {type(schedule).__name__}"
        )
    occurrences(schedule, timezone)
    if schedule.strip().startswith("@every") and timezone != "UTC":
        raise InvalidArgumentError(
            f"timezone {timezone!r:.80}: an interval such as '@every 1h' is the same in all time zones: leave the time zone out, or give cron"
        )
    return schedule.strip()


def _moment(what: str, value: Any) -> tuple[int | None, int | None]:
    """Return a point in time, or a delay, in milliseconds."""
    if value is None:
        return None, None
    delay: float | None = None
    if isinstance(value, str):
        delay = parse_duration(value)
        if delay is None:
            try:
                value = datetime.fromisoformat(value)  # RFC 3339 and more
            except ValueError:
                raise InvalidArgumentError(
                    f"{what} {value!r:.80}: give RFC 3339 such as '2027-01-31T12:00:00Z', or a duration such as '5s', '1h30m', 'PT5S'"
                ) from None
    elif isinstance(value, timedelta):
        delay = value / timedelta(milliseconds=1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        delay = value * 1000
    if delay is not None:
        if not 0 <= delay <= _MAX_MS:
            raise InvalidArgumentError(f"{what} must be 0 or more seconds, and finite, not {value!r:.80}")
        return None, -int(-delay // 1)
    if not isinstance(value, datetime):
        raise InvalidArgumentError(
            f"{what} must be a datetime, RFC 3339 text, seconds or a timedelta, not {type(value).__name__}"
        )
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidArgumentError(
            f"{what} {value.isoformat()}: say in which time zone: datetime(…, tzinfo=…), or '…Z'"
        )
    ms = to_ms(value)
    if not 0 <= ms <= 10**14:
        raise InvalidArgumentError(f"{what} {value.isoformat()}: give a time after 1970")
    return ms, None


def _check_policy(policy: Any) -> None:
    if policy == "drop":
        return
    if not isinstance(policy, Retry):
        raise InvalidArgumentError(f"failure_policy must be 'drop' or Retry(attempts, interval), not {policy!r:.80}")
    attempts, interval = policy.attempts, policy.interval
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 0 <= attempts < 2**31:
        raise InvalidArgumentError(f"Retry.attempts must be a whole number, 0 or more, not {attempts!r:.80}")
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0 <= interval <= 1e9:
        raise InvalidArgumentError(f"Retry.interval must be 0 or more seconds, not {interval!r:.80}")


def _check_target(target: Any) -> None:
    if isinstance(target, RpcTarget):
        check_service(target.service)
        check_method(target.method)
    elif isinstance(target, TopicTarget):
        if not isinstance(target.pubsub_name, str) or not target.pubsub_name:
            raise InvalidArgumentError("TopicTarget.pubsub_name must be the name of a pub/sub component")
        check_topic(target.topic)
    elif not isinstance(target, str):
        raise InvalidArgumentError(
            f"target must be an RpcTarget, a TopicTarget or a handler of @client.schedule.job(…), not {target!r:.80}"
        )
