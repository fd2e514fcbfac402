"""The RPC suite: in the process, in another one found by the registry, at a configured address, and by a sidecar."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cloud_runtimes.testing import Harness, RpcSuite
from tests.support.harnesses.dapr import DAPR_RPC
from tests.support.harnesses.layotto import LAYOTTO_RPC
from tests.support.harnesses.rows import short_list
from tests.support.harnesses.rpc import RPC, HereRpc, NatsRpc, ServerRegistryRpc

_SERVERS = {"etcd": "etcd_server", "postgres": "postgres_url", "valkey": "valkey_server"}
_NATS = {"another process, by nats": NatsRpc}
_ROWS = {
    **RPC, **DAPR_RPC, **LAYOTTO_RPC,
    **{f"another process, by the registry on {server}": ServerRegistryRpc for server in _SERVERS},
    **_NATS,
}  # fmt: skip
_HERE = (HereRpc, *DAPR_RPC.values(), *LAYOTTO_RPC.values())


_SHORT = short_list(
    RpcSuite.test_bytes,
    RpcSuite.test_what_a_handler_sees,
    RpcSuite.test_many_at_once,
    RpcSuite.test_an_unknown_service,
    RpcSuite.test_an_error_of_ours_arrives,
    RpcSuite.test_after_close,
    RpcSuite.test_a_deadline,
)


def _marks(kind: type[HereRpc]) -> list[pytest.MarkDecorator]:
    if kind in _HERE:
        return []
    return [pytest.mark.process, _SHORT] if kind is ServerRegistryRpc else [pytest.mark.process]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=_marks(kind)) for name, kind in _ROWS.items()])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HereRpc]:
    """Harness of one row of the table; its process serves all tests."""
    kind, folder = _ROWS[request.param], tmp_path_factory.mktemp("rpc")
    if issubclass(kind, ServerRegistryRpc):
        name = "nats_server" if kind is NatsRpc else _SERVERS[request.param.rpartition(" ")[2]]
        server = request.getfixturevalue(name)
        harness: HereRpc = kind(folder, server if isinstance(server, str) else server.url, f"there-{os.getpid()}")
    else:
        harness = kind(folder)
    yield harness
    harness.close()


class TestRpc(RpcSuite):
    @pytest.fixture
    def harness(self, served: HereRpc) -> Harness:
        return served
