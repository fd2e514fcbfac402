"""Log of a long run: a table by time, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

_WIDTH: Final = 720
_HEIGHT: Final = 160
_LEFT: Final = 70
_COLOURS: Final = ("#2a6fb0", "#d4761c")
_LINES: Final = 60
"""Rows of the table, about."""


class Sample(NamedTuple):
    """A look at a run: after so many seconds, events that were handled, and the memory of producer and consumer in MiB."""

    seconds: float
    handled: int
    producer: int
    consumer: int


class Log:
    """Looks at one run, and when which process was killed."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.kills: list[tuple[float, str]] = []

    def page(self, title: str, summary: str, picture: str) -> str:
        """Return the log as a page that shows a picture."""
        head = f"# {title}\n\nWritten by `make soak`. {summary}\n\n![events and memory over time]({picture})\n\n"
        rows = [
            "| minutes | handled | events a second | producer, MiB | consumer, MiB | killed |",
            "|---|---|---|---|---|---|",
        ]
        chosen = self.samples[:: max(1, len(self.samples) // _LINES)]
        if chosen[-1] is not self.samples[-1]:
            chosen.append(self.samples[-1])
        before = Sample(0.0, 0, 0, 0)
        for sample in chosen:
            rate = (sample.handled - before.handled) / (sample.seconds - before.seconds)
            killed = ", ".join(who for at, who in self.kills if before.seconds < at <= sample.seconds)
            rows.append(
                f"| {sample.seconds / 60:.1f} | {sample.handled:,} | {rate:,.0f} | {sample.producer} | {sample.consumer} | {killed} |"
            )
            before = sample
        return head + "\n".join(rows) + "\n"

    def picture(self) -> str:
        """Return it as SVG: events a second above, memory below, kills as thin lines."""
        rates = [
            (later.handled - sooner.handled) / (later.seconds - sooner.seconds)
            for sooner, later in zip(self.samples, self.samples[1:], strict=False)
        ]
        seconds = [sample.seconds for sample in self.samples]
        memory = [[sample.producer for sample in self.samples], [sample.consumer for sample in self.samples]]
        body = [
            *self._chart(20, "events handled a second", seconds[1:], [rates], ["consumer"]),
            *self._chart(_HEIGHT + 70, "memory, MiB", seconds, memory, ["producer", "consumer"]),
        ]
        size = f'width="{_LEFT + _WIDTH + 20}" height="{2 * _HEIGHT + 110}" font-family="sans-serif" font-size="11"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>\n'

    def _chart(
        self, top: int, title: str, seconds: Sequence[float], lines: Sequence[Sequence[float]], names: Sequence[str]
    ) -> list[str]:
        end = self.samples[-1].seconds
        most = max(max(line) for line in lines) or 1
        bottom = top + _HEIGHT
        out = [f'<text x="{_LEFT}" y="{top - 6}" font-weight="bold">{title}</text>']
        for at, who in self.kills:
            x = _LEFT + _WIDTH * at / end
            out.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#c9c9c9"><title>{who} killed</title></path>')
        for share in (0, 0.5, 1):
            y = bottom - _HEIGHT * share
            out.append(f'<path d="M{_LEFT} {y:.1f}h{_WIDTH}" stroke="#e4e4e4"/>')
            out.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{most * share:,.0f}</text>')
            out.append(
                f'<text x="{_LEFT + _WIDTH * share:.0f}" y="{bottom + 14}" text-anchor="middle">{end * share / 60:.0f} min</text>'
            )
        for number, (line, name) in enumerate(zip(lines, names, strict=True)):
            points = " ".join(
                f"{_LEFT + _WIDTH * at / end:.1f},{bottom - _HEIGHT * value / most:.1f}"
                for at, value in zip(seconds, line, strict=True)
            )
            out.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[number]}" stroke-width="1.5"/>')
            out.append(
                f'<text x="{_LEFT + _WIDTH - 160 + 80 * number}" y="{top - 6}" fill="{_COLOURS[number]}">{name}</text>'
            )
        return out
