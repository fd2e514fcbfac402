"""What `stats` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["State", "TargetStats"]

State = Literal["closed", "open", "half open"]


@dataclass(frozen=True, slots=True)
class TargetStats:
    """What became of the calls of one target since the client was made, or forked.

    Attributes:
        calls: first attempts that were let through.
        retries: further ones.
        over_budget: retries that were not made because the budget was used up.
        refused: attempts that the breaker did not let through.
        state: of the breaker; ``None``: there is none.
    """

    calls: int = 0
    retries: int = 0
    over_budget: int = 0
    refused: int = 0
    state: State | None = None
