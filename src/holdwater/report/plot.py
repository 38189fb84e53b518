"""Draw a chart as SVG: areas and lines over steps, with axes that carry units.

Why not a plotting library: see docs/decisions/0004-the-report-draws-its-own-svg.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from holdwater.timeline.buckets import Floats

WIDTH = 960
LEFT, RIGHT, TOP, BOTTOM = 78, 28, 14, 34


@dataclass(frozen=True, slots=True)
class PlotSeries:
    """One line or area of a chart."""

    name: str
    values: Floats
    """Shape (points,); NaN leaves a gap."""
    colour: str
    """The name of a CSS variable."""


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line with a caption."""

    value: float
    caption: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over steps."""

    steps: Floats
    """Shape (points,)."""
    bottom: float
    top: float
    """The range of values."""
    write: Callable[[float], str]
    """Writes a value with its unit."""
    height: int = 320
    areas: Sequence[PlotSeries] = ()
    """Stacked on one another."""
    lines: Sequence[PlotSeries] = ()
    levels: Sequence[Level] = ()
    marks: Sequence[tuple[float, str, str]] = field(default=())
    """Step, kind and caption of each event."""

    def svg(self, name: str) -> str:
        """Return the drawing as an SVG element.

        Args:
            name: Its id.
        """
        body = [*self._grid(), *self._areas(), *self._lines(), *self._levels(), *self._marks()]
        cursor = f'<line class="cursor" y1="{TOP}" y2="{self.height - BOTTOM}" visibility="hidden"/>'
        return (
            f'<svg id="{name}" class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'data-left="{LEFT}" data-right="{WIDTH - RIGHT}">{"".join(body)}{cursor}</svg>'
        )

    def _x(self, step: float) -> float:
        """The horizontal position of a step."""
        first, last = self.steps[0], self.steps[-1]
        return float(LEFT + (step - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT))

    def _y(self, value: float) -> float:
        """The vertical position of a value."""
        share = (value - self.bottom) / ((self.top - self.bottom) or 1)
        return float(self.height - BOTTOM - share * (self.height - TOP - BOTTOM))

    def _grid(self) -> list[str]:
        """Axes, their ticks and numbers."""
        parts = []
        for value in ticks(self.bottom, self.top, 5):
            y = self._y(value)
            parts += [_rule("grid", y), _words("tick", LEFT - 8, y + 4, "end", self.write(value))]
        for step in ticks(self.steps[0], self.steps[-1], 8):
            x = self._x(step)
            parts.append(_words("tick", x, self.height - BOTTOM + 18, "middle", f"{step:,.0f}"))
        return parts

    def _areas(self) -> list[str]:
        """Areas, stacked from the bottom."""
        parts = []
        floor = np.full(len(self.steps), float(self.bottom))
        for series in self.areas:
            ceiling = floor + np.nan_to_num(series.values)
            upper = [f"{self._x(s):.1f},{self._y(v):.1f}" for s, v in zip(self.steps, ceiling, strict=True)]
            lower = [f"{self._x(s):.1f},{self._y(v):.1f}" for s, v in zip(self.steps, floor, strict=True)]
            points = " ".join([*upper, *reversed(lower)])
            parts.append(f'<polygon points="{points}" fill="var({series.colour})"/>')
            floor = ceiling
        return parts

    def _lines(self) -> list[str]:
        """Lines, interrupted where nothing was read."""
        parts = []
        for series in self.lines:
            known = ~np.isnan(series.values)
            points = " ".join(
                f"{self._x(step):.1f},{self._y(value):.1f}"
                for step, value in zip(self.steps[known], series.values[known], strict=True)
            )
            parts.append(f'<polyline points="{points}" stroke="var({series.colour})"/>')
        return parts

    def _levels(self) -> list[str]:
        """Horizontal lines; one above the chart is labelled at its edge."""
        parts = []
        for level in self.levels:
            off = level.value > self.top
            y = TOP + 2 if off else self._y(level.value)
            caption = f"{level.caption} ↑ above this chart" if off else level.caption
            parts += [
                _rule("level off" if off else "level", y),
                _words("level-name", WIDTH - RIGHT - 6, y + 15, "end", caption),
            ]
        return parts

    def _marks(self) -> list[str]:
        """Events, as ticks along the bottom edge with a caption."""
        y = self.height - BOTTOM
        return [
            f'<line class="mark {escape(kind)}" x1="{self._x(step):.1f}" x2="{self._x(step):.1f}" '
            f'y1="{y}" y2="{y - 9}"><title>{escape(caption)}</title></line>'
            for step, kind, caption in self.marks
        ]


def _rule(kind: str, y: float) -> str:
    """A line from edge to edge."""
    return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _words(kind: str, x: float, y: float, anchor: str, text: str) -> str:
    """A piece of text."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two values, about `count` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]
