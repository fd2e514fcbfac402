"""Files: named content with a type and metadata, stored in one step."""

from ..spi.file import FileDriver, FileInfo, FileReader, FileWrite, FileWriter
from .handle import FileHandle
from .service import FileService
from .types import AsyncFileSource, FileMode, FileSource

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
