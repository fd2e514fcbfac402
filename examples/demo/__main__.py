"""Arguments of the demo. ``consumer`` as the first one is the second process, started by the first."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cloud_runtimes.errors import CloudRuntimesError

from .flights import MissingDataError
from .home import HomeError
from .settings import Settings

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Publish the flights that left New York in 2013, total them in a second process, and compare.",
        allow_abbrev=False,
    )
    parser.add_argument("--events", metavar="N", type=_count, help="how many flights (default: all 336,776)")
    parser.add_argument(
        "--home",
        metavar="DIR",
        help="folder of the store (default: .demo, removed afterwards), emptied before the start; or URL of a server, such as postgresql://user@host/name",
    )
    parser.add_argument("--keep", action="store_true", help="leave .demo there afterwards")
    parser.add_argument(
        "--part",
        choices=["publish", "consume"],
        help="publish only, into a home that stays; or consume what is there, e.g. after it was copied to another home",
    )
    parser.add_argument("--config", metavar="PATH", help="configuration of the client, to run on something else")
    parser.add_argument("--pubsub", metavar="NAME", default="bus", help="pub/sub component (default: bus)")
    parser.add_argument("--store", metavar="NAME", default="totals", help="state component (default: totals)")
    parser.add_argument(
        "--configuration", metavar="NAME", default="settings", help="configuration store (default: settings)"
    )
    parser.add_argument("--secret", metavar="NAME", default="demo", help="secret store (default: demo)")
    parser.add_argument(
        "--app-id",
        metavar="ID",
        default="flights-demo",
        help="consumer group, and name of the service (default: flights-demo)",
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 when nothing was lost and all totals agree."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    role = arguments.pop(0) if arguments[:1] == ["consumer"] else "producer"
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.config is not None and given.home is not None:
        parser.error("give --home or --config, not both")
    settings = Settings(**vars(given))
    try:
        if role == "consumer":
            from .consumer import consume

            return consume(settings)
        from .run import run

        return run(settings)
    except KeyboardInterrupt:
        return 130
    except (CloudRuntimesError, MissingDataError, HomeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
