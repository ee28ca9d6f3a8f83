"""Lua files as Redis wants them: whole, and by digest."""

import re
from hashlib import sha1
from importlib.resources import files

_INCLUDE = re.compile(r'^--- @include "(\w+)"$', re.MULTILINE)


class LuaFile:
    """A Lua file beside a package's modules, in its folder `lua`.

    A line `--- @include "part"` stands for the file `include/part.lua`.

    Attributes:
        text: what EVAL takes.
        sha: what EVALSHA takes.
    """

    def __init__(self, name: str, package: str) -> None:
        folder = files(package).joinpath("lua")

        def part(line: re.Match[str]) -> str:
            return folder.joinpath("include", f"{line[1]}.lua").read_text()

        self.text = _INCLUDE.sub(part, folder.joinpath(f"{name}.lua").read_text())
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
