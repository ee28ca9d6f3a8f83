"""docs/operating.md names every metric, every line of the log and every setting there is."""

import ast
import re
from collections.abc import Iterator

from partywall_service.settings import Settings
from tests.support.pages import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text()
SERVICE = ROOT / "service" / "partywall_service"

_LOGGING = {"debug", "info", "warning", "error", "exception", "critical"}
_FAMILIES = {"Counter", "Gauge", "Histogram", "CounterMetricFamily", "GaugeMetricFamily"}


def section(heading: str) -> str:
    """What stands below a heading, up to the next."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def cells(text: str) -> set[str]:
    """Names in the first cells of a section's tables; `…_x` goes on as the name before it began."""
    named: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE):
        first = ""
        for name in re.findall(r"`([^`]+)`", row):
            if name.startswith("…"):
                named.update(first[: end.start()] + name[1:] for end in re.finditer("_", first))
            else:
                first = name
                named.add(name)
    return named


def calls() -> Iterator[tuple[str, str]]:
    """Function and first argument of every call in the service that has a text for it."""
    for path in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if isinstance(first := node.args[0], ast.Constant) and isinstance(first.value, str):
                    yield name, first.value


def test_every_line_of_the_log_is_explained() -> None:
    events = {text for name, text in calls() if name in _LOGGING}
    assert len(events) > 40
    assert events - cells(section("Logs")) == set()


def test_every_metric_is_explained() -> None:
    families = {text for name, text in calls() if name in _FAMILIES and text.startswith("partyw")}
    explained = cells(section("Metrics"))
    explained |= {name.removesuffix("_total") for name in explained}
    assert len(families) > 20
    assert families - explained == set()


def test_every_setting_is_explained() -> None:
    explained = cells(section("Settings"))
    assert {f"PARTYWALL_{name.upper()}" for name in Settings.model_fields} - explained == set()
