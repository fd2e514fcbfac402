"""Secrets: read by store and key, and shown by nothing that shows things."""

from .driver import SecretDriver
from .service import SecretService
from .types import Secret

__all__ = ["Secret", "SecretDriver", "SecretService"]
