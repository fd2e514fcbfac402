"""The SPI: what components and runtimes are written against (docs/how-to/write-a-component.md).

A component is a `Component` with a `Driver` for each of its services. A driver's base class stands in the module of its service, such as `cloud_runtimes.spi.state`, with what crosses it and the names of the features that it may declare.
"""

from ..config import ClientSettings, setting
from .component import Component, Runtime
from .driver import Driver
from .executor import Executor
from .operation import Method, Operation

__all__ = [
    "SPI_VERSION",
    "ClientSettings",
    "Component",
    "Driver",
    "Executor",
    "Method",
    "Operation",
    "Runtime",
    "setting",
]

SPI_VERSION = 1
"""Rises with each change that a component has to follow."""
