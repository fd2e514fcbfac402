"""Consumers of a stream of events: the groups that read it, and what is trimmed behind them. Flows without I/O."""

from __future__ import annotations

import secrets
from math import inf
from typing import Any, Final

from ...spi.broker.policy import LATEST
from ...spi.pubsub import SubscribeRequest
from .buckets import patient
from .entries import milliseconds, read_direct, rfc3339
from .failures import CONSUMER_EXISTS, CONSUMER_LEAVES, NO_CONSUMER, NO_STREAM, ServerError
from .requests import Batch, Flow
from .streams import END, MAIN, RETRY, Stream

_NEVER: Final = "9999-12-31T00:00:00Z"
_MOVE: Final = 20
"""Looks until a group that somebody moves has its new place; there is a moment between them."""
_TICK: Final = 0.002
"""Seconds by which a time in milliseconds may be too early."""


def begin_policy(begins: int | None) -> dict[str, str]:
    """Return where a consumer begins."""
    if begins is None or begins == LATEST:
        return {"deliver_policy": "all" if begins is None else "new"}
    return {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(begins)}


class EventStream(Stream):
    """See the module; `Stream` has what needs no group."""

    @patient
    def join(
        self, request: SubscribeRequest, ack_wait_ms: int, begins: int | None, again: int | None = LATEST
    ) -> Flow[dict[int, str]]:
        """Make what a group needs and does not have; returns when its consumers were made, by origin.

        ``begins``: with which events of its topic a new group begins, see `begins_at`; ``again``: with which that come again, of an earlier group of the name.
        """
        yield from self.ensure()
        try:
            made, since = yield from self.join_origin(MAIN, request, ack_wait_ms, begins)
            _, since_again = yield from self.join_origin(RETRY, request, ack_wait_ms, again if made else None)
            return {MAIN: since, RETRY: since_again}
        except ServerError as error:
            if error.code in (503, NO_STREAM):
                self.forget()
            raise

    def join_origin(
        self, origin: int, request: SubscribeRequest, ack_wait_ms: int, begins: int | None, *, moves: bool = False
    ) -> Flow[tuple[bool, str]]:
        """Make a consumer of a group, unless it is there; return whether and when it was made. ``moves``: the group begins there, whatever it had."""
        name = self.consumer(origin, request.topic, request.group)
        subject = self.subject(origin, request.topic, request.group)
        ack_wait = ack_wait_ms * 1_000_000
        try:
            info = yield from self.api("CONSUMER.INFO", None, f".{name}")
            config = info["config"]
            if config["ack_wait"] == ack_wait:
                return False, info["created"]
            if config["ack_wait"] > ack_wait and (info["num_waiting"] or info["num_ack_pending"]):
                return False, info["created"]  # other members renew as seldom as they were told
            config["ack_wait"], action = ack_wait, "update"
        except ServerError as error:
            if error.code != NO_CONSUMER:
                raise
            action = "create"
            if origin == MAIN and not moves and (yield from self.has_group(request.topic, request.group, RETRY)):
                for _ in range(_MOVE):
                    yield Batch(failure=error)
                    if (yield from self.has_group(request.topic, request.group)):
                        return (yield from self.join_origin(origin, request, ack_wait_ms, begins))
                begins = None  # somebody died while moving the group: it skips nothing
            config = {
                "durable_name": name, "name": name, "filter_subject": subject, **begin_policy(begins),
                "ack_policy": "explicit", "ack_wait": ack_wait, "max_deliver": -1, "max_ack_pending": -1,
                "max_waiting": 100_000, "replay_policy": "instant",
                "inactive_threshold": int(self._settings.group_expiry * 1e9),
            }  # fmt: skip
        body = {"stream_name": self.name, "config": config, "action": action}
        asked = 0.0 if self._offset is None else self.now()
        try:
            created = yield from self.api("CONSUMER.CREATE", body, f".{name}.{config['filter_subject']}", writes=True)
        except ServerError as error:
            if error.code in CONSUMER_LEAVES:
                yield Batch(failure=error)
            elif error.code not in CONSUMER_EXISTS:  # another made it just now
                raise
            made = action == "create" and error.code in CONSUMER_EXISTS
        else:
            # one that is being deleted left it its state: what that had delivered would come after its lease
            mine = action == "create" and milliseconds(created["created"]) / 1000 >= asked - _TICK
            if not (mine and created["delivered"]["consumer_seq"] and not created["num_waiting"]):
                return action == "create", created["created"]
            yield from self.remove(name)
            made = False
        again, since = yield from self.join_origin(origin, request, ack_wait_ms, begins, moves=moves)
        return made or again, since

    @patient
    def lag(self, topic: str, group: str) -> Flow[int | None]:
        """Return how many messages a group has not settled; ``None``: there is no such group."""
        pending = None
        for origin in (MAIN, RETRY):
            try:
                info = yield from self.api("CONSUMER.INFO", None, f".{self.consumer(origin, topic, group)}")
            except ServerError as error:
                if error.code not in (NO_STREAM, NO_CONSUMER):
                    raise
                break
            pending = (pending or 0) + info["num_pending"] + info["num_ack_pending"]
        return pending

    def reader(self, topic: str, log: str, behind: int, idle: float) -> Flow[tuple[str, int]]:
        """Make a consumer that reads a topic, and what was sent back to a group with an order, behind a message, and is removed after so many seconds without a request; returns its name, and how many messages there are."""
        name = secrets.token_hex(16)
        config = {
            "name": name, "filter_subjects": [self.topic(topic), self.back(log)], "ack_policy": "none",
            "replay_policy": "instant",
            "deliver_policy": "by_start_sequence", "opt_start_seq": behind + 1, "mem_storage": True, "num_replicas": 1,
            "inactive_threshold": int(idle * 1e9),
        }  # fmt: skip
        body = {"stream_name": self.name, "config": config, "action": "create"}
        info = yield from self.api("CONSUMER.CREATE", body, f".{name}", writes=True)
        return name, info["num_pending"]

    def pause(self, topic: str, group: str, paused: bool) -> Flow[bool]:
        """Have the consumers of a group get nothing, or let them go on; return whether there are any."""
        until = {"pause_until": _NEVER} if paused else {}
        try:
            for origin in (MAIN, RETRY):
                name = self.consumer(origin, topic, group)
                yield from self.api("CONSUMER.PAUSE", until, f".{name}", writes=True)
        except ServerError as error:
            if error.code in (NO_STREAM, NO_CONSUMER):
                return False
            raise
        return True

    def is_paused(self, consumer: str) -> Flow[bool]:
        """Return whether a consumer gets nothing since somebody paused it."""
        info = yield from self.api("CONSUMER.INFO", None, f".{consumer}")
        return bool(info.get("paused"))

    def present(self, consumer: str) -> Flow[set[str]]:
        """Return the members of a group that said so within their lease; see `presence`."""
        said = yield from self.read(self.presence(consumer, "*"), 0, END)
        now = milliseconds((yield from self.api("STREAM.INFO"))["ts"])
        live = [each for each in said if (read_direct(each).expires_ms or inf) > now]
        return {each.headers["Nats-Subject"].rpartition(".")[2] for each in live}

    def has_group(self, topic: str, group: str, origin: int = MAIN) -> Flow[bool]:
        """Return whether a group without an order is there, as far as one of its consumers tells."""
        try:
            yield from self.api("CONSUMER.INFO", None, f".{self.consumer(origin, topic, group)}")
        except ServerError as error:
            if error.code in (NO_STREAM, NO_CONSUMER):
                return False
            raise
        return True

    def remove(self, consumer: str) -> Flow[None]:
        """Remove a consumer that may be there."""
        try:
            yield from self.api("CONSUMER.DELETE", None, f".{consumer}", writes=True)
        except ServerError as error:
            if error.code != NO_CONSUMER:
                raise

    def consumers(self) -> Flow[list[dict[str, Any]]]:
        """Return what is known of all consumers."""
        found: list[dict[str, Any]] = []
        while True:
            page = yield from self.api("CONSUMER.LIST", {"offset": len(found)})
            found += page["consumers"] or ()
            if not page["consumers"] or len(found) >= page["total"]:
                return found

    def trim(self, groups: Flow[int]) -> Flow[None]:
        """Remove what is older than the retention, but nothing that a consumer has not settled, or that is to be published later. ``groups`` returns up to where those with an order have settled all."""
        info = yield from self.api("STREAM.INFO")
        state = info["state"]
        limit_ms = milliseconds(info["ts"]) - int(self._settings.retention * 1000)
        if not state["messages"] or milliseconds(state["first_ts"]) >= limit_ms:
            return
        limit = rfc3339(limit_ms)
        later = yield from self._first({"start_time": limit, "next_by_subj": f"{self._root}.>"})
        delayed = yield from self._first({"seq": 1, "next_by_subj": f"{self._root}.d.>"})
        keep = min(later or state["last_seq"] + 1, delayed or state["last_seq"] + 1)
        for each in (yield from self.consumers()):
            if each["num_pending"] or each["num_ack_pending"]:
                keep = min(keep, each["ack_floor"]["stream_seq"] + 1)
        keep = min(keep, (yield from groups) + 1)
        if keep > state["first_seq"]:
            yield from self.api("STREAM.PURGE", {"seq": keep}, writes=True)
