"""Answers of ``client.admin`` for the page: what is there, and what mends it.

Looking needs nothing. A change needs the token that the server told whoever started it: no other page knows it, and it stands in no address that a server sees.
"""

from __future__ import annotations

import dataclasses
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..codec import json
from ..errors import (
    CloudRuntimesError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    UnsupportedError,
)
from .lags import Lags

if TYPE_CHECKING:
    from ..admin import DeadLetters, Overview, ServiceInfo
    from ..client import CloudRuntimesClient
    from ..configuration import ConfigurationItem
    from ..pubsub import Event

TOKEN_HEADER: Final = "x-cloud-runtimes-token"
_ROWS: Final = 1000
_BEGINNING: Final = 64 << 10
"""Bytes of a file that are shown when its content is asked for."""
_SECRET: Final = re.compile(r"secret|passw|passphrase|token|credential|(?:private|api|access).?key", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_LETTERS: Final = ("pubsub_name", "topic", "group", "reason", "error", "ids", "limit", "dry_run")
_GROUP: Final = ("pubsub_name", "topic", "group")
CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "redrive": (*_LETTERS, "to"),
    "discard": _LETTERS,
    "purge": ("pubsub_name", "topic", "before", "dry_run"),
    "seek": (*_GROUP, "to"),
    "pause": _GROUP,
    "resume": _GROUP,
    "delete_group": (*_GROUP, "dry_run"),
    "delete_topic": ("pubsub_name", "topic", "dry_run"),
    "break_lock": ("store_name", "resource_id", "token"),
    "pause_job": ("name", "app_id"),
    "resume_job": ("name", "app_id"),
    "retry_run": ("name", "run_id", "app_id"),
}
"""Method of `AdminService` → the arguments that the page may give."""
_STATUSES: Final = (
    (InvalidArgumentError, 400),
    (PayloadError, 400),
    (PermissionDeniedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (UnsupportedError, 501),
)


def status_of(error: CloudRuntimesError) -> int:
    """Return the status of HTTP that an error is answered with."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)


class Operations:
    """See the module.

    Args:
        client: whose components are shown; it is the caller's, who closes it.
        token: allows changes; ``None``: there are none.
        hide_payloads: show no data of events, and no values.
    """

    def __init__(self, client: CloudRuntimesClient, *, token: str | None = None, hide_payloads: bool = False) -> None:
        self._client = client
        self._token = token
        self._hides = hide_payloads
        self._lags = Lags()
        self._questions: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "overview": lambda given: client.admin.overview(),
            "names": self._names,
            "topics": self._topics,
            "groups": self._groups,
            "events": self._events,
            "dead": self._dead,
            "locks": lambda given: client.admin.locks(given["store"], prefix=given.get("prefix", ""), limit=_ROWS),
            "services": lambda given: client.admin.services(prefix=given.get("prefix", "")),
            "jobs": lambda given: client.admin.jobs(prefix=given.get("prefix", "")),
            "runs": lambda given: client.schedule.list_runs(given["name"]),
            "stores": lambda given: client.admin.stores(),
            "keys": self._keys,
            "value": self._value,
            "files": self._files,
            "file": self._file,
            "items": self._items,
        }

    @property
    def may_change(self) -> bool:
        """Whether changes are allowed to whoever has the token."""
        return self._token is not None

    def ask(self, question: str, given: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the answer to a question of the page; ``None``: there is no such question."""
        answer = self._questions.get(question)
        if answer is None:
            return None
        try:
            return {question: plain(answer(given))}
        except KeyError as error:
            raise InvalidArgumentError(f"{question}: say which {error.args[0]}") from None

    def change(self, method: str, body: bytes, token: str) -> dict[str, Any]:
        """Make a change, and return what came of it.

        Raises:
            PermissionDeniedError: changes are not allowed, or the token is another.
            InvalidArgumentError: there is no such change, or it takes other arguments.
        """
        if self._token is None:
            raise PermissionDeniedError("this dashboard only shows: start it with --allow-changes")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode()):
            raise PermissionDeniedError(
                "a change needs the token that the dashboard wrote at its start: open that address"
            )
        allowed = CHANGES.get(method)
        given = json.decode(body)
        if allowed is None or not isinstance(given, dict) or not given.keys() <= set(allowed):
            raise InvalidArgumentError(f"{method!r:.40}: there is no such change, or it takes other arguments")
        for name in ("before", "to"):
            if isinstance(given.get(name), str) and given[name] not in ("earliest", "latest", "group", "topic"):
                given[name] = _time(name, given[name])
        return {"result": plain(getattr(self._client.admin, method)(**given))}

    def backlogs(self) -> Overview:
        """Return what needs a look, and all groups that are behind, for those who collect it. Their lags are remembered."""
        found = self._client.admin.overview(limit=_ROWS)
        self._lags.note(
            ((each.pubsub_name, each.group.topic, each.group.name), each.group.lag) for each in found.groups
        )
        return found

    def away(self) -> dict[str, str]:
        """Return the components that do not answer, and why."""
        found = self._client.admin.overview(limit=_ROWS).components
        return {".".join(filter(None, (each.service, each.name))) or "home": each.error for each in found if each.error}

    def lag(self, given: Mapping[str, str]) -> int:
        """Return how many events a group has not settled, for those who scale its members."""
        try:
            return self._client.pubsub.lag(given["store"], given["topic"], group=given["group"])
        except KeyError as error:
            raise InvalidArgumentError(
                f"scale: say which {error.args[0]}, as ?store=bus&topic=orders&group=shop"
            ) from None

    def services(self) -> list[ServiceInfo]:
        """Return the applications that can be called; none where the home does not tell."""
        try:
            return self._client.admin.services()
        except UnsupportedError:
            return []

    # -- questions --------------------------------------------------------

    def _names(self, given: Mapping[str, str]) -> list[str]:
        return [store.name for store in self._client.admin.stores() if store.service == given["service"]]

    def _topics(self, given: Mapping[str, str]) -> Any:
        return self._client.admin.topics(given["store"], prefix=given.get("prefix", ""), limit=_ROWS)

    def _groups(self, given: Mapping[str, str]) -> list[dict[str, Any]]:
        store, topic = given["store"], given["topic"]
        found = self._client.admin.groups(store, topic)
        self._lags.note(((store, topic, each.name), each.lag) for each in found)
        return [{**plain(each), "lags": self._lags.of((store, topic, each.name))} for each in found]

    def _events(self, given: Mapping[str, str]) -> list[dict[str, Any]]:
        group = given.get("group") or None
        start: Any = "latest" if group is None else "earliest"
        events = self._client.admin.peek(given["store"], given["topic"], group=group, start=start, limit=50)
        return [self._event(event) for event in events]

    def _dead(self, given: Mapping[str, str]) -> list[dict[str, Any]]:
        letters = self._client.admin.dead_letters(given["store"], given["topic"])
        return [{**plain(_without_sample(each)), "sample": self._event(each.sample)} for each in letters]

    def _event(self, event: Event[Any]) -> dict[str, Any]:
        """Return what the page shows of an event."""
        shown = json.decode(event.to_json())
        if self._hides:
            shown = {key: value for key, value in shown.items() if key not in ("data", "data_base64")}
            if "dlerror" in shown:  # the message of an error may have data
                shown["dlerror"] = str(shown["dlerror"]).partition(":")[0]
        return {"event": shown, "deliveries": event.delivery_count}

    def _keys(self, given: Mapping[str, str]) -> list[str]:
        after = given.get("after") or None
        return self._client.state.list_keys(given["store"], given.get("prefix", ""), limit=_ROWS, after=after)

    def _value(self, given: Mapping[str, str]) -> dict[str, Any]:
        item = self._client.state.get_item(given["store"], given["key"], type=bytes)
        if item is None:
            raise NotFoundError(f"{given['store']} has no key {given['key']!r}")
        value = None if self._hides or item.value is None else item.value.decode("utf-8", "replace")
        return {"key": given["key"], "value": value, "etag": item.etag, "bytes": len(item.value or b"")}

    def _files(self, given: Mapping[str, str]) -> list[dict[str, Any]]:
        after, prefix = given.get("after") or None, given.get("prefix", "")
        found = self._client.file.list_files(given["store"], prefix, recursive=False, limit=_ROWS, after=after)
        return [{"name": each.name, "size": each.size, "modified": plain(each.modified)} for each in found]

    def _file(self, given: Mapping[str, str]) -> dict[str, Any]:
        store, name = given["store"], given["name"]
        found = {**plain(self._client.file.stat_file(store, name)), "content": None}
        if given.get("content") == "1" and not self._hides:
            with self._client.file.open_file(store, name) as file:
                found["content"] = bytes(file.read(_BEGINNING)).decode("utf-8", "replace")
        return found

    def _items(self, given: Mapping[str, str]) -> list[dict[str, Any]]:
        group, label = given.get("group") or None, given.get("label") or None
        found = self._client.configuration.get_configuration_items(given["store"], group=group, label=label)
        items = [found[key] for key in sorted(found) if key.startswith(given.get("prefix", ""))][:_ROWS]
        return [plain(item) | ({"value": None} if self._hides or _is_secret(item) else {}) for item in items]


def _is_secret(item: ConfigurationItem) -> bool:
    """Return whether a value is kept from the page: by its key, its tags, or a password in a URL."""
    return bool(_SECRET.search(" ".join((item.key, *item.tags))) or _PASSWORD.search(item.value))


def _without_sample(letters: DeadLetters) -> dict[str, Any]:
    return {each.name: getattr(letters, each.name) for each in dataclasses.fields(letters) if each.name != "sample"}


def plain(value: Any) -> Any:
    """Return a result as JSON has it: dataclasses as objects, times as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _time(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgumentError(f"{name} {text!r:.40}: give a time with its zone as 2026-11-28T09:00:00Z") from None
