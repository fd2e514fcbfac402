"""Checks of the configuration service before any I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core.arguments import check_key, check_keys, check_metadata, check_several
from ..errors import InvalidArgumentError
from ..spi.configuration import ConfigurationItem, Selection


def check_namespace(what: str, name: Any) -> str | None:
    """Return a group or label: printable text of 1 to 255 characters, not ``"*"``, which some stores take for any."""
    if name is not None and (
        not isinstance(name, str) or not 0 < len(name) <= 255 or not name.isprintable() or name == "*"
    ):
        raise InvalidArgumentError(
            f"{what} {name!r}: give printable text of 1 to 255 characters, not '*'; None is the store's default"
        )
    return name


def selection(keys: Iterable[str], group: Any, label: Any, metadata: Any) -> Selection:
    """Check which items are meant."""
    return Selection(
        tuple(check_keys(keys)),
        check_namespace("group", group),
        check_namespace("label", label),
        check_metadata(metadata),
    )


def items_to_save(
    items: Mapping[str, str] | Iterable[ConfigurationItem], group: Any, label: Any
) -> list[ConfigurationItem]:
    """Check what is to be saved; items get the group and label of the call where they have none."""
    check_namespace("group", group)
    check_namespace("label", label)
    if isinstance(items, Mapping):
        items = [ConfigurationItem(key, value) for key, value in items.items()]
    check_several("items", items)
    return [_item(each, group, label) for each in items]


def _item(item: Any, group: str | None, label: str | None) -> ConfigurationItem:
    if not isinstance(item, ConfigurationItem):
        raise InvalidArgumentError(
            f"save_configuration takes a mapping or ConfigurationItem objects, not {type(item).__name__}"
        )
    key = check_key(item.key)
    if item.deleted:
        raise InvalidArgumentError(f"the item {key!r} is a deleted one: give its key to delete_configuration")
    return ConfigurationItem(
        key,
        _value(key, item.value),
        None,
        _one_of("group", key, item.group, group),
        _one_of("label", key, item.label, label),
        _check_tags(key, item.tags),
        check_metadata(item.metadata) or {},
    )


def _value(key: str, value: Any) -> str:
    # values may be secrets, so none stands in a message
    if isinstance(value, ConfigurationItem):
        raise InvalidArgumentError(f"the value of {key!r} is an item: give the items alone, as in items.values()")
    if not isinstance(value, str):
        raise InvalidArgumentError(f"the value of {key!r} must be str, not {type(value).__name__}: give str(value)")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"the value of {key!r}: a lone surrogate at {error.start} is not UTF-8; repair the text"
            ) from None
    return value


def _one_of(what: str, key: str, own: Any, given: str | None) -> str | None:
    """Return an item's own namespace, else the call's; two that differ are refused, for either could be meant."""
    if own is None:
        return given
    if given is not None and own != given:
        raise InvalidArgumentError(
            f"the item {key!r} has the {what} {own!r}, the call says {what}={given!r}: drop one of them"
        )
    return check_namespace(what, own)


def _check_tags(key: str, tags: Any) -> Mapping[str, str]:
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise InvalidArgumentError(f"the tags of {key!r} must be a mapping of str to str")
    return tags
