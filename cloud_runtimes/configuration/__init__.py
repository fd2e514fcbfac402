"""Configuration: values that an application reads, follows and, where the store allows, writes."""

from .driver import ConfigurationDriver, ConfigurationSource, Selection, Update
from .service import ConfigurationService
from .subscription import ConfigurationSubscription
from .types import ConfigurationItem

__all__ = [
    "ConfigurationDriver",
    "ConfigurationItem",
    "ConfigurationService",
    "ConfigurationSource",
    "ConfigurationSubscription",
    "Selection",
    "Update",
]
