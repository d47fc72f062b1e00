"""What a row of the table says: a figure, its peer's figure, the goal, and whether it is met."""

from __future__ import annotations

import enum
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BenchError(Exception):
    """A row that could not be measured: something did not start, or answered other than it should."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One figure, measured once a round."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Samples:
        """The samples of a sequence, which must not be empty."""
        if not values:
            raise BenchError("a row without a single sample")
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The figure that stands in the table."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the distance between the best and the worst round, as a share of the median."""
        return (max(self.values) - min(self.values)) / 2 / self.median if self.median else 0.0


class Verdict(enum.Enum):
    """How a row stands to its goal."""

    AIM = "aim"
    MUST = "must"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the ratio (or, without a peer, the figure) must be and is hoped to be."""

    must: float
    aim: float
    at_least: bool

    def verdict(self, value: float) -> Verdict:
        """Which of the two bounds a value reaches."""
        for bound, verdict in ((self.aim, Verdict.AIM), (self.must, Verdict.MUST)):
            if value >= bound if self.at_least else value <= bound:
                return verdict
        return Verdict.MISSED


def at_least(must: float, aim: float) -> Goal:
    """More is better."""
    return Goal(must, aim, at_least=True)


def at_most(must: float, aim: float) -> Goal:
    """Less is better."""
    return Goal(must, aim, at_least=False)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table. Without a peer, the goal is about the figure itself, in ``unit``.

    ``side`` is the cache that the figure is about, for the table that has a column for each.
    """

    row: str
    work: str
    unit: str
    figure: Samples
    goal: Goal | None = None
    peer: str | None = None
    peer_figure: Samples | None = None
    note: str = ""
    side: str = ""

    @property
    def value(self) -> float:
        """What the goal is about: the ratio to the peer, or the figure."""
        if self.peer_figure is None:
            return self.figure.median
        return self.figure.median / self.peer_figure.median

    @property
    def verdict(self) -> Verdict | None:
        """Whether the goal is met; None if there is none."""
        return self.goal.verdict(self.value) if self.goal else None


def number(value: float) -> str:
    """A figure with three significant digits or, above a thousand, none behind the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def shown(samples: Samples, unit: str) -> str:
    """A figure as the table shows it: ``26,400 /s ± 3 %``."""
    text = f"{number(samples.median)} {unit}"
    return f"{text} ± {samples.spread:.0%}".replace("%", " %") if len(samples.values) > 1 else text


def shown_bounds(result: Result) -> tuple[str, str]:
    """What must be and what is hoped for as the table shows it: ``≥ 0.15 x``, ``≤ 100 MB``."""
    if result.goal is None:
        return "", ""
    sign, unit = "≥" if result.goal.at_least else "≤", "x" if result.peer_figure else result.unit
    return f"{sign} {number(result.goal.must)} {unit}", f"{sign} {number(result.goal.aim)} {unit}"


def shown_value(result: Result) -> str:
    """The value the goal is about as the table shows it."""
    return f"{number(result.value)} {'x' if result.peer_figure else result.unit}"
