"""Lua files as Redis wants them: whole, and by digest."""

import re
from hashlib import sha1
from importlib.resources import files

_INCLUDE = re.compile(r'^--- @include "(?:([\w.]+)/)?(\w+)"$', re.MULTILINE)


class LuaFile:
    """A Lua file beside a package's modules, in its folder `lua`.

    A line `--- @include "part"` stands for the file `include/part.lua`; with a package before it,
    as in `--- @include "some.package/part"`, for that of another package.

    Attributes:
        text: what EVAL takes.
        sha: what EVALSHA takes.
    """

    def __init__(self, name: str, package: str) -> None:
        def part(line: re.Match[str]) -> str:
            return _read(line[1] or package, "include", f"{line[2]}.lua")

        self.text = _INCLUDE.sub(part, _read(package, f"{name}.lua"))
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def _read(package: str, *path: str) -> str:
    return files(package).joinpath("lua", *path).read_text()
