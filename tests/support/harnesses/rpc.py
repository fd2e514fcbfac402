"""Methods in this process and in others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from cloud_runtimes.testing import RpcHarness
from cloud_runtimes.testing.suites import rpc_methods
from tests.support.harnesses.clients import Clients


class HereRpc(Clients, RpcHarness):
    """Methods in the caller's own process."""

    name = "in the process"
    service = "here"

    def __init__(self, folder: Path) -> None:
        self.home = str(folder / "home")
        self._start()

    def _start(self) -> None:
        rpc_methods.register(self.client(app_id=self.service))

    def config(self) -> dict[str, Any]:
        return {"capa": {"home": self.home}}


class RegistryRpc(HereRpc):
    """Methods in another process with the same home; nothing is configured."""

    name = "another process, by the registry"
    service = "there"
    token = ""

    def _start(self) -> None:
        program = "from cloud_runtimes.testing.suites.rpc_methods import main; main()"
        command = [sys.executable, "-W", "error", "-c", program]
        self._process = subprocess.Popen(
            [*command, self.server_home(), self.service, self.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert "://127.0.0.1:" in self.address

    def server_home(self) -> str:
        return self.home

    def close(self) -> None:
        super().close()
        try:
            self._process.communicate("", timeout=20)
        finally:
            self._process.kill()
        assert self._process.returncode == 0


class ConfiguredRpc(RegistryRpc):
    """Methods in another process with a home of its own, at a configured address; the first address answers nobody."""

    name = "another process, by configuration"
    token = "a token of sixteen and more characters"

    def server_home(self) -> str:
        return f"{self.home}-of-the-other"

    def config(self) -> dict[str, Any]:
        addresses = ["http://127.0.0.1:1", self.address]
        return {**super().config(), "rpc": {self.service: {"address": addresses, "token": self.token}}}


class ServerRegistryRpc(RegistryRpc):
    """Methods in another process whose home is the same server; where others use it too they give a name of their own."""

    def __init__(self, folder: Path, url: str, service: str = RegistryRpc.service) -> None:
        self._url = url
        self.service = service
        super().__init__(folder)

    def _start(self) -> None:
        self.home = self._url
        super()._start()


class NatsRpc(ServerRegistryRpc):
    """Methods in another process, called by way of the NATS server that is the home of both."""

    name = "another process, by NATS"
    largest_body = (8 << 20) - 1024


RPC = {harness.name: harness for harness in (HereRpc, RegistryRpc, ConfiguredRpc)}
