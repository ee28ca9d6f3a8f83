"""Where the queue's Lua files are."""

from pathlib import Path

import partywall_workers

FOLDER = Path(partywall_workers.__file__).parent / "lua"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.lua"))
