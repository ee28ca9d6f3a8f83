"""`import partywall`: what it gives, and what it does not need or do."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import partywall

SOURCE = Path(partywall.__file__)
EXTRAS = ("fastapi", "starlette", "pydantic", "jwt", "redis", "arq", "pytest", "sqlalchemy")


def test_all_is_sorted_and_names_everything_public_that_is_there_and_nothing_else():
    public = {
        name
        for name, value in vars(partywall).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(partywall.__all__) == public
    assert partywall.__all__ == sorted(partywall.__all__)


def test_init_only_exports():
    docstring, *statements = ast.parse(SOURCE.read_text()).body
    assert isinstance(docstring, ast.Expr)
    *imports, exported = statements
    assert all(isinstance(one, ast.ImportFrom) for one in imports)
    assert isinstance(exported, ast.Assign)
    assert ast.unparse(exported.targets[0]) == "__all__"


def test_what_is_public_says_what_it_is():
    for name in partywall.__all__:
        assert inspect.getdoc(getattr(partywall, name)), name


def test_every_error_of_the_tree_is_exported_and_in_the_picture_of_it():
    errors = importlib.import_module("partywall.errors")
    for name, value in vars(errors).items():
        if inspect.isclass(value) and value.__module__ == errors.__name__:
            assert issubclass(value, partywall.PartywallError)
            assert getattr(partywall, name) is value
            assert f" {name}" in f" {errors.__doc__}".replace("\n", " ")


@pytest.mark.parametrize(
    "name", ["FromHeader", "FromSubdomain", "FromPath", "FromDomain", "FromJWT"]
)
def test_tenants_gives_what_the_contract_says(name):
    assert callable(getattr(importlib.import_module("partywall.tenants"), name))


def test_importing_it_brings_in_no_extra_and_warns_of_nothing():
    code = (
        "import sys, partywall, partywall.tenants\n"
        f"print([one for one in {EXTRAS!r} if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_it_is_typed():
    assert (SOURCE.parent / "py.typed").exists()
