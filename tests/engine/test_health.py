"""When what a sweep stands on counts as gone, without Ray's processes."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3ray.engine import health as module
from s3ray.engine import private
from s3ray.engine.health import Health
from s3ray.errors import LostError
from s3ray.store import Store

PATIENCE = 30.0  # seconds; only catches a hang


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Codes with which the process would have been ended; all is a hundred times as fast."""
    for name, seconds in {"RAY_INTERVAL": 0.02, "STORAGE_INTERVAL": 3600.0, "GRACE": 0.1, "ORDERLY_END": 0.1}.items():
        monkeypatch.setattr(module, name, seconds)
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(private, "kill_processes", lambda: None)
    return codes


def looks(monkeypatch: pytest.MonkeyPatch, look: Callable[[int], str | None]) -> list[int]:
    """Have Ray looked after by `look`, which is told how many looks came before."""
    made: list[int] = []

    def missing() -> str | None:
        made.append(len(made))
        return look(made[-1])

    monkeypatch.setattr(private, "missing_process", missing)
    return made


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_lost(health: Health) -> bool:
    try:
        health.check()
    except LostError:
        return True
    return False


def test_one_look_alone_is_no_verdict(ended: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Storage that is throttled answers after 13 seconds, which is longer than the grace."""

    def look(before: int) -> str | None:
        if before % 2:
            return None
        time.sleep(0.15)
        return "gone for a moment"

    made = looks(monkeypatch, look)
    with Health(Store(str(tmp_path))) as health:
        wait_for(lambda: len(made) >= 6)
        assert not is_lost(health)
    assert ended == []


def test_what_stays_away_is_lost(ended: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = looks(monkeypatch, lambda before: "it is gone")

    def run() -> None:
        with Health(Store(str(tmp_path))) as health:
            wait_for(lambda: is_lost(health))
            health.check()

    with pytest.raises(LostError, match=r"^it is gone; what was committed stays, run again to continue$"):
        run()
    assert len(made) >= 2
    wait_for(lambda: ended == [1])  # Ray still holds the process


def test_a_run_that_is_over_is_not_cut_off(ended: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Something was lost in its last moment, and nobody asked."""
    monkeypatch.setattr(module, "ORDERLY_END", 0.5)
    looks(monkeypatch, lambda before: "it is gone")
    with Health(Store(str(tmp_path))) as health:
        wait_for(lambda: is_lost(health))
    time.sleep(0.7)
    assert ended == []


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    node = SimpleNamespace(raylet_socket_name=str(tmp_path / "raylet"), get_logs_dir_path=lambda: "/logs")
    monkeypatch.setattr("ray._private.worker._global_node", node)
    return node


def test_a_raylet_with_a_full_queue_is_there(node: Any) -> None:
    assert "raylet" in (private.missing_process() or "")
    with socket.create_server(("127.0.0.1", 0)) as head, socket.socket(socket.AF_UNIX) as raylet:
        node.gcs_address = f"127.0.0.1:{head.getsockname()[1]}"
        raylet.bind(node.raylet_socket_name)
        raylet.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
            assert errno.EAGAIN in [one.connect_ex(node.raylet_socket_name) for one in waiting]
            assert private.missing_process() is None
        finally:
            for one in waiting:
                one.close()


def test_a_head_may_have_an_ipv6_address(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        asked.append(address)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(socket, "create_connection", connect)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(node.raylet_socket_name)
        raylet.listen()
        for address in ("[::1]:6379", "10.0.0.1:6379", "head:6379"):
            node.gcs_address = address
            assert private.missing_process() is None
    assert asked == [("::1", 6379), ("10.0.0.1", 6379), ("head", 6379)]
