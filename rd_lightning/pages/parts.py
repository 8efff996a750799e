"""What a page consists of, and its HTML: text, facts, tables, charts with their controls.

Every text is escaped here; what is handed in is plain text, never HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol, runtime_checkable

from .palette import colour


@runtime_checkable
class Part(Protocol):
    """Anything that a section shows."""

    def html(self, id: str) -> str:
        """HTML; ``id`` is of this part alone on its page."""
        ...


@dataclass(frozen=True)
class Text:
    """A paragraph; ``strong`` where it is what a reader is to take home."""

    text: str
    strong: bool = False

    def html(self, id: str) -> str:
        return f"<p{' class=strong' if self.strong else ''}>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Facts:
    """Names and what they are, line by line."""

    rows: Mapping[str, str]

    def html(self, id: str) -> str:
        rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in self.rows.items())
        return f"<dl class=facts>{''.join(rows)}</dl>"

    @classmethod
    def nested(cls, values: Mapping[str, Any]) -> Facts:
        """Settings by dotted names, as the command line has them.

        >>> Facts.nested({"data": {"seed": 0}, "target": None}).rows
        {'data.seed': '0', 'target': 'null'}
        """
        return cls(_flat(values))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{name}.")
        else:
            plain = value is None or isinstance(value, (bool, list, tuple, Mapping))
            found[name] = json.dumps(value, default=str) if plain else str(value)
    return found


@dataclass(frozen=True)
class Notes:
    """Sentences to read beside the tables."""

    sentences: Sequence[str]

    def html(self, id: str) -> str:
        items = "".join(f"<li>{escape(s)}</li>" for s in self.sentences)
        return f"<ul class=notes>{items}</ul>"


@dataclass(frozen=True)
class Table:
    """A table that sorts by the column whose heading is pressed.

    Cells sort by the number that they start with where all of a column do, else as text; "-" and
    empty cells come last.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """Columns whose text starts at the left."""
    caption: str = ""

    def html(self, id: str) -> str:
        head = "".join(
            f"<th scope=col{self._side(i)}><button type=button>{escape(h)}</button></th>"
            for i, h in enumerate(self.headings)
        )
        body = "".join(
            "<tr>"
            + "".join(f"<td{self._side(i)}>{escape(c)}</td>" for i, c in enumerate(row))
            + "</tr>"
            for row in self.rows
        )
        label = escape(self.caption or ", ".join(self.headings), quote=True)
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<div class=scroll role=region tabindex=0 aria-label="{label}">'
            f"<table id={id}>{caption}<thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )

    def _side(self, column: int) -> str:
        return "" if column < self.left else " class=n"


@dataclass(frozen=True)
class Choice:
    """Parts of which one is seen at a time, chosen by its name; without scripts and in print all
    are."""

    label: str
    parts: Mapping[str, Part]

    def html(self, id: str) -> str:
        if len(self.parts) == 1:
            [(name, part)] = self.parts.items()
            return f"<h3>{escape(name)}</h3>{part.html(id)}"
        options = "".join(f"<option>{escape(name)}</option>" for name in self.parts)
        shown = "".join(
            f"<div class=chosen><h3>{escape(name)}</h3>{part.html(f'{id}-{i}')}</div>"
            for i, (name, part) in enumerate(self.parts.items())
        )
        return (
            f"<div class=choice id={id}><label class=control>{escape(self.label)} "
            f"<select>{options}</select></label>{shown}</div>"
        )


@dataclass(frozen=True)
class Series:
    """A line, or a class of points, as the legend shows it; pressing its name hides it.

    Args:
        key: its value in the data's column ``series``; by default its name.
        only: a parameter of the chart and its value with which alone the name is seen.
        points: whether it is a class of points.
    """

    name: str
    colour: str
    dash: tuple[int, ...] = ()
    width: float = 2.0
    hidden: bool = False
    key: str = ""
    only: tuple[str, Any] | None = None
    points: bool = False

    @property
    def value(self) -> str:
        """In the column ``series``."""
        return self.key or self.name


@dataclass(frozen=True)
class Select:
    """A list that sets a parameter of the chart to the chosen value."""

    param: str
    label: str
    options: Mapping[str, Any]
    """Value by the name that is shown; the first holds at first."""


