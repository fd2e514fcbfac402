"""Resource files, as daprd reads them, made into what a client and a sidecar of ours are told.

What they ask for and there is not is refused, all of it in one error, before anything runs; what has no effect is told too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...config import without_values
from ...protocols.dapr.documents import Problems, read_all
from ...resiliency.policies import Resiliency
from ..pubsub.types import Subscription
from ..settings import ComponentInfo, CronBinding
from .components import Components
from .configuration import KIND, configuration
from .resiliency import resiliency
from .subscriptions import subscription

__all__ = ["Resources", "check_configs", "load"]


@dataclass(frozen=True, slots=True)
class Resources:
    """What resource files say.

    Attributes:
        config: strict tables for ``CloudRuntimesClient(config=…)``; secrets may be in it.
        components, bindings, timers, subscriptions, resiliency: as in `SidecarSettings`.
        warnings: what has no effect, a line each.
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
    policies = resiliency([each for each in documents if each.kind == "Resiliency"], problems)
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
    for each in read_all(paths, app_id, problems, kinds=KIND):
        configuration(each, problems)
    problems.finish()
    return tuple(problems.warnings)
