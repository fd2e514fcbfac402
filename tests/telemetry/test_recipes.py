"""The recipes for other logging libraries in docs/how-to/telemetry.md, with the real packages and a real endpoint: what arrives is what was logged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.otlp_receiver import Receiver

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "telemetry.md"


def recipe(package: str) -> str:
    (text,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if re.search(rf"^(import|from) {package}\b", text, re.MULTILINE)
    )
    return text


def run(program: str, folder: Path, receiver: Receiver) -> None:
    file = folder / "program.py"
    file.write_text(program, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", file],
        cwd=folder,
        env={**env, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def attributes(record: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in record.attributes}


@pytest.mark.process
def test_structlog(tmp_path: Path) -> None:
    with Receiver() as receiver:
        run(recipe("structlog"), tmp_path, receiver)
        (record,), (span,) = receiver.logs(), receiver.spans()
    assert (record.body.string_value, record.severity_number, record.severity_text) == ("charged", 9, "info")
    assert attributes(record) == {"amount": 12.5}
    assert (record.trace_id, record.span_id, span.name) == (span.trace_id, span.span_id, "checkout")


@pytest.mark.process
def test_structlog_with_context_and_an_exception(tmp_path: Path) -> None:
    program = recipe("structlog").replace(
        "        log.info(",
        """        structlog.contextvars.bind_contextvars(tenant="north")
        try:
            raise LookupError("no stock")
        except LookupError:
            log.exception("failed")
        log.info(""",
    )
    with Receiver() as receiver:
        run(program, tmp_path, receiver)
        failed, charged = receiver.logs()
    assert (failed.body.string_value, failed.severity_number) == ("failed", 17)
    assert attributes(failed)["tenant"] == "north"
    assert attributes(failed)["exception"].endswith("LookupError: no stock")
    assert attributes(charged) == {"amount": 12.5, "tenant": "north"}


@pytest.mark.process
def test_loguru(tmp_path: Path) -> None:
    with Receiver() as receiver:
        run(recipe("loguru"), tmp_path, receiver)
        (record,), (span,) = receiver.logs(), receiver.spans()
    assert (record.body.string_value, record.severity_number, record.severity_text) == ("charged order 7", 9, "SUCCESS")
    fields = attributes(record)
    assert (fields["amount"], fields["code.function.name"]) == (12.5, "<module>")
    assert fields["code.file.path"].endswith("program.py")
    assert (record.trace_id, record.span_id, span.name) == (span.trace_id, span.span_id, "checkout")


@pytest.mark.process
def test_loguru_with_levels_and_an_exception(tmp_path: Path) -> None:
    program = recipe("loguru").replace(
        "        logger.bind(",
        """        logger.trace("below the sink's level")
        logger.debug("d"); logger.warning("w"); logger.critical("c")
        try:
            raise LookupError("no stock")
        except LookupError:
            logger.exception("failed")
        logger.bind(""",
    )
    with Receiver() as receiver:
        run(program, tmp_path, receiver)
        records = receiver.logs()
    assert [record.severity_number for record in records] == [5, 13, 21, 17, 9]
    fields = attributes(records[3])
    assert (fields["exception.type"], fields["exception.message"]) == ("LookupError", "no stock")
