"""Resources of kind ``Configuration``, which daprd reads from ``--config``: nothing of them has an effect here. What protects something is refused, or it would be without protection unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...protocols.dapr.documents import Document, Problems

__all__ = ["KIND", "configuration"]

KIND: Final = {"Configuration": ("dapr.io/v1alpha1",)}
_PROTECTING: Final = (
    "accessControl", "api", "appHttpPipeline.handlers", "httpPipeline.handlers", "mtls.enabled", "secrets.scopes"
)  # fmt: skip


def configuration(document: Document, problems: Problems) -> None:
    """Refuse what protects, and warn of the rest."""
    spec, where = document.spec, document.where
    for path in _PROTECTING:
        found: Any = spec
        for name in path.split("."):
            # Go does not mind case
            found = {str(key).lower(): value for key, value in found.items()} if isinstance(found, Mapping) else {}
            found = found.get(name.lower())
        if found:
            problems.add(where, f"spec.{path} cannot be held here: run daprd for that")
    if spec:
        problems.warn(where, "its settings have no effect")
