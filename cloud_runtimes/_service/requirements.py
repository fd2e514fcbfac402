"""Features that the code of an application needs, compared with what its components have before anything begins."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..config import suggest
from ..errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from ..spi.driver import Driver
    from .context import ClientContext


def check_all(context: ClientContext) -> None:
    """Refuse components that lack what the settings, the client or a declared subscription asks for; see `check`."""
    for requires in (context.settings.requires, context.requires):
        check(context, requires)
    for each in context.frame("pubsub").handlers.values():
        each.check()


def check(context: ClientContext, requires: Mapping[str, Any]) -> None:
    """Refuse components that lack what is required of them; does no I/O.

    Args:
        context: of the client.
        requires: service → name → features.

    Raises:
        InvalidArgumentError: a service or a feature has another name.
        UnsupportedError: features are missing; names each with its remedy.
    """
    missing = [
        f"[{service}.{name}] has no {feature}: {_remedy(driver, feature)}"
        for service, names in _tables(requires, {*context.settings.components, "rpc"})
        for name, features in _names(service, names)
        for driver in [context.frame(service).driver(name)]
        for feature in features
        if feature not in driver.features
    ]
    if missing:
        count = f"{len(missing)} features that the code requires are" if len(missing) > 1 else "a required feature is"
        raise UnsupportedError(f"{context.settings.origin}: {count} missing:\n  " + "\n  ".join(missing))


def _tables(requires: Mapping[str, Any], known: Collection[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for service, names in requires.items():
        if service not in known:
            raise InvalidArgumentError(f"requires: there is no service {service!r}; {suggest(service, known)}")
        if not isinstance(names, Mapping):
            raise InvalidArgumentError(f'requires.{service}: give a table, such as {{"orders": ["transaction"]}}')
        yield service, names


def _names(service: str, names: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    known = features_of(service)
    for name, features in names.items():
        if not isinstance(features, (list, tuple)) or not all(isinstance(feature, str) for feature in features):
            raise InvalidArgumentError(f'requires.{service}.{name}: give a list of features, such as ["transaction"]')
        for feature in features:
            if feature not in known:
                raise InvalidArgumentError(
                    f"requires.{service}.{name}: there is no feature {feature!r}; {suggest(feature, known)}"
                )
        yield name, features


def features_of(service: str) -> set[str]:
    """Return the features that the SPI of a service has names for."""
    spi = vars(import_module(f"cloud_runtimes.spi.{service}"))
    return {value for name, value in spi.items() if name.isupper() and name[0] != "_" and isinstance(value, str)}


def _remedy(driver: Driver, feature: str) -> str:
    return driver.alternatives.get(feature) or "give the name a component that has it (docs/reference/features.md)"
