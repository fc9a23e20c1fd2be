"""Line and bar charts as SVG, at the size they have on a phone and scaled up from there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 34


@dataclass(frozen=True)
class Line:
    """A named series; `y` may hold None where nothing was measured."""

    name: str
    colour: str
    y: Sequence[float | None]


def percent(value: object, digits: int = 2) -> str:
    """A share as text, a dash where there is none.

    >>> percent(0.9161), percent(0.5, 0), percent(None)
    ('91.61 %', '50 %', '-')
    """
    return f"{value * 100:.{digits}f} %" if isinstance(value, int | float) else "-"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover the range.

    >>> nice_ticks(0.0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low or abs(high) or 1.0
    raw = span / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.8)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def line_chart(title: str, lines: Sequence[Line], x: Sequence[float], shares: bool = False) -> str:
    """Lines over x with a legend of text and colour; the page's script adds the cross-hair from data-chart."""
    values = [v for line in lines for v in line.y if v is not None and math.isfinite(v)]
    if not values or not x:
        return ""
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    x_low, x_high = min(x), max(x)

    def at_x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((value - x_low) / (x_high - x_low) if x_high > x_low else 0.5)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">']
    for tick in ticks:
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_label(tick, shares)}</text>'
        )
    parts += [
        f'<text class="tick" x="{at_x(tick):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{tick:g}</text>'
        for tick in _x_ticks(x_low, x_high)
    ]
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">pass</text>')
    series = []
    for line in lines:
        points = [(at_x(a), at_y(b)) for a, b in zip(x, line.y, strict=True) if b is not None and math.isfinite(b)]
        if len(points) == 1:
            parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="4" fill="{line.colour}"/>')
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        shown = ["" if v is None else (percent(v) if shares else f"{v:.4g}") for v in line.y]
        series.append(f"{line.name}|{line.colour}|{','.join(shown)}")
    places = ",".join(f"{at_x(a):.1f}" for a in x)
    names = ",".join(f"{a:g}" for a in x)
    parts.append(
        f'<line class="hair" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/>'
        f'<rect class="catch" x="{LEFT}" y="0" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT}" data-x="{places}" '
        f'data-names="{names}" data-series="{escape(";".join(series), quote=True)}"/></svg>'
    )
    legend = "".join(
        f'<span class="key"><i style="background:{line.colour}"></i>{escape(line.name)}</span>' for line in lines
    )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption>{"".join(parts)}<p class="legend">{legend}</p>'
        '<p class="reading" aria-live="polite">&nbsp;</p></figure>'
    )


def _x_ticks(low: float, high: float) -> list[float]:
    inside = [tick for tick in nice_ticks(low, high, 6) if low <= tick <= high and tick == int(tick)]
    return inside or [low]


def _label(value: float, shares: bool) -> str:
    return f"{value * 100:g} %" if shares else f"{value:g}"


def bar(share: float, colour: str, text: str) -> str:
    """A horizontal bar of `share` of the width, its value written beside it."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<span class="bar"><i style="width:{width:.1f}%;background:{colour}"></i></span>'
        f'<span class="value">{escape(text)}</span>'
    )
