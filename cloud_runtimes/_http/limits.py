"""Limits of HTTP messages, so that a peer costs no more than this: sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Final

MAX_HEAD: Final = 64 * 1024
"""Request or status line with all headers."""
MAX_LINE: Final = 8 * 1024
"""A request's target."""
MAX_BODY: Final = 16 * 1024 * 1024
"""A body, as the embedded store takes a value."""
HEAD_TIME: Final = 10.0
"""For a request's head, from the first moment of a connection; afterwards from its first byte."""
SLOWEST: Final = 16 * 1024
"""Bytes a second that a body must come at and an answer be read at, after the first `HEAD_TIME` seconds."""
IDLE_SERVER: Final = 75.0
"""How long a server keeps an idle connection."""
IDLE_CLIENT: Final = 30.0
"""How long a client does: shorter, so that it is the one who ends it."""
MAX_CONNECTIONS: Final = 100
"""Of one loop to one address; further calls wait for one, within their deadlines."""
MAX_SERVED: Final = 1024
"""Of one server; for one more the connection that has been idle for longest is closed."""
