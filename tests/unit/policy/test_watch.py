"""A changed file is applied, however it was changed. Real files, and the real watcher."""

# ruff: noqa: ASYNC240 - the files are small and local, and a test is alone on its loop

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from partywall_service.policy import watch
from partywall_service.policy.loader import (
    PolicyError,
    PolicyFault,
    load_policy,
    parse_policy,
)
from partywall_service.policy.model import Policy
from partywall_service.policy.watch import watch_policy

PATIENCE = 30
"""Seconds until a test gives up; nothing here measures speed."""


def _text(weight: int) -> str:
    return f"[tiers.free]\nweight = {weight}\n"


class Seen:
    """What the watcher did, in order: the weight it applied, or the text it refused with."""

    def __init__(self) -> None:
        self.done: asyncio.Queue[float | str] = asyncio.Queue()
        self.failures = 0

    async def apply(self, policy: Policy) -> None:
        if self.failures:
            self.failures -= 1
            self.done.put_nowait("failed")
            raise OSError("no room")
        self.done.put_nowait(policy.tiers["free"].weight)

    def reject(self, error: PolicyError) -> None:
        self.done.put_nowait(str(error))

    async def next(self) -> float | str:
        async with asyncio.timeout(PATIENCE):
            return await self.done.get()


@asynccontextmanager
async def watching(path: Path, current: Policy | None = None) -> AsyncIterator[Seen]:
    seen = Seen()
    current = current or load_policy(path)
    task = asyncio.create_task(watch_policy(path, current, seen.apply, seen.reject))
    try:
        yield seen
        assert not task.done(), "it watches until it is cancelled"
        assert seen.done.empty(), "each content is acted on once"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def quotas(tmp_path: Path) -> Path:
    path = tmp_path / "quotas.toml"
    path.write_text(_text(1))
    return path


async def test_a_file_written_in_place_is_applied(quotas: Path) -> None:
    async with watching(quotas) as seen:
        for weight in (2, 3, 1):
            quotas.write_text(_text(weight))
            assert await seen.next() == weight


async def test_a_file_replaced_by_renaming_is_applied(quotas: Path) -> None:
    async with watching(quotas) as seen:
        for weight in (2, 3):
            new = quotas.with_suffix(".new")
            new.write_text(_text(weight))
            new.rename(quotas)
            assert await seen.next() == weight


async def test_a_file_moved_away_and_written_anew_is_applied(quotas: Path) -> None:
    """As vim does with `backupcopy=no`."""
    async with watching(quotas) as seen:
        quotas.rename(quotas.with_name("quotas.toml~"))
        quotas.write_text(_text(2))
        assert await seen.next() == 2


async def test_a_kubernetes_config_map_is_followed(tmp_path: Path) -> None:
    """quotas.toml → ..data/quotas.toml, ..data → a directory; an update swaps ..data alone."""

    def publish(name: str, weight: int) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "quotas.toml").write_text(_text(weight))
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("..2026_01", 1)
    quotas = tmp_path / "quotas.toml"
    quotas.symlink_to(Path("..data") / "quotas.toml")
    async with watching(quotas) as seen:
        publish("..2026_02", 2)
        assert await seen.next() == 2
        shutil.rmtree(tmp_path / "..2026_01")
        publish("..2026_03", 3)
        assert await seen.next() == 3


async def test_a_file_that_links_elsewhere_is_followed(tmp_path: Path) -> None:
    """Where the file really is, nothing is watched: the poll finds it."""
    real = tmp_path / "elsewhere" / "policy.toml"
    real.parent.mkdir()
    real.write_text(_text(1))
    quotas = tmp_path / "here" / "quotas.toml"
    quotas.parent.mkdir()
    quotas.symlink_to(real)
    async with watching(quotas) as seen:
        real.write_text(_text(2))
        assert await seen.next() == 2


