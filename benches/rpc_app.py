"""The application that all callers of bench_rpc.py call: uvicorn as it comes, and nothing of ours.

Run as ``python rpc_app.py``; it writes its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import uvicorn


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body that came; a health check with nothing."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    healthy = scope["path"].startswith("/v1.0/healthz")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": 204 if healthy else 200, "headers": [] if healthy else headers}
    )
    await send({"type": "http.response.body", "body": b"" if healthy else body})


async def main() -> None:
    # by name, since without it asyncio leaves Nagle's algorithm on, for whoever calls
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    asyncio.get_running_loop().run_in_executor(None, lambda: (sys.stdin.read(), os._exit(0)))
    await uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")).serve([listener])


if __name__ == "__main__":
    asyncio.run(main())
