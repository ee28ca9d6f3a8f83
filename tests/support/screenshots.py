"""Where tests in a browser leave pictures of the pages, for a person to look at."""

import os
from pathlib import Path

SCREENSHOTS = Path(
    os.environ.get("PARTYWALL_SCREENSHOTS") or Path(__file__).parents[1] / "browser" / "screenshots"
)
"""`PARTYWALL_SCREENSHOTS` names another folder."""


def taken_since(moment: float) -> int:
    """How many pictures are as new as that.

    Args:
        moment: seconds since the epoch.
    """
    return sum(one.stat().st_mtime >= moment for one in SCREENSHOTS.glob("*.png"))
