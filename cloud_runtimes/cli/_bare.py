"""The front without the extra ``[cli]``: the same options, the command ``doctor``, and a hint for the others."""

from __future__ import annotations

import argparse

from .. import __version__
from .._core import extras
from ._session import Invocation


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloud-runtimes",
        description="Without the extra [cli] there is one command: doctor [--json].",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="PATH", help="TOML, JSON or YAML file, or a folder of such files")
    parser.add_argument("--runtime", metavar="NAME", help="the runtime to use")
    parser.add_argument("--endpoint", metavar="URL", help="where a sidecar listens")
    parser.add_argument("--app-id", metavar="ID", help="name of the application and its consumer group")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="limit of every call")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"cloud-runtimes {__version__}")
    parser.add_argument("command", nargs="?", help="doctor; the others need the extra")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def run(arguments: list[str], invocation: Invocation) -> int:
    """Parse and run.

    Raises:
        UnsupportedError: the command is another than ``doctor``.
    """
    doctor = argparse.ArgumentParser(
        prog="cloud-runtimes doctor", description="Tell what is installed and whether it works."
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    try:
        given = _parser().parse_args(arguments)
        if given.command != "doctor":
            raise extras.missing("this command", "cli")
        as_json = doctor.parse_args(given.rest).json
    except SystemExit as error:  # argparse has said why
        return int(error.code or 0)
    invocation.config, invocation.runtime, invocation.endpoint = given.config, given.runtime, given.endpoint
    invocation.app_id, invocation.timeout, invocation.debug = given.app_id, given.timeout, given.debug
    from ._doctor import doctor as examine

    return examine(invocation, as_json)
