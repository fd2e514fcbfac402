"""Leases whose ids their owners know without asking. Flows without I/O."""

from __future__ import annotations

from hashlib import blake2b

from .engine import Flow, Request
from .failures import ServerError
from .messages import GRANT, KEEP_ALIVE, REVOKE, grant, pack, read_lease


def lease_of(*names: str) -> int:
    """Return the id of the lease of something."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=8).digest(), "big") >> 1 or 1


def ensure(id: int, seconds: int) -> Flow[None]:
    """Have a lease of that id, which lasts so long from now at least."""
    while True:
        try:
            yield Request(GRANT, grant(seconds, id))
            return
        except ServerError as error:
            if not error.lease_exists:
                raise
        if (yield from renew(id)):
            return


def renew(id: int) -> Flow[bool]:
    """Have a lease last as long as it was given for, from now; ``False``: there is none."""
    _, seconds = read_lease((yield Request(KEEP_ALIVE, pack((1, id)))))
    return seconds > 0


def revoke(id: int) -> Flow[bool]:
    """End a lease, and what has it; ``False``: there is none."""
    try:
        yield Request(REVOKE, pack((1, id)), writes=True)
    except ServerError as error:
        if error.no_lease:
            return False
        raise
    return True
