"""The command line ``cloud-runtimes``.

`main` picks the front: the typer application where the extra ``[cli]`` is installed, else a small parser of the standard library that knows ``doctor`` and says of the others what they need. Both fill one `Invocation`; commands return an exit code and raise, and only `main` turns an error into a line. Importing this package imports neither typer nor rich.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._session import Invocation

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments behind the program's name; the process's own by default.
    """
    try:
        return _execute(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # also while modules are imported
        return 130


def _execute(arguments: list[str]) -> int:
    from ._errors import CLOSED_PIPE, exit_code, explain
    from ._session import Invocation
    from ._streams import abandon_stdout, complain

    invocation = Invocation()
    try:
        return _front()(arguments, invocation)
    except BrokenPipeError:
        abandon_stdout()
        return CLOSED_PIPE
    except Exception as error:
        if invocation.debug:
            raise
        complain(explain(error))
        return exit_code(error)


def _front() -> Callable[[list[str], Invocation], int]:
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        from . import _bare

        return _bare.run
    from . import _app

    return _app.run
