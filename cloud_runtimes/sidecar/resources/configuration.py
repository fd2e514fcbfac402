"""Resources of kind ``Configuration``, which daprd reads from ``--config``: nothing of them has an effect here. What protects something is refused, or it would be without protection unnoticed."""

from __future__ import annotations

from typing import Any, Final

from ..._dapr.documents import Document, Problems

__all__ = ["KIND", "configuration"]

KIND: Final = {"Configuration": ("dapr.io/v1alpha1",)}


def configuration(document: Document, problems: Problems) -> None:
    """Refuse what protects, and warn of the rest."""
    spec, where = document.spec, document.where
    for path, found in (
        ("accessControl", spec.get("accessControl")),
        ("api", spec.get("api")),
        ("appHttpPipeline", _part(spec, "appHttpPipeline", "handlers")),
        ("httpPipeline", _part(spec, "httpPipeline", "handlers")),
        ("mtls.enabled", _part(spec, "mtls", "enabled")),
        ("secrets.scopes", _part(spec, "secrets", "scopes")),
    ):
        if found:
            problems.add(where, f"spec.{path} cannot be held here: run daprd for that")
    if spec:
        problems.warn(where, "its settings have no effect")


def _part(spec: Any, name: str, key: str) -> Any:
    table = spec.get(name)
    return table.get(key) if isinstance(table, dict) else None
