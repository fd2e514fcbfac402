"""`cloud-runtimes serve`: the HTTP and gRPC API of a Dapr sidecar, in one process, over any client of ours.

For development, tests and single machines; run Dapr where there are many.
"""

from .server import Sidecar
from .settings import SidecarSettings

__all__ = ["Sidecar", "SidecarSettings"]
