"""Packages that come with an extra: they are imported on first use, and the error for a missing one is the line to type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from ..errors import UnsupportedError
from . import fork

PACKAGE: Final = "."
"""The package as pip installs it: a checkout. Until a release the name on PyPI is another project's; then it is ``cloud-runtimes-python``."""
WHERE: Final = "in the checkout"


def install_line(*extras: str) -> str:
    """Return the line that installs this package with some extras. All pages and messages show this one."""
    return f'pip install "{PACKAGE}[{",".join(extras)}]"'


def missing(what: str, extra: str) -> UnsupportedError:
    """Return the error for ``what`` needs an extra."""
    return UnsupportedError(f"{what} needs an extra: {install_line(extra)} {WHERE}")


def installed(*modules: str) -> bool:
    """Return whether all modules can be found. Imports none of them, only the packages around them."""
    try:
        return all(find_spec(each) is not None for each in modules)
    except ModuleNotFoundError:
        return False


@contextmanager
def importing(what: str, extra: str) -> Iterator[None]:
    """Guard the imports of a ``with`` block: a fork waits for them, and a missing package is `missing`."""
    try:
        with fork.importing:
            yield
    except ModuleNotFoundError as error:
        raise missing(what, extra) from error
