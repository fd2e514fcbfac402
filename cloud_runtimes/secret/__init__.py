"""Secrets: read by store and key, and shown by nothing that shows things."""

from ..spi.secret import Secret
from .service import SecretService

__all__ = ["Secret", "SecretService"]
