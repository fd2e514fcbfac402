"""Secrets (Dapr, "Secrets API reference")."""

from __future__ import annotations

import re
from typing import Final

from ...spi.operation import Operation
from .._sidecar.failures import SidecarError
from .._sidecar.secret import SidecarSecret
from .._sidecar.transport import Flow

__all__ = ["DaprSecret"]

_ABSENT: Final = re.compile(r"not ?found|not exist|no such|no secret|is not set", re.IGNORECASE)
"""Of components: Dapr has no code for an absent secret (dapr/dapr#6471)."""


class DaprSecret(SidecarSecret):
    """The secrets of one store of the sidecar."""

    def _is_absent(self, op: Operation, key: str, refused: SidecarError) -> Flow[bool]:
        yield from ()
        return (
            refused.error_reply.status == 500
            and _ABSENT.search(refused.error_reply.message.replace(key, "")) is not None
        )
