"""Configuration: values that an application reads, follows and, where the store allows, writes."""

from ..spi.configuration import ConfigurationItem
from .service import ConfigurationService
from .subscription import ConfigurationSubscription

__all__ = ["ConfigurationItem", "ConfigurationService", "ConfigurationSubscription"]
