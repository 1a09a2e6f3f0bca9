"""Curves for a page: numbers over the updates become coordinates and labels of a small drawing.

Nothing is drawn here: a template turns a `Curve` into SVG, so that the page's style sheet decides
on colours in the light, in the dark and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 360, 190
"""Of the drawing, in its own units; at its usual size on a page one is a pixel."""

LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
"""Margins for the labels."""

MOST_POINTS = 300
"""A longer curve is drawn as means of so many stretches, on the span of the values in each."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Tick:
    """A number at an axis.

    Attributes:
        at: along the axis, in units of the drawing.
        label: the number as it is written.
    """

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """A drawing of one quantity, (0, 0) in its upper left corner.

    Attributes:
        line: corners of the line, as SVG writes them: ``x,y x,y``.
        span: corners of the area between the smallest and the largest values; "" where the line
            shows every value.
        x_ticks: numbers below.
        y_ticks: numbers at the left.
        marks: x of what is to be marked along the way.
        last: x and y of the last value.
    """

    line: str
    span: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[float, ...]
    last: tuple[float, float]


def draw_curve(
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_range: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    log_x: bool = False,
    from_zero: bool = False,
) -> Curve | None:
    """A curve through points; None where there is no finite one.

    Args:
        x: such as updates, in rising order.
        y: as many values; those that are no number are left out.
        x_range: from where to where the axis goes; unset, over the points.
        marks: x of what is to be marked; those beyond the axis are left out.
        log_x: equal factors of x lie equally far apart.
        from_zero: the axis of y begins at 0, so that no small change looks large.
    """
    every = np.array([x, y], float)
    points = every[:, np.isfinite(every).all(axis=0)]
    if not points.size:
        return None
    x_axis = _Axis(x_range or _ends(points[0]), (LEFT, WIDTH - RIGHT), log=log_x)
    means, lows, highs = _thinned(points)
    lowest, highest = _ends(np.concatenate([lows, highs]))
    lowest = min(lowest, 0.0) if from_zero else lowest
    room = 0.04 * (highest - lowest)
    y_axis = _Axis((lowest if from_zero else lowest - room, highest + room), (HEIGHT - BOTTOM, TOP))
    across = x_axis.place(means[0])
    down = y_axis.place(means[1])
    span = ""
    if len(points[0]) > len(means[0]):
        there_and_back = np.concatenate([across, across[::-1]])
        span = _corners(there_and_back, y_axis.place(np.concatenate([lows, highs[::-1]])))
    inside = [mark for mark in marks if x_axis.ends[0] <= mark <= x_axis.ends[1]]
    return Curve(
        line=_corners(across, down),
        span=span,
        x_ticks=x_axis.ticks(4),
        y_ticks=y_axis.ticks(5),
        marks=tuple(round(float(at), 1) for at in x_axis.place(np.array(inside, float))),
        last=(round(float(across[-1]), 1), round(float(down[-1]), 1)),
    )


SMALLEST = 1e-290
"""Of what lies closer together, floating-point numbers cannot tell steps in between."""


@dataclass(frozen=True)
class _Axis:
    """Where numbers lie along one side of the drawing."""

    ends: tuple[float, float]
    places: tuple[float, float]
    log: bool = False

    def place(self, values: Numbers) -> Numbers:
        low, high = np.log(self.ends) if self.log else np.array(self.ends)
        share = ((np.log(values) if self.log else values) - low) / (high - low)
        placed: Numbers = self.places[0] + share * (self.places[1] - self.places[0])
        return placed

    def ticks(self, most: int) -> tuple[Tick, ...]:
        numbers = decades(*self.ends) if self.log else round_numbers(*self.ends, most)
        step = numbers[1] - numbers[0] if len(numbers) > 1 else 1.0
        places = self.place(np.array(numbers, float))
        return tuple(
            Tick(
                round(float(at), 1),
                f"1e{math.log10(number):.0f}" if self.log else spell_number(number, step),
            )
            for at, number in zip(places, numbers, strict=True)
        )


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` + 1 numbers from ``low`` to ``high`` that are 1, 2 or 5 and zeros apart."""
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (size, 2 * size, 5 * size, 10 * size):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first <= most:
            break
    return [number * step for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """The powers of ten from ``low`` to ``high``."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def spell_number(number: float, step: float) -> str:
    """A number with as many decimals as tell it from others that lie ``step`` away."""
    if abs(number) >= 1e6 or step < 1e-4:
        return f"{number:.1e}" if number else "0"
    return f"{number:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _ends(values: Numbers) -> tuple[float, float]:
    """The smallest and the largest; of equal ones, a little below and above."""
    low, high = float(values.min()), float(values.max())
    if high - low > max(1e-9 * max(abs(low), abs(high)), SMALLEST):
        return low, high
    room = abs(low) / 10 if abs(low) > 10 * SMALLEST else 1.0
    return low - room, high + room


def _thinned(points: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Points (2, count), and the smallest and the largest value that each one stands for."""
    groups = np.array_split(points, min(len(points[0]), MOST_POINTS), axis=1)
    means = np.stack([group.mean(axis=1) for group in groups], axis=1)
    lows, highs = ([end(group[1]) for group in groups] for end in (np.min, np.max))
    return means, np.array(lows), np.array(highs)


def _corners(across: Numbers, down: Numbers) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
