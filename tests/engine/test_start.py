"""What keeps Ray from being started or reached is one sentence, within seconds and before anything else happens."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from s3ray.config import UserError
from s3ray.engine import cluster
from s3ray.engine.cluster import cluster_address, connect
from s3ray.engine.preflight import Execution


@contextlib.contextmanager
def listening(answer):
    """The address of a server that sends `answer` to whoever connects, or says nothing if it is None."""
    with socket.create_server(("", 0)) as server:  # as Ray does: it takes 127.0.0.1 for the machine's own address

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    if answer is None:
                        connection.recv(100)  # until the client goes
                    else:
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody():
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path):
    """Ray's temporary folder: no cluster of this machine has left its address there."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: set())
    return tmp_path


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("http://127.0.0.1:8265", "this address is the dashboard's, which ray job submit --address takes"),
        ("https://cluster.example.com", "this address is the dashboard's"),
        ("ray://127.0.0.1:10001", "this address is Ray Client's, through which no sweep can run"),
        ("redis://127.0.0.1:6379", "this address is none of Ray's"),
        ("nonsense", "leads to no cluster"),
        ("127.0.0.1", "leads to no cluster"),
        ("127.0.0.1:port", "its port is none"),
        ("127.0.0.1:99999", "nobody answers there"),
        ("no-such-host.invalid:6379", "nobody answers there"),
        ("auto", "leads to no cluster"),
    ],
)
def test_an_address_that_is_none_is_named_with_its_variable(monkeypatch, address, complaint):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError) as refusal:
        connect(Execution())
    sentence = str(refusal.value)
    assert sentence.startswith(f"RAY_ADDRESS={address}: {complaint}")
    assert "unset" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("address", ["", "local"])
def test_no_address_is_ray_of_this_machine(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster_address() is None


def test_an_address_at_which_nobody_listens(monkeypatch, nobody):
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(
        UserError, match=rf"^RAY_ADDRESS={nobody}: nobody answers there \(Connection refused\); correct"
    ):
        cluster_address()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"-ERR unknown command\r\n"])
def test_a_server_that_is_no_ray(monkeypatch, answer):
    with listening(answer) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=rf"^RAY_ADDRESS={address}: what answers there is no Ray; correct it"):
            cluster_address()


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(cluster, "_PROBE_SECONDS", 0.2)
    with listening(None) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=r"nobody answered within 0\.2 seconds"):
            cluster_address()


def test_a_server_that_greets_as_grpc_does_may_be_ray(monkeypatch):
    with listening(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00") as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert cluster_address().rpartition(":")[2] == address.rpartition(":")[2]


def test_an_address_file_of_a_ray_that_is_gone_is_named(temporary, nobody):
    file = temporary / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text(nobody)
    with pytest.raises(UserError) as refusal:
        connect(Execution())
    assert str(refusal.value).startswith(f"{file}: names a Ray at ")
    assert str(refusal.value).endswith("; delete the file, or start that Ray again")


@pytest.mark.parametrize("name", ["RAY_TRAIN_V2_ENABLED", "TUNE_DISABLE_SIGINT_HANDLER"])
def test_a_variable_of_another_project_that_we_cannot_run_with(name):
    program = "from s3ray.console import user_errors\nwith user_errors():\n    import s3ray.engine"
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, name: "0"}, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {name}=0: ")
    assert run.stderr.endswith("; unset it, or set it to 1\n")


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["too deep", "a file"])
def test_a_temporary_folder_that_ray_cannot_use(monkeypatch, temporary, kind):
    folder = temporary / "d".ljust(100, "d")
    if kind == "a file":
        folder.write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    started = time.monotonic()
    with pytest.raises(UserError) as refusal:
        connect(Execution())
    sentence = str(refusal.value)
    assert sentence.startswith("Ray cannot be started on this machine (")
    assert "set RAY_TMPDIR to a short path that you may write to" in sentence
    assert time.monotonic() - started < 60  # only catches a hang
