"""Unexpected behaviour of a real Layotto (mosn/layotto at f9681450) and its components; each can be switched off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Quirks:
    """See the module; all are on by default, but for ``notices_late``.

    Attributes:
        delete_needs_etag: ``DeleteState`` and a delete of a transaction fail without one, for a key that is there.
        etag_on_absent: an etag for a key that is absent is taken.
        half_transactions: what does not fail in a transaction is kept.
        keeps_ttl: a save without a time to live keeps an earlier one.
        spoils_numbers: JSON of an event is decoded into floats and written with six digits.
        one_stream: a second stream for a topic is ended, after it was told to be live.
        notices_late: seconds for which a stream that has ended still stands in the way of the next one, and events still go to it.
        stays_subscribed: the end of a stream leaves the component subscribed.
        asks_once: an application's topics are asked for when the sidecar starts, and never again.
        silent_deletes: a delete of configuration is not told.
        deletes_prefixes: a delete of a key of configuration deletes all keys that begin with it.
        splits_keys: of a key of configuration with a ``/`` nothing is found again.
        stops_others: the end of a stream of configuration silences the others of its store.
        keep_alive_fails: ``LockKeepAlive`` is INTERNAL.
        missing_is_internal: reading or deleting a missing file is INTERNAL.
        needs_mode: a file is stored only with ``FileMode`` and ``FileFlag``.
        needs_size: a file is stored only with its size, as ``fileSize`` and ``filesize``.
        writes_authority: a called application gets ``: authority: …`` among its headers, which is none of HTTP.
        tells_of_grpc: a called application gets headers of gRPC's own, and of a reply without a content type the caller is told that it is text.
        only_200: any other status of a called application is UNAVAILABLE, and it is not told the content type.
        expired_is_empty: an event whose time is up comes without id and data.
    """

    delete_needs_etag: bool = True
    etag_on_absent: bool = True
    half_transactions: bool = True
    keeps_ttl: bool = True
    spoils_numbers: bool = True
    one_stream: bool = True
    notices_late: float = 0.0
    stays_subscribed: bool = True
    asks_once: bool = True
    silent_deletes: bool = True
    deletes_prefixes: bool = True
    splits_keys: bool = True
    stops_others: bool = True
    keep_alive_fails: bool = True
    missing_is_internal: bool = True
    needs_mode: bool = True
    needs_size: bool = True
    writes_authority: bool = True
    tells_of_grpc: bool = True
    only_200: bool = True
    expired_is_empty: bool = True


# -- how the fake says no

NONE = "none"
"""A name of a component that is not configured."""


class Refuse(Exception):
    """A status and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_store(name: str, code: str = "INVALID_ARGUMENT") -> str:
    """Return the name of a component that there is."""
    if not name or name == NONE:
        raise Refuse(code, f"store {name} is not found")
    return name