@dataclass(frozen=True)
class Slider:
    """A slider over names that moves a parameter of the chart smoothly to the number of the name,
    0, 1, ..."""

    param: str
    label: str
    names: Sequence[str]


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification as a figure.

    The chart fills its column. Where it has ``series``, the specification has a parameter
    ``hidden``, the names of those that are hidden.
    """

    title: str
    spec: Mapping[str, Any]
    description: str
    """For people who do not see the picture."""
    caption: str = ""
    series: Sequence[Series] = ()
    controls: Sequence[Select | Slider] = ()
    wide: bool = False
    """Whether it takes the width of the page."""

    def html(self, id: str) -> str:
        spec = {**self.spec, "description": self.description}
        if "values" in spec.get("data", {}):
            spec["data"] = {"columns": columnar(spec["data"]["values"])}
        controls = "".join(_control(c, f"{id}-{c.param}") for c in self.controls)
        legend = "".join(map(_legend, self.series))
        legend = f'<div class=legend role=group aria-label="Lines">{legend}</div>' if legend else ""
        caption = f"<p class=caption>{escape(self.caption)}</p>" if self.caption else ""
        return (
            f"<figure class='chart{' wide' if self.wide else ''}' id={id}>"
            f"<figcaption>{escape(self.title)}</figcaption>"
            f"{f'<div class=controls>{controls}</div>' if controls else ''}{legend}"
            f"<div class=plot></div>{caption}"
            f"<script type=application/json>{script_json(spec)}</script></figure>"
        )


def _control(control: Select | Slider, id: str) -> str:
    param, label = escape(control.param, quote=True), escape(control.label)
    if isinstance(control, Select):
        options = "".join(
            f'<option value="{escape(json.dumps(value), quote=True)}">{escape(name)}</option>'
            for name, value in control.options.items()
        )
        return (
            f"<label class=control for={id}>{label} "
            f'<select id={id} data-param="{param}">{options}</select></label>'
        )
    names = escape(json.dumps(list(control.names)), quote=True)
    return (
        f"<label class='control slider' for={id}>{label} "
        f'<input type=range id={id} data-param="{param}" data-names="{names}" min=0 '
        f"max={len(control.names) - 1} step=1 value=0> <output>{escape(control.names[0])}</output>"
        "</label>"
    )


def _legend(series: Series) -> str:
    dash = f' stroke-dasharray="{" ".join(map(str, series.dash))}"' if series.dash else ""
    tone = escape(series.colour, quote=True)
    swatch = (
        f'<svg width=10 height=10 aria-hidden=true><circle cx=5 cy=5 r=4 fill="{tone}" /></svg>'
        if series.points
        else "<svg width=26 height=10 aria-hidden=true><line x1=0 y1=5 x2=26 y2=5 "
        f'stroke="{tone}" stroke-width={series.width:g}{dash} /></svg>'
    )
    pressed = "false" if series.hidden else "true"
    key = escape(series.value, quote=True)
    only = "" if series.only is None else f' data-only="{escape(json.dumps(series.only))}"'
    return (
        f'<button type=button aria-pressed={pressed} data-series="{key}"{only}>{swatch}'
        f"{escape(series.name)}</button>"
    )


def series_scales(series: Sequence[Series]) -> dict[str, Any]:
    """Encodings of ``color`` and ``strokeDash`` by the column ``series``, without a legend."""
    names = [s.value for s in series]
    dashes = [list(s.dash) or [1, 0] for s in series]

    def encoding(values: Sequence[Any]) -> dict[str, Any]:
        scale = {"domain": names, "range": list(values)}
        return {"field": "series", "type": "ordinal", "sort": None, "scale": scale, "legend": None}

    return {
        "color": encoding([s.colour or colour("grey") for s in series]),
        "strokeDash": encoding(dashes),
        "strokeWidth": encoding([s.width for s in series]),
    }


def columnar(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of the same keys by column: texts as codes of a list, numbers to six digits.

    >>> columnar([{"a": "x", "b": 1 / 3}, {"a": "x", "b": None}])
    {'a': {'codes': [0, 0], 'names': ['x']}, 'b': [0.333333, None]}
    """
    found: dict[str, Any] = {}
    for key in rows[0] if rows else ():
        values = [row[key] for row in rows]
        if values and all(isinstance(value, str) for value in values):
            names = {name: code for code, name in enumerate(dict.fromkeys(values))}
            found[key] = {"codes": [names[value] for value in values], "names": list(names)}
        else:
            found[key] = [_short(value) for value in values]
    return found


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    return [_short(v) for v in value] if isinstance(value, (list, tuple)) else value


def script_json(value: Any) -> str:
    """JSON that may stand inside of ``<script>``."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
