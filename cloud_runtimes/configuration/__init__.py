"""Configuration: values that an application reads, follows and, where the store allows, writes."""

from ..spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from .service import ConfigurationService
from .subscription import ConfigurationSubscription

__all__ = [
    "ConfigurationDriver",
    "ConfigurationItem",
    "ConfigurationService",
    "ConfigurationSource",
    "ConfigurationSubscription",
    "Selection",
    "Update",
]
