"""RPC: calling methods of other applications by name, and offering one's own."""

from ..spi.rpc import Announcement, Guard, RpcCall, RpcDriver, RpcReply
from .server import RpcServer
from .service import RpcService
from .types import RpcRequest, RpcResponse

__all__ = [
    "Announcement",
    "Guard",
    "RpcCall",
    "RpcDriver",
    "RpcReply",
    "RpcRequest",
    "RpcResponse",
    "RpcServer",
    "RpcService",
]
