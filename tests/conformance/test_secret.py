"""The secret suite on every harness of its table, and over a sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.testing import SecretHarness, SecretSuite
from cloud_runtimes.testing.canary import Canary
from tests.support.harnesses.aws import AWS_SECRETS, MultiValuedHarness
from tests.support.harnesses.dapr_secrets import DAPR_SECRETS, SecretsBeside
from tests.support.harnesses.layotto_secrets import LAYOTTO_SECRETS, SecretsBesideLayotto
from tests.support.harnesses.rows import parameters
from tests.support.harnesses.secrets import FORMATS, SECRET_HARNESSES, PrefixHarness, VaultFirstHarness


@pytest.fixture(scope="module")
def secrets_beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecretsBeside]:
    """A sidecar of ours for all tests of this module."""
    harness = SecretsBeside(tmp_path_factory.mktemp("secrets"))
    yield harness
    harness.close()


@pytest.fixture(scope="module")
def secrets_beside_layotto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecretsBesideLayotto]:
    """A fake Layotto for all tests of this module."""
    harness = SecretsBesideLayotto(tmp_path_factory.mktemp("secrets"))
    yield harness
    harness.close()


@pytest.mark.promise("H3")
class TestSecret(SecretSuite):
    @pytest.fixture(
        params=parameters(
            {**SECRET_HARNESSES, **AWS_SECRETS, **DAPR_SECRETS, **LAYOTTO_SECRETS},
            second=(*FORMATS, PrefixHarness.name, VaultFirstHarness.name, MultiValuedHarness.name),
            short=(
                SecretSuite.test_get,
                SecretSuite.test_all_of_a_store,
                SecretSuite.test_values_come_as_they_are,
                SecretSuite.test_several_entries,
                SecretSuite.test_a_changed_and_a_removed_secret,
                SecretSuite.test_odd_keys_that_the_component_can_hold,
            ),
        )
    )
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, canary: Canary
    ) -> Iterator[SecretHarness]:
        harness: SecretHarness
        if request.param in DAPR_SECRETS:
            beside: SecretsBeside = request.getfixturevalue("secrets_beside")
            canary.declare(beside.folder)
            harness = DAPR_SECRETS[request.param](beside)
        elif request.param in LAYOTTO_SECRETS:
            layotto: SecretsBesideLayotto = request.getfixturevalue("secrets_beside_layotto")
            canary.declare(layotto.folder)
            harness = LAYOTTO_SECRETS[request.param](layotto)
        else:
            sources = canary.declare(tmp_path / "sources")
            sources.mkdir()
            if request.param in AWS_SECRETS:
                harness = AWS_SECRETS[request.param](monkeypatch, sources, request.getfixturevalue("moto_url"))
            else:
                harness = SECRET_HARNESSES[request.param](monkeypatch, sources)
        yield harness
        harness.close()
