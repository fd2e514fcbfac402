"""The RPC suite: in the process, in another one found by the registry, and at a configured address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harnesses import RPC, HereRpc

from cloud_runtimes.testing import Harness, RpcSuite


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if kind is HereRpc else pytest.mark.process) for name, kind in RPC.items()],
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HereRpc]:
    """One row of the table; its process serves all tests."""
    harness = RPC[request.param](tmp_path_factory.mktemp("rpc"))
    yield harness
    harness.close()


class TestRpc(RpcSuite):
    @pytest.fixture
    def harness(self, served: HereRpc) -> Harness:
        return served
