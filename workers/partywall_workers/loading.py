"""A worker's settings, found by the name they are given on a command line."""

import importlib
import inspect
import sys
import traceback
from pathlib import Path

__all__ = ["CannotRun", "load_settings"]


class CannotRun(Exception):
    """A worker cannot start, or ended by itself; the message is one plain sentence."""


def load_settings(name: str) -> type:
    """Imports a class of settings.

    The directory in which the command was given is looked in first, as uvicorn and arq do.

    Args:
        name: `module.Class`.

    Raises:
        CannotRun: with what was expected.
    """
    module_name, _, class_name = name.rpartition(".")
    if not all(part.isidentifier() for part in name.split(".")) or not module_name:
        raise CannotRun(
            f"expected a module and a class in it, such as myapp.jobs.Settings; got {name!r}"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        raise CannotRun(_why_not(module_name, here, exc)) from exc
    found = getattr(module, class_name, None)
    if found is None:
        raise CannotRun(f"module {module_name} ({module.__file__}) has no {class_name}")
    if not inspect.isclass(found):
        raise CannotRun(
            f"expected {name} to be a class, such as class {class_name}(FairWorkerSettings); "
            f"got {type(found).__name__}"
        )
    if not getattr(found, "functions", None) and not getattr(found, "cron_jobs", None):
        raise CannotRun(
            f"{name} has no functions: expected its attribute functions to list the jobs, "
            "or cron_jobs to"
        )
    return found


def _why_not(module_name: str, here: str, exc: Exception) -> str:
    missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
    if missing is not None and f"{module_name}.".startswith(f"{missing}."):
        return f"there is no module {missing} in {here} or where Python looks"
    said = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    place = _place(exc)
    return f"{module_name} cannot be imported: {' '.join(said.split())}{place}"


def _place(exc: Exception) -> str:
    """Where it was raised; a SyntaxError says so itself."""
    if isinstance(exc, SyntaxError):
        return ""
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        if not frame.filename.startswith("<frozen"):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""
