"""Reports of `make bench-all`: tables, versions, the interpreter's build, and one plot for each topic."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cloud_runtimes

__all__ = ["Row", "plot", "write"]

PEERS = (
    "dapr",
    "grpcio",
    "aetcd",
    "orjson",
    "msgpack",
    "msgspec",
    "pydantic",
    "cattrs",
    "cloudevents",
    "litequeue",
    "persist-queue",
    "psycopg",
    "asyncpg",
    "procrastinate",
    "pgqueuer",
    "redis",
    "hiredis",
    "nats-py",
    "pika",
    "aio-pika",
    "confluent-kafka",
    "aiokafka",
    "faststream",
    "celery",
    "taskiq",
    "obstore",
    "boto3",
    "cython",
    "pytest-benchmark",
)
BAR, WIDTH, LABEL = 16, 420, 300


@dataclass(frozen=True)
class Row:
    """A comparison.

    Attributes:
        topic: of the suite.
        what: was compared.
        unit: that the seconds are of.
        seconds: median of each contender.
        ratios: how many times as fast as each peer ours is.
        goals: what the ratio should be at least.
    """

    topic: str
    what: str
    unit: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    goals: dict[str, float]

    def line(self) -> str:
        """Return it as one line of text."""
        times = ", ".join(f"{name} {_time(self.seconds[name])} ({each:.2f}x)" for name, each in self.ratios.items())
        return f"{self.what}: ours {_time(self.seconds['ours'])} a {self.unit}; {times}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e9:,.0f} ns" if seconds < 1e-5 else f"{seconds * 1e6:,.1f} µs"


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} absent"


def _processor() -> str:
    """Return what the kernel calls the processor."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return names[0] if names else platform.processor() or "unknown"


def build() -> str:
    """Describe the interpreter and how it was built: worth more than many a change of code."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = [flag for flag in ("--enable-optimizations", "--with-lto", "--disable-gil") if flag in arguments]
    how = ", ".join(flags) if flags else "without --enable-optimizations and LTO"
    return f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()}; {how})"


def write(path: Path, rows: list[Row], notes: list[tuple[str, str]]) -> None:
    """Write the Markdown file, and beside it a folder of plots. Sections of topics that were not run stay as they are."""
    plots = path.with_suffix("")
    plots.mkdir(exist_ok=True)
    status = cloud_runtimes.native_status()
    out = [
        "# Benchmarks",
        "",
        "Written by `make bench-all`; a run of some of them (`pytest benches/FILE --report PATH`) renews their sections and leaves the others. Peers run in the same process in turn with ours, in short slices; a ratio is the median over rounds of *their time / our time* (above 1: ours is faster). Nothing here is a promise about another machine.",
        "",
        f"* {build()}",
        f"* {'native kernels' if status.native else 'Python kernels'}; {status.reason}",
        f"* {platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores ({_processor()}); SQLite {sqlite3.sqlite_version}",
        f"* {', '.join(_version(name) for name in PEERS)}",
    ]
    sections = _earlier(path)
    for topic in dict.fromkeys([*(row.topic for row in rows), *(where for where, _ in notes)]):
        said = list(dict.fromkeys(text for where, text in notes if where == topic))
        sections[topic.rstrip(".")] = _section(topic, [row for row in rows if row.topic == topic], said, plots)
    for topic in sorted(sections):
        out += ["", f"## {topic}", *sections[topic]]
    path.write_text("\n".join(out) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {path}\n")


def _earlier(path: Path) -> dict[str, list[str]]:
    """Return the lines of each section that is there."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _, *parts = text.split("\n## ")
    return {topic: lines for topic, *lines in (part.rstrip("\n").split("\n") for part in parts)}


def _section(topic: str, rows: list[Row], notes: list[str], plots: Path) -> list[str]:
    """Return the lines of one topic, and draw its plot."""
    out = []
    if rows:
        name = "".join(c if c.isalnum() else "-" for c in topic.split(":")[0].split(",")[0].lower()).strip("-")
        (plots / f"{name}.svg").write_text(plot(rows), encoding="utf-8")
        out += ["", f"![{name}]({plots.name}/{name}.svg)", ""]
        out += ["| what | ours | peer | its time | ratio | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        for peer, each in row.ratios.items():
            goal = f"≥ {row.goals[peer]:g}" if peer in row.goals else ""
            times = f"{_time(row.seconds['ours'])} a {row.unit} | {peer} | {_time(row.seconds[peer])}"
            out.append(f"| {row.what} | {times} | {each:.2f} | {goal} |")
        if not row.ratios:
            out.append(f"| {row.what} | {_time(row.seconds['ours'])} a {row.unit} | | | | |")
    return [*out, *(["", *(f"* {text}" for text in notes)] if notes else [])]


def plot(rows: list[Row]) -> str:
    """Return bars of the times, each comparison on a scale of its own."""
    body: list[str] = []
    y = 10
    for row in rows:
        body.append(f'<text x="8" y="{y + 12}" font-weight="bold">{_escape(row.what)}</text>')
        y += 20
        maximum = max(row.seconds.values())
        for name, seconds in row.seconds.items():
            width = max(1, round(WIDTH * seconds / maximum))
            colour = "#2a6fb0" if name == "ours" else "#b8bec4"
            body.append(f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{_escape(name)}</text>')
            body.append(f'<rect x="{LABEL}" y="{y + 1}" width="{width}" height="{BAR - 3}" fill="{colour}"/>')
            body.append(f'<text x="{LABEL + width + 6}" y="{y + 12}">{_time(seconds)}</text>')
            y += BAR
        y += 8
    size = f'width="{LABEL + WIDTH + 110}" height="{y + 6}"'
    style = 'font-family="sans-serif" font-size="11"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{background}{"".join(body)}</svg>\n'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
