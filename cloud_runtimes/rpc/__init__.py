"""RPC: calling methods of other applications by name, and offering one's own."""

from .server import RpcServer
from .service import RpcService
from .types import RpcRequest, RpcResponse

__all__ = ["RpcRequest", "RpcResponse", "RpcServer", "RpcService"]
