"""Resources of kind ``Subscription``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...protocols.dapr.documents import Document, Problems, scalar
from ..settings import BULK_MESSAGES, BULK_WAIT, BulkSubscribe, Subscription

SPEC: Final = frozenset(["bulkSubscribe", "deadLetterTopic", "metadata", "pubsubname", "topic"])
ROUTES: Final = frozenset(["default", "rules"])
BULK: Final = frozenset(["enabled", "maxAwaitDurationMs", "maxMessagesCount"])


def subscription(document: Document, problems: Problems) -> Subscription | None:
    """Return what a document declares; what is wrong goes to ``problems``."""
    spec, where = document.spec, document.where
    before = len(problems.errors)
    known = SPEC | ({"route"} if document.version == "v1alpha1" else {"routes"})
    folded = {key.lower(): key for key in known}
    spec = {folded.get(str(key).lower(), key): value for key, value in spec.items()}  # Go does not mind case
    problems.unknown(where, spec, known, refuse=False)
    values: dict[str, str] = {}
    for key, needed in (("pubsubname", True), ("topic", True), ("deadLetterTopic", False)):
        value = scalar(spec.get(key))
        if isinstance(value, str) and value:
            values[key] = value
        elif needed or value not in (None, ""):
            problems.add(where, f"spec.{key} must be text")
    rules: list[tuple[str, str]] = []
    if document.version == "v1alpha1":
        route = scalar(spec.get("route"))
        if not isinstance(route, str) or not route:
            problems.add(where, "spec.route must be the path to which events go")
    else:
        route = _routes(spec.get("routes"), where, rules, problems)
    metadata = spec.get("metadata") or {}
    if not isinstance(metadata, dict):
        problems.add(where, "spec.metadata must be a table of text")
        metadata = {}
    bulk = _bulk(spec.get("bulkSubscribe"), where, problems)
    if len(problems.errors) > before:
        return None
    return Subscription(
        values["pubsubname"],
        values["topic"],
        str(route or ""),
        tuple(rules),
        values.get("deadLetterTopic"),
        {str(key): str(scalar(value)) for key, value in metadata.items()},
        bulk,
        document.scopes,
    )


def _routes(routes: Any, where: str, rules: list[tuple[str, str]], problems: Problems) -> str:
    """Fill the rules and return the default."""
    if not isinstance(routes, dict):
        problems.add(where, "spec.routes must be a table with default, rules or both")
        return ""
    problems.unknown(f"{where}, routes", routes, ROUTES)
    listed = routes.get("rules") or []
    for rule in listed if isinstance(listed, list) else [None]:
        path = scalar(rule.get("path")) if isinstance(rule, dict) else None
        match = scalar(rule.get("match")) or "" if isinstance(rule, dict) else None
        if not isinstance(path, str) or not path or not isinstance(match, str):
            problems.add(where, "spec.routes.rules must be a list of match and path")
            continue
        rules.append((match, path))
    default = scalar(routes.get("default")) or ""
    if not isinstance(default, str) or not (default or rules):
        problems.add(where, "spec.routes must have a default or rules")
    return str(default)


def _bulk(bulk: Any, where: str, problems: Problems) -> BulkSubscribe | None:
    if bulk is None:
        return None
    if not isinstance(bulk, Mapping):
        problems.add(where, "spec.bulkSubscribe must be a table")
        return None
    problems.unknown(f"{where}, bulkSubscribe", bulk, BULK)
    numbers = {}
    for key in ("maxMessagesCount", "maxAwaitDurationMs"):
        value = bulk.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            problems.add(where, f"spec.bulkSubscribe.{key} must be a whole number")
            return None
        numbers[key] = value or 0
    if bulk.get("enabled") is not True:
        return None
    wait = numbers["maxAwaitDurationMs"]
    return BulkSubscribe(numbers["maxMessagesCount"] or BULK_MESSAGES, wait / 1000 if wait else BULK_WAIT)
