"""Charts as pictures: pygal's SVG, without its scripts and addresses, in the page's own colours."""

import sys
from collections.abc import Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element

import pygal  # type: ignore[import-untyped] # it has no stubs
from pygal.style import Style  # type: ignore[import-untyped] # it has no stubs

from partywall_service.dashboard.usage import Chart

# pygal's finder of its plugins, of which none is used, is of a kind that Python gave up: it would
# warn of it at each import that finds nothing.
sys.meta_path[:] = [one for one in sys.meta_path if type(one).__module__ != pygal.__name__]

_STYLE = (files(__package__) / "static" / "chart.css").read_text()
_SVG = "{http://www.w3.org/2000/svg}"
_FONTS = Style(
    font_family="system-ui, sans-serif",
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=13,
)
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
"""Seconds between the lines of a chart of times, so that they are read as clocks are."""

_LINES = 4
_LABELS = 6
"""Along the bottom, about: more would not fit a phone."""


def draw(chart: Chart) -> bytes:
    """The picture; some milliseconds of work, so not for the event loop."""
    shown = [one for one in chart.series if not one.table_only]
    labels = chart.labels
    top = max([1, *(value or 0 for one in shown for value in one.values)])
    kind = pygal.StackedBar if chart.stacked else pygal.Line
    graph = kind(
        width=480,
        height=240,
        margin=8,
        margin_left=14,  # on a phone the labels are larger than it knows
        margin_bottom=8 if len(shown) < 3 or len(shown) % 2 == 0 else 30,  # it forgets half a row
        spacing=8,
        style=_FONTS,
        css=[f"inline:{_STYLE}"],
        js=[],  # pygal's own is fetched from elsewhere
        no_prefix=True,
        disable_xml_declaration=True,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        legend_box_size=12,
        truncate_legend=-1,
        truncate_label=-1,
        x_labels=labels,
        x_labels_major=labels[:: max(1, len(labels) // _LABELS)],
        show_minor_x_labels=False,
        value_formatter=lambda value: chart.say(value),
        min_scale=3,
        max_scale=5,
        range=None if chart.stacked else (0, top),
        y_labels=_ticks(top) if chart.name == "time" and shown else None,
        show_dots=False,
        allow_interruptions=True,
        stroke_style={"width": 2},
        title=None,
    )
    for one in shown:
        graph.add(one.title, list(one.values), show_dots=_has_lone(one.values))
    graph.add_xml_filter(_still)
    picture: str = graph.render(is_unicode=True)
    return picture.encode()


def _has_lone(values: Sequence[float | None]) -> bool:
    """Whether a value has none beside it: a line of one point is none."""
    around = (None, *values, None)
    return any(
        one is not None and before is None and after is None
        for before, one, after in zip(around, values, around[2:], strict=False)
    )


def _ticks(top: float) -> list[float]:
    """Where the lines are, from 0 to over `top` seconds."""
    day = 86_400
    apart = next((one for one in _TICKS if one * _LINES >= top), day * -(-top // (day * _LINES)))
    return [apart * number for number in range(int(-(-top // apart)) + 1)]


def _still(root: Element) -> Element:
    """Without scripts: nothing in a page's picture moves, and the policy of ours forbids them."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}script" or child.tag == "script":
                parent.remove(child)
    return root
