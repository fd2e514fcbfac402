"""Relays of a client: which events wait where, and the forwarders that carry them on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from .._core import fork
from .._core.arguments import HIDDEN
from .._core.handles import close_by
from .._core.logs import once, repeated
from .._core.threads import Background, Mutex, in_background
from .._service.base import ServiceFrame
from ..errors import CloudRuntimesError, ComponentNotFoundError, UnsupportedError
from ..spi.relay import OUTBOX, SPOOL, Spool, read_relay_name, relay_name
from ..spi.state import StateWrite
from ._relay_stores import KNOWN, KeyStore, LogStore, RelayStore, call

if TYPE_CHECKING:
    from ..spi.pubsub import PubSubDriver
    from ..spi.state import StateDriver
    from ._forwarder import Forwarder
    from ._relay_table import TableStore

_HOME: Final = f"{HIDDEN}relay{HIDDEN}"
"""State store of the home that knows which of its undeclared stores events wait in."""
_TELEMETRY: Final = "telemetry"
_RETRIES: Final = (0.0, 1.0, 10.0, 60.0)
LOOK_EVERY: Final = 30.0
"""Seconds between two looks of an application for what other processes left, under whatever name."""


class Relay(NamedTuple):
    """A way of events from a store to a broker.

    Attributes:
        service, store_name: of the store; ``""``: the spool of this machine; ``"telemetry"``: that of telemetry.
        pubsub_name: where they go; of telemetry the signal.
        vendor: component of ``pubsub_name``.
    """

    service: str
    store_name: str
    pubsub_name: str
    vendor: str

    @property
    def kind(self) -> str:
        """`OUTBOX` or `SPOOL`."""
        return SPOOL if self.service in ("", _TELEMETRY) else OUTBOX

    @property
    def names(self) -> tuple[str, str]:
        """The hidden names under which they wait, and under which those lie that the broker refused."""
        where = (self.kind, self.vendor, self.pubsub_name)
        return relay_name(*where), relay_name(*where, refused=True)

    @property
    def where(self) -> str:
        """Description of the store, for messages."""
        if self.kind == SPOOL:
            return f"the spool of {self.service or repr(self.pubsub_name)}"
        return "the home" if self.store_name.startswith(HIDDEN) else f"the {self.service} {self.store_name!r}"

    @property
    def destination(self) -> str:
        """Description of where they go, for messages."""
        if self.service == _TELEMETRY:
            return f"a collector of {self.pubsub_name}, by spool = true in [telemetry]"
        return f"the pub/sub component {self.pubsub_name!r}, {self.vendor}"


class Relays:
    """The relays that a client has in this process.

    Args:
        frame: of pub/sub.
    """

    def __init__(self, frame: ServiceFrame) -> None:
        self._frame = frame
        self._lock = Mutex()
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the threads are the parent's."""
        self._forwarders: dict[Hashable, Forwarder] = {}
        self._known: dict[tuple[str, str, str], Forwarder] = {}  # the component of a name stays the same
        self._tables: dict[str, TableStore] = {}  # of all names that wait in a database
        self._told: set[Relay] = set()  # that this configuration has no broker for
        self._watcher = Background(self._watch, "cloud-runtimes-relays")
        self._ending = Event()

    def outbox(self, service: str, store_name: str, pubsub_name: str) -> Forwarder:
        """Return the forwarder of what transactions of a store publish, which has started.

        Raises:
            UnsupportedError: no events can wait in the store.
        """
        if (known := self._known.get((service, store_name, pubsub_name))) is not None:
            return known
        relay = Relay(service, store_name, pubsub_name, self._vendor(pubsub_name))
        return self._start(relay, partial(self._driver, pubsub_name))

    def spool(self, pubsub_name: str, spool: Spool) -> None:
        """Have what waits in a spool forwarded from now on."""
        relay = self.of_spool(pubsub_name)
        forwarder = self._known.get(relay[:3]) or self._start(relay, lambda: spool.target, spool.expire)
        spool.wake = forwarder.wake
        spool.wake()

    def of_spool(self, pubsub_name: str) -> Relay:
        """Return the relay of a spool."""
        return Relay("", "", pubsub_name, self._vendor(pubsub_name))

    def _vendor(self, pubsub_name: str) -> str:
        return self._frame.context.runtime().vendor("pubsub", pubsub_name)

    def _driver(self, pubsub_name: str) -> PubSubDriver:
        driver: PubSubDriver = self._frame.driver(pubsub_name)
        return driver

    def _start(
        self, relay: Relay, target: Callable[[], PubSubDriver], expire: Callable[[], None] | None = None
    ) -> Forwarder:
        stores = partial(self.stores, relay)
        store = stores()[0]
        with self._lock:
            forwarder = self._forwarders.get(store.identity)
            if forwarder is None:
                from ._forwarder import Forwarder  # most clients have none

                forwarder = Forwarder(self._frame, relay.pubsub_name, stores, target, expire)
                if isinstance(forwarder.store, KeyStore):
                    forwarder.store.is_known = False
                    in_background("relay", partial(self._remember, relay.store_name, forwarder.store), _RETRIES)
                self._forwarders[store.identity] = forwarder
                self._frame.context.handles.add(self)
            self._known[relay[:3]] = forwarder
        forwarder.start()
        return forwarder

    # -- where events wait ------------------------------------------------

    def stores(self, relay: Relay) -> tuple[RelayStore, RelayStore]:
        """Return where the events of a relay wait, and where those of it lie that the broker refused.

        Raises:
            UnsupportedError: no events can wait in the store.
        """
        waiting, refused = (self._store(relay, name) for name in relay.names)
        return waiting, refused

    def _store(self, relay: Relay, name: str) -> RelayStore:
        context = self._frame.context
        log = context.runtime().relay(relay.service or "spool", relay.store_name or relay.pubsub_name, name)
        if log is not None:
            return LogStore(name, relay.where, log)
        driver: Any = context.frame(relay.service).driver(relay.store_name)
        if relay.service == "database":
            from ._relay_table import TableStore

            return TableStore(name, relay.where, driver)
        if driver.has_order:
            return KeyStore(name, relay.where, driver)
        raise UnsupportedError(
            f"{relay.where} has no place for events that wait for {relay.pubsub_name!r}: keep the state in a component "
            "that has state.outbox, or publish after the transaction",
            service="pubsub",
            runtime=self._frame.runtime_name,
            component=relay.pubsub_name,
        )

    def _remember(self, store_name: str, store: KeyStore) -> None:
        """Write down under which name events wait in a store, and, in the home, that they do in this one."""
        call(store_name, self._frame.context.frame("state").driver(store_name).write, [store.known], False)
        store.is_known = True
        if ("state", store_name) not in self._frame.context.runtime().declared():
            call(store_name, self._home().write, [StateWrite(KNOWN + store_name, b"1")], False)

    # -- what others left -------------------------------------------------

    def watch(self) -> None:
        """Have what other processes leave forwarded, from now on until the client is closed."""
        self._frame.context.handles.add(self)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._ending.is_set():
            with suppress(CloudRuntimesError):  # the next look may go well
                self.resume()
            self._ending.wait(LOOK_EVERY)

    def _close_by_client(self, end: float | None) -> None:
        self._ending.set()
        for forwarder in list(self._forwarders.values()):
            close_by(forwarder, end)

    def resume(self) -> None:
        """Have what other processes left forwarded from now on; say what this client's configuration has no broker for."""
        for service, name in self._frame.context.runtime().declared():
            if service == "pubsub" and (spool := self._driver(name).spool) is not None:
                self.spool(name, spool)
        failure: CloudRuntimesError | None = None
        for service, store_name in self._places():
            try:
                for relay in self._lying(service, store_name):
                    self._resume(relay)
            except CloudRuntimesError as error:  # the others go on meanwhile
                if self._frame.context.closed:
                    raise
                failure = error
                message = "whether events wait in %s %r cannot be seen at the moment: %s"
                repeated(f"resume {service} {store_name}", message, service, store_name, error)
        if failure is not None:
            raise failure

    def _resume(self, relay: Relay) -> None:
        if self.takes(relay):
            if relay.service == _TELEMETRY:
                self._frame.context.frame(_TELEMETRY)  # which begins to send
            elif relay.service:
                self.outbox(relay.service, relay.store_name, relay.pubsub_name)
        elif relay not in self._told and (events := self.stores(relay)[0].backlog().events) > 0:
            self._told.add(relay)
            once(
                f"waiting {relay}",
                "%d events wait in %s for %s, which this configuration does not have: run it with that until they are "
                "forwarded, or drop them (cloud-runtimes spool drop)",
                *(events, relay.where, relay.destination),
            )

    def takes(self, relay: Relay) -> bool:
        """Return whether this client's configuration has the broker of a relay, and the spool before it."""
        if relay.service == _TELEMETRY:
            return bool(self._frame.context.settings.telemetry.get("spool"))
        try:
            driver = self._driver(relay.pubsub_name)
            return self._vendor(relay.pubsub_name) == relay.vendor and (bool(relay.service) or driver.spool is not None)
        except (ComponentNotFoundError, UnsupportedError):
            return False

    def known(self) -> list[Relay]:
        """Return the spools of the configuration, and other relays under which anything lies, as far as it leads to them."""
        relays: dict[Hashable, Relay] = {}
        for service, name in self._frame.context.runtime().declared():
            if service == "pubsub" and self._driver(name).spool is not None:
                relay = self.of_spool(name)
                relays[self.stores(relay)[0].identity] = relay
        for service, store_name in self._places():
            for relay in self._lying(service, store_name):
                relays.setdefault(self.stores(relay)[0].identity, relay)
        return list(relays.values())

    def _lying(self, service: str, store_name: str) -> Iterator[Relay]:
        """Yield the relays under which anything lies in a store."""
        for name in self._names(service, store_name):
            kind, vendor, pubsub_name = read_relay_name(name) or ("", "", "")
            if kind == (SPOOL if service in ("spool", _TELEMETRY) else OUTBOX):
                place = ("", "") if service == "spool" else (service, store_name)
                yield Relay(*place, pubsub_name, vendor)

    def _places(self) -> Iterator[tuple[str, str]]:
        """Yield service and name of each store in which events may wait."""
        context = self._frame.context
        yield from (("spool", ""), (_TELEMETRY, ""))
        for service in ("state", "database"):
            declared = {name for kind, name in context.runtime().declared() if kind == service}
            for name in sorted(declared | {*context.frame(service).drivers}):
                if not name.startswith(HIDDEN):
                    yield service, name
        try:
            home = self._home()
        except (ComponentNotFoundError, UnsupportedError):
            return
        if home.has_order:
            yield from (("state", name) for name in _known_of(home, _HOME))
        elif context.runtime().relay("state", _HOME, "") is not None:  # a log knows all its names
            yield "state", _HOME

    def _home(self) -> StateDriver:
        runtime = self._frame.context.runtime()
        driver = cast("StateDriver", runtime.driver("state", _HOME))
        driver.executor = runtime.executor
        return driver

    def _names(self, service: str, store_name: str) -> Iterable[str]:
        """Return the hidden names under which anything lies in a store."""
        context = self._frame.context
        log = context.runtime().relay(service, store_name, "")
        if log is not None:
            return call(store_name, log.names)
        if service in ("spool", _TELEMETRY):
            return ()
        driver: Any = context.frame(service).driver(store_name)
        if service == "database":
            from ._relay_table import TableStore

            if store_name not in self._tables:
                self._tables[store_name] = TableStore("", store_name, driver)
            return self._tables[store_name].names()
        return _known_of(driver, store_name) if driver.has_order else ()


def _known_of(driver: StateDriver, store_name: str) -> list[str]:
    """Return the names that were written down in a store."""
    return [key.removeprefix(KNOWN) for key in call(store_name, driver.list_keys, KNOWN, None, None)]


class PubSubFrame(ServiceFrame):
    """Frame of the pub/sub service.

    Attributes:
        relays: of the client.
    """

    def __init__(self, name: str, context: Any) -> None:
        super().__init__(name, context)
        self.relays = Relays(self)

    def driver(self, name: str) -> Any:
        is_new = name not in self.drivers
        driver = super().driver(name)
        if is_new and driver.spool is not None:
            driver.spool.wake = partial(self.relays.spool, name, driver.spool)  # the first event starts the forwarder
        return driver
