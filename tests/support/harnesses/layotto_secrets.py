"""Secrets over a fake Layotto, which has them in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.fake_layotto import FakeLayotto
from tests.support.harnesses.dapr_secrets import DaprSecrets
from tests.support.harnesses.layotto import client_of
from tests.support.harnesses.secrets import MultipleHarness


class SecretsBesideLayotto:
    """A fake for all tests of a module, with two stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._patched = pytest.MonkeyPatch()
        self.harness = MultipleHarness(self._patched, folder)
        self.fake = FakeLayotto(self.harness.client())

    def close(self) -> None:
        self.fake.close()
        self.harness.close()
        self._patched.undo()


class LayottoSecrets(DaprSecrets):
    """Clients of that fake."""

    name = "layotto"

    def __init__(self, beside: SecretsBesideLayotto) -> None:
        super().__init__(beside)  # type: ignore[arg-type]
        self._fake = beside.fake

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self._fake, {}, arguments)


LAYOTTO_SECRETS = {LayottoSecrets.name: LayottoSecrets}
