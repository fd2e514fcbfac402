"""Conformance of a `FileDriver`, through the service."""

from __future__ import annotations

from ._file_content import ContentTests
from ._file_handles import HandleTests
from ._file_names import NameTests

__all__ = ["FileSuite"]


class FileSuite(ContentTests, NameTests, HandleTests):
    """Every case of Go CDK's blob conformance that the contract has, and what it misses: names that are files and folders, whole replacement, handles."""

    service = "file"
