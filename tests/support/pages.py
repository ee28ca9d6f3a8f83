"""What pages for people promise: their blocks of code, and where they point to."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Where a page points to within the repository, without the place on the page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target for target in targets if not target.startswith(("http://", "https://"))]
    return [target.partition("#")[0] for target in local if not target.startswith("#")]
