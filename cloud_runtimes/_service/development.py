"""Development mode, ``CLOUD_RUNTIMES_DEV=1``: warnings of what works on a laptop and hurts in production. Each is logged once for each line of code."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import threading
import time
import warnings
from asyncio import AbstractEventLoop, _get_running_loop, get_running_loop
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from .._core.config_discovery import find
from .._core.logs import once
from .._core.os_processes import started
from .._core.threads import Background
from ..config import typo, unknown
from ..errors import CloudRuntimesError
from .base import Call, Interceptor

if TYPE_CHECKING:
    from .context import ClientContext

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_VARIABLES: Final = frozenset(
    f"CLOUD_RUNTIMES_{name}" for name in ("BUILD", "CONFIG", "DEV", "DURABILITY", "HOME", "LOCK_TOKEN", "NATIVE", "RUNTIME")
)  # fmt: skip
_PREFIXES: Final = ("CLOUD_RUNTIMES_HOME_", "CLOUD_RUNTIMES_SECRET_")
_BLOCKED: Final = 0.1
"""Seconds after which a loop that does nothing else counts as blocked."""

_GRACE: Final = 3.0
"""Seconds that others have to subscribe to a topic, or to publish to it."""

_topics: Final[set[tuple[str, str, bool]]] = set()
_watched: Final[WeakSet[AbstractEventLoop]] = WeakSet()


def begin(*, searches: bool) -> str:
    """Look at the environment, and return where a client is being made; it ``searches`` for its configuration."""
    warnings.filterwarnings("default", ".* was not closed: use it in a with block", ResourceWarning)
    for name in sorted(os.environ):
        if name.startswith("CLOUD_RUNTIMES_") and name not in _VARIABLES and not name.startswith(_PREFIXES):
            once(f"variable {name}", "%s is not read: %s", name, unknown("variable", name, _VARIABLES))
    with suppress(CloudRuntimesError):  # which the first call raises
        if searches and find(None) is None:
            for path in sorted(Path().glob("*/cloud-runtimes.toml")):
                once(f"below {path}", "%s is not read: the search goes upward; name it by CLOUD_RUNTIMES_CONFIG", path)
    return _caller(sys._getframe())


class DevelopmentInterceptor(Interceptor):
    """Looks for calls of the sync API in an event loop, and for loops that are blocked."""

    def __init__(self, context: ClientContext) -> None:
        self._context = context

    def call(self, call: Call) -> Any:
        """Warn of a call that blocks the loop of its thread."""
        self._note_topic(call)
        if _get_running_loop() is not None:
            where = _caller(sys._getframe())
            name = call.op.method.name
            once(f"sync {where}", "%s: %s blocks the running event loop: await %s_async", where, name, name)
        return call.proceed()

    async def call_async(self, call: Call) -> Any:
        """Have the loop watched from its first call on."""
        self._note_topic(call)
        loop = get_running_loop()
        if loop not in _watched:
            _watched.add(loop)
            _LoopWatch(loop)
        return await call.proceed_async()

    def _note_topic(self, call: Call) -> None:
        """Have a topic looked at a moment after its first event, or its first subscription, in this process."""
        topic = getattr(call.args[0], "topic", None) if call.op.method.service == "pubsub" and call.args else None
        if (
            topic is not None
            and (key := (call.op.component, str(topic), call.op.method.name == "subscribe")) not in _topics
        ):
            _topics.add(key)
            timer = threading.Timer(_GRACE, self._look_at_topic, (_caller(sys._getframe()), *key))
            timer.daemon = True
            timer.start()

    def _look_at_topic(self, where: str, pubsub_name: str, topic: str, is_subscribed: bool) -> None:
        try:
            topics = {each.name: each for each in self._context.service("admin").topics(pubsub_name)}
        except CloudRuntimesError:  # the component does not tell, or the client is closed
            return
        found = topics.get(topic)
        label = f"{pubsub_name}/{topic}"
        if is_subscribed:
            others = {name for name, each in topics.items() if each.events} - {topic}
            near = typo(topic, others)
            if near and not (found and found.events):
                once(f"topic {label}", "%s: %s has no events: did you mean %r?", where, label, near)
        elif found is not None and found.groups == 0:
            others = {name for name, each in topics.items() if each.groups} - {topic}
            near = typo(topic, others)
            hint = f"did you mean {near!r}?" if near else "a group gets them that begins with start='earliest'"
            once(
                f"groups {label}",
                "%s: no group has subscribed to %s, so nobody gets its events: %s",
                where,
                label,
                hint,
            )


class _LoopWatch:
    """A thread that asks a loop for a sign of life, and looks where its thread is when none comes."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        Background(self._run, "cloud-runtimes-loop-watch").start()

    def _run(self) -> None:
        while not self._loop.is_closed():
            alive = threading.Event()
            try:
                self._loop.call_soon_threadsafe(alive.set)
            except RuntimeError:
                return  # it was closed meanwhile
            if not alive.wait(_BLOCKED) and self._loop.is_running():
                frame = sys._current_frames().get(self._thread)
                where = "" if frame is None else _caller(frame)
                once(f"blocked {where}", "%s: the event loop is blocked for more than %g ms", where, _BLOCKED * 1000)
                while not alive.wait(1.0):
                    if not self._loop.is_running():
                        return
            time.sleep(_BLOCKED)


def compare_processes(context: ClientContext) -> None:
    """Warn of processes on this machine that run handlers of the same application, from other code."""
    home, app_id = context.location.partition(", ")[0], context.settings.app_id
    if not os.path.isdir(home):
        return
    mine = {
        f"{service} {key}": _fingerprint(handler.function)
        for service in ("rpc", "pubsub", "schedule")
        for key, handler in context.frame(service).handlers.items()
    }
    folder = Path(home, "development")
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        try:
            other = json.loads(path.read_bytes())
        except (OSError, ValueError):  # it is being written, or is gone
            continue
        if started(other["pid"]) != other["started"]:
            path.unlink(missing_ok=True)
            continue
        changed = [key for key, code in mine.items() if other["handlers"].get(key, code) != code]
        if changed and other["app_id"] == app_id and other["pid"] != os.getpid():
            message = "process %d runs %r too, with other code for %s: either gets a part of the work; restart it, or give one another app_id"
            once(f"code {app_id} {other['pid']}", message, other["pid"], app_id, ", ".join(changed))
    report = {"pid": os.getpid(), "started": started(os.getpid()), "app_id": app_id, "handlers": mine}
    (folder / f"{os.getpid()}-{app_id}.json").write_text(json.dumps(report), encoding="utf-8")


def _fingerprint(function: Any) -> str:
    """Return what is the same for the same code, wherever it lies."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return hashlib.sha256(repr(_parts(code)).encode("utf-8", "backslashreplace")).hexdigest()


def _parts(value: Any) -> Any:
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, [_parts(each) for each in value.co_consts]
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _caller(frame: FrameType | None) -> str:
    """Return the innermost line that is not of this package."""
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return "the program" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
