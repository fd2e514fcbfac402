"""Files: named content with a type and metadata, stored in one step."""

from .driver import FileDriver, FileReader, FileWrite, FileWriter
from .handle import FileHandle
from .service import FileService
from .types import AsyncFileSource, FileInfo, FileMode, FileSource

__all__ = [
    "AsyncFileSource",
    "FileDriver",
    "FileHandle",
    "FileInfo",
    "FileMode",
    "FileReader",
    "FileService",
    "FileSource",
    "FileWrite",
    "FileWriter",
]
