"""Each API of Dapr, what the sidecar answers over HTTP and gRPC; ``python -m tests.sidecar.table`` writes docs/reference/sidecar-apis.md from it.

Rows stand in ``apis_<block>.py``. `test_table.py` sends all cases and compares the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.sidecar import apis_calls, apis_state, apis_stores, apis_system
from tests.sidecar.rows import Api, Case

APIS: tuple[Api, ...] = (*apis_state.APIS, *apis_calls.APIS, *apis_stores.APIS, *apis_system.APIS)

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "sidecar-apis.md"

_HEAD = """# The sidecar's APIs

Each API of Dapr 1.19 and what `cloud-runtimes serve` answers: over HTTP the status and `errorCode`, over gRPC the status and the `reason` of its `ErrorInfo` (`-`: not over this protocol). Every row is a test of `tests/sidecar/table.py`, from which this page is written (`make docs`).
"""


def render() -> str:
    """Return the document."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    blocks = list(dict.fromkeys(api.block for api in APIS))
    yield "| block | API | HTTP | gRPC | served |"
    yield "|---|---|---|---|---|"
    for api in APIS:
        served = "yes" if api.served else "no"
        yield f"| {api.block} | {api.name} | {_code(api.http)} | {_code(api.rpc)} | {served} |"
    for block in blocks:
        yield f"\n## {block}"
        for api in APIS:
            if api.block == block:
                yield f"\n### {api.name}\n"
                if api.note:
                    yield f"{api.note}\n"
                yield "| | HTTP | gRPC |"
                yield "|---|---|---|"
                for case in api.cases:
                    yield f"| {case.what} | {_http(case)} | {_grpc(case)} |"


def _code(text: str) -> str:
    return f"`{text}`" if text else "-"


def _http(case: Case) -> str:
    return "-" if case.http is None else _answer(*case.answer)


def _grpc(case: Case) -> str:
    return "-" if case.rpc is None else _answer(*case.reply)


def _answer(status: int | str, error: str | None) -> str:
    return f"{status} `{error}`" if error else str(status)


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