async def test_what_changed_before_the_watch_began_is_applied(
    quotas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: here no event and no poll would ever tell."""

    async def silence(*_: object, **__: object) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(watch, "awatch", silence)
    before = load_policy(quotas)
    quotas.write_text(_text(2))
    async with watching(quotas, before) as seen:
        assert await seen.next() == 2


async def test_what_broke_before_the_watch_began_is_refused(quotas: Path) -> None:
    before = load_policy(quotas)
    quotas.unlink()
    async with watching(quotas, before) as seen:
        assert "No such file" in str(await seen.next())


async def test_an_invalid_file_is_refused_once_and_a_valid_one_then_applied(quotas: Path) -> None:
    async with watching(quotas) as seen:
        quotas.write_text(_text(0))
        assert await seen.next() == (
            f"{quotas}: tiers.free.weight: expected a number above 0, up to 1e15; got 0"
        )
        quotas.write_text("[tiers")
        assert str(await seen.next()).startswith(f"{quotas}: expected TOML: ")
        quotas.write_text(_text(2))
        assert await seen.next() == 2


async def test_each_content_is_acted_on_once_however_often_it_is_looked_at(quotas: Path) -> None:
    seen = Seen()
    looker = watch._Watch(quotas, load_policy(quotas), seen.apply, seen.reject)
    for change, first in (
        (lambda: quotas.write_text(_text(0)), "up to 1e15; got 0"),
        (lambda: quotas.write_text(_text(2)), "2"),
        (quotas.unlink, "No such file or directory"),
    ):
        change()
        for _ in range(3):
            await looker.look()
        assert str(seen.done.get_nowait()).endswith(first)
        assert seen.done.empty()


async def test_going_back_to_what_is_in_force_after_a_refusal_is_told(quotas: Path) -> None:
    """So that the refusal need not be shown any longer."""
    async with watching(quotas) as seen:
        quotas.write_text(_text(-1))
        assert "weight" in str(await seen.next())
        quotas.write_text(_text(1))
        assert await seen.next() == 1


async def test_a_removed_file_is_refused_and_followed_when_it_returns(quotas: Path) -> None:
    async with watching(quotas) as seen:
        quotas.unlink()
        assert "No such file" in str(await seen.next())
        quotas.write_text(_text(2))
        assert await seen.next() == 2


async def test_a_directory_made_anew_is_followed(tmp_path: Path) -> None:
    """As a deployment does that removes the old one; its watch went with it."""
    quotas = tmp_path / "config" / "quotas.toml"
    quotas.parent.mkdir()
    quotas.write_text(_text(1))
    async with watching(quotas) as seen:
        shutil.rmtree(quotas.parent)
        assert "No such file" in str(await seen.next())
        for weight in (2, 3):
            quotas.parent.mkdir(exist_ok=True)
            quotas.write_text(_text(weight))
            assert await seen.next() == weight


async def test_other_files_beside_it_change_nothing(quotas: Path) -> None:
    async with watching(quotas) as seen:
        quotas.with_name("other.toml").write_text(_text(7))
        quotas.with_name("quotas.toml.swp").write_text("half")
        quotas.write_text(_text(2))
        assert await seen.next() == 2


async def test_a_policy_that_could_not_be_applied_is_tried_again(quotas: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with watching(quotas) as seen:
            seen.failures = 2
            quotas.write_text(_text(2))
            assert [await seen.next() for _ in range(3)] == ["failed", "failed", 2]
    assert [log["event"] for log in logs] == ["policy.not_applied"] * 2
    assert all(log["exc_info"] and log["log_level"] == "error" for log in logs)


async def test_a_policy_that_cannot_apply_yet_is_told_once_and_tried_until_it_can(
    quotas: Path,
) -> None:
    """As when it drops a tier that tenants still have."""
    still_used = PolicyError(PolicyFault(str(quotas), "tiers", "one is in use"))
    in_use = True
    seen = Seen()

    async def apply(policy: Policy) -> None:
        if in_use and policy.tiers["free"].weight == 2:
            raise still_used
        await seen.apply(policy)

    looker = watch._Watch(quotas, load_policy(quotas), apply, seen.reject)
    quotas.write_text(_text(2))
    for _ in range(3):
        await looker.look()
    assert (seen.done.get_nowait(), seen.done.empty()) == (str(still_used), True)
    quotas.write_text(_text(1))
    await looker.look()
    assert seen.done.get_nowait() == 1, "going back ends the refusal"
    quotas.write_text(_text(2))
    await looker.look()
    assert seen.done.get_nowait() == str(still_used)
    in_use = False
    await looker.look()
    await looker.look()
    assert (seen.done.get_nowait(), seen.done.empty()) == (2, True)


async def test_without_a_watch_the_poll_finds_the_change(
    quotas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's inotify instances may all be taken."""

    async def none_left(*_: object, **__: object) -> AsyncIterator[None]:
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr(watch, "awatch", none_left)
    with structlog.testing.capture_logs() as logs:
        async with watching(quotas) as seen:
            for weight in (2, 3):
                quotas.write_text(_text(weight))
                assert await seen.next() == weight
    assert [log["event"] for log in logs] == ["policy.polled"]  # told once


async def test_half_a_file_is_not_applied_though_it_is_valid(
    quotas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written in place is halfway at some moment: here, whenever it is first read."""
    whole = _text(2) + "[tiers.pro]\n"
    readings = iter([_text(2), whole, _text(2)[:15], PolicyError()])

    def read(_: Path) -> str:
        reading = next(readings, whole)
        if isinstance(reading, PolicyError):
            raise reading
        return reading

    monkeypatch.setattr(watch, "read_policy_text", read)
    applied: asyncio.Queue[Policy] = asyncio.Queue()
    refused: list[PolicyError] = []
    current = parse_policy(_text(1), "test")
    task = asyncio.create_task(watch_policy(quotas, current, applied.put, refused.append))
    async with asyncio.timeout(PATIENCE):
        policy = await applied.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (list(policy.tiers), refused, applied.empty()) == (["free", "pro"], [], True)
