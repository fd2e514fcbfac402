"""A language server of TOML, asked for completions as an editor does."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any


class TomlServer:
    """A process that speaks the language server protocol over its standard streams."""

    def __init__(self, *command: str, folder: Path) -> None:
        self.folder = folder
        self._requests = 0
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )
        uri = folder.as_uri()
        capabilities = {"textDocument": {"completion": {"completionItem": {"documentationFormat": ["markdown"]}}}}
        self._ask("initialize", {"processId": None, "rootUri": uri, "capabilities": capabilities})
        self._send("initialized", {})

    def __enter__(self) -> TomlServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def complete(self, text: str) -> dict[str, str]:
        """Return label → documentation of what is offered where ``|`` stands in a document."""
        at = text.index("|")
        uri = (self.folder / f"{self._requests}.toml").as_uri()
        document = {"uri": uri, "languageId": "toml", "version": 1, "text": text.replace("|", "", 1)}
        self._send("textDocument/didOpen", {"textDocument": document})
        position = {"line": text.count("\n", 0, at), "character": at - (text.rfind("\n", 0, at) + 1)}
        items: list[Any] = []
        for _ in range(100):  # it answers before it has read the document
            offered = self._ask("textDocument/completion", {"textDocument": {"uri": uri}, "position": position})
            if items := offered.get("items", []) if isinstance(offered, dict) else offered or []:
                break
            time.sleep(0.05)
        return {item["label"]: (item.get("documentation") or {}).get("value", "") for item in items}

    def _send(self, method: str, parameters: Any, **more: Any) -> None:
        self._write({"method": method, "params": parameters, **more})

    def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _ask(self, method: str, parameters: Any) -> Any:
        self._requests += 1
        self._send(method, parameters, id=self._requests)
        while True:
            message = self._read()
            if "method" in message and "id" in message:
                self._write({"id": message["id"], "result": None})  # it asks what this editor can
            elif message.get("id") == self._requests:
                return message["result"]

    def _read(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the server is gone"
        message: dict[str, Any] = json.loads(stream.read(length))
        return message
