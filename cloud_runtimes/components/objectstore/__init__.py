"""Files and state in the buckets of S3, of stores compatible with it, of Google Cloud Storage and Azure, through obstore."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..._core import extras
from ...spi.component import Component, server_of
from ...spi.operation import Method, Operation
from .settings import ObjectstoreSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .bucket import Bucket

__all__ = ["ObjectstoreComponent", "ObjectstoreSettings", "component"]

_READY = Method("objectstore", "wait_ready", repeatable=True, writes=False)
_NATIVE = Method("objectstore", "native", repeatable=False, writes=False)


class ObjectstoreComponent(Component):
    """Drivers over one bucket."""

    name = "objectstore"
    Settings = ObjectstoreSettings
    services = ("file", "state")
    home_schemes = ("s3", "gs", "az")

    settings: ObjectstoreSettings

    @classmethod
    def home_table(cls, service: str, url: str) -> dict[str, Any]:
        folder = "files" if service == "file" else service
        return {"url": url if "{name}" in url else f"{url.rstrip('/')}/{folder}/{{name}}"}

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket, made without I/O."""
        with extras.importing("a bucket", "objectstore"):
            from .bucket import Bucket

        return Bucket(self.settings)

    def driver(self, service: str, name: str) -> Driver:
        with extras.importing(f"{service} {name!r} in a bucket", "objectstore"):
            if service == "state":
                from .state import ObjectState

                return ObjectState(self, name)
            from .file import ObjectFiles

        return ObjectFiles(self, name)

    @property
    def server(self) -> tuple[str, int | None] | None:
        return server_of(self.settings.endpoint or "")  # the URL names the bucket

    def native(self, service: str, name: str) -> Any:
        """Return obstore's store."""
        return self.bucket.store(Operation(_NATIVE, name, None))

    def ready(self) -> None:
        """Look whether the bucket is there."""
        from .pages import look

        self.bucket.run(Operation(_READY, self.name, 5.0), look(self.bucket))

    def close(self, timeout: float | None) -> None:
        if "bucket" in vars(self):
            self.bucket.close()


component = ObjectstoreComponent
