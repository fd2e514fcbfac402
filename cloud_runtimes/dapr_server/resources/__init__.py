"""Resource files, as daprd reads them, made into what a client and a sidecar of ours are told.

What they ask for and there is not is refused, all of it in one error, before anything runs; what has no effect is told too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...config import without_values
from ...protocols.dapr.documents import Document, Problems, read_all, read_resiliency
from ...resiliency.policies import Resiliency
from ..settings import ComponentInfo, CronBinding, Subscription
from .components import Components
from .subscriptions import subscription

__all__ = ["Resources", "check_configs", "load"]

_CONFIGURATION: Final = {"Configuration": ("dapr.io/v1alpha1",)}
_PROTECTING: Final = (
    "accessControl", "api", "appHttpPipeline.handlers", "httpPipeline.handlers", "mtls.enabled", "secrets.scopes"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resources:
    """Result of reading the resource files.

    Attributes:
        config: strict tables for ``CloudRuntimesClient(config=…)``; secrets may be in it.
        components, bindings, timers, subscriptions, resiliency: as in `SidecarSettings`.
        warnings: settings that have no effect, a line each.
    """

    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    components: tuple[ComponentInfo, ...] = ()
    bindings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    timers: tuple[CronBinding, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    resiliency: Resiliency | None = None
    warnings: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings for a sidecar, by the names of `SidecarSettings`."""
        names = ("bindings", "components", "resiliency", "subscriptions", "timers")
        return {name: getattr(self, name) for name in names}


@without_values
def load(paths: Sequence[str | os.PathLike[str]], app_id: str, namespace: str = "") -> Resources:
    """Read folders and files.

    Args:
        paths: as ``--resources-path``.
        app_id: of the application; resources with other ``scopes`` are left out.
        namespace: resources of another are left out; ``""``: all are taken.

    Raises:
        InvalidArgumentError: with all that is wrong: types, kinds and fields that there are not, values that do not fit, secrets that are not found. No secret is told.
    """
    problems = Problems()
    documents = read_all(paths, app_id, problems, namespace)
    components = Components([each for each in documents if each.kind == "Component"], app_id, problems, namespace)
    subscriptions = [subscription(each, problems) for each in documents if each.kind == "Subscription"]
    policies = _resiliency([each for each in documents if each.kind == "Resiliency"], problems)
    problems.finish()
    return Resources(
        {"capa": {"strict": True}, **components.tables},
        tuple(components.infos),
        components.bindings,
        tuple(components.timers),
        tuple(each for each in subscriptions if each is not None),
        policies,
        tuple(problems.warnings),
    )


def check_configs(paths: Sequence[str], app_id: str) -> tuple[str, ...]:
    """Read files of ``--config``, and return what has no effect, a line each.

    Raises:
        InvalidArgumentError: with all that is wrong, and all that must not be ignored.
    """
    problems = Problems()
    for each in read_all(paths, app_id, problems, kinds=_CONFIGURATION):
        _check_config(each, problems)
    problems.finish()
    return tuple(problems.warnings)


def _resiliency(documents: list[Document], problems: Problems) -> Resiliency | None:
    """Return the policies for calls of applications, which is `Resiliency.app`, and warn of the rest; ``None``: there are no documents."""
    if not documents:
        return None
    actors: list[str] = []
    resiliency = read_resiliency(documents, problems, actors)
    unheld = [f"actor {name!r}" for name in actors]
    unheld += [f"component {name!r}" for name in dict.fromkeys((*resiliency.outbound, *resiliency.inbound))]
    unheld += [f"default {name!r}" for name in resiliency.defaults if name.startswith(("Actor", "Component"))]
    if unheld:
        problems.warn("resiliency", f"has no effect here: {'; '.join(dict.fromkeys(unheld))}")
    return resiliency


def _check_config(document: Document, problems: Problems) -> None:
    """Refuse what protects something, or it would be without protection unnoticed; warn of the rest, which has no effect here."""
    spec, where = document.spec, document.where
    for path in _PROTECTING:
        setting: Any = spec
        for name in path.split("."):
            # Go does not mind case
            setting = (
                {str(key).lower(): value for key, value in setting.items()} if isinstance(setting, Mapping) else {}
            )
            setting = setting.get(name.lower())
        if setting:
            problems.add(where, f"spec.{path} cannot be held here: run daprd for that")
    if spec:
        problems.warn(where, "its settings have no effect")
