"""Files: named content with a type and metadata, stored in one step."""

from ..spi.file import FileInfo
from .handle import FileHandle
from .service import FileService
from .types import AsyncFileSource, FileMode, FileSource

__all__ = ["AsyncFileSource", "FileHandle", "FileInfo", "FileMode", "FileService", "FileSource"]
