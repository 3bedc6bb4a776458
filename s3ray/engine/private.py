"""Every call that Ray does not document, and only here: written for Ray 2.60, to be read again with another version.

Each says which public call is missing. What is patched is given back.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._common import utils as common
from ray._private import accelerators, ray_constants, services, utils, worker
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated.gcs_pb2 import ActorTableData, PlacementGroupTableData  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest  # type: ignore[attr-defined]  # generated
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from s3ray.traces import began_at


def address_file() -> Path:
    """Where `ray start` leaves its address. Missing: its name; `ray.init` reads it without saying so."""
    return Path(common.get_ray_address_file(None))


def bootstrap_address() -> str | None:
    """The HOST:PORT to which `ray.init()` would connect; None if it would start Ray. Missing: asking without doing.

    Raises:
        ConnectionError: RAY_ADDRESS=auto, and no Ray runs here.
        OSError, ValueError: what is said to be an address is none.
    """
    # None is what ray.init passes.
    address: str | None = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    return address


def version_at(address: str, seconds: float) -> str:
    """The version of the Ray that answers at HOST:PORT. Missing: `ray.init` with a time limit, or a ping.

    Raises:
        grpc.RpcError: no Ray answers within `seconds`, or it wants another token.
        ray.exceptions.AuthenticationError: it wants a token, and there is none here.
        RuntimeError, OSError, ValueError: the certificates of this side cannot be used.
    """
    with init_grpc_channel(address) as channel:
        answer = NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=seconds)
    version: str = answer.ray_version
    return version


def machine_resources() -> tuple[float, float]:
    """CPUs and GPUs that Ray would give a node of this machine. Missing: asking before it is started."""
    manager = accelerators.get_accelerator_manager_for_resource("GPU")
    return float(utils.get_num_cpus()), float(manager.get_current_node_num_accelerators() if manager else 0)


def temporary_folder() -> str:
    """Where Ray puts its folder `ray`. Missing: `ray.init` has an option for it, but no question."""
    folder: str = common.get_default_system_temp_dir()
    return folder


def log_folder() -> Path:
    """The logs of the Ray of this machine that was started last. Missing: as `temporary_folder`."""
    return Path(common.get_default_ray_temp_dir(), "session_latest", "logs")


@contextmanager
def no_notes() -> Iterator[None]:
    """Keep the raylet's notes (such as the number of worker processes) off the terminal.

    Missing: they are printed past every log level, `log_to_driver=False` or not.
    """
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def no_signal_handlers() -> Iterator[None]:
    """Keep Ray from taking SIGTERM for itself, in Python and once more in C++. Missing: an option of `ray.init`."""
    handler, disabled = utils.set_sigterm_handler, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True  # the one in C++: a stack, then abort
    utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = handler
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = disabled


def before_processes_end(act: Callable[[], None]) -> None:
    """Have `ray.shutdown` call `act` before it ends the processes of a Ray that was started here; and end them all.

    Missing: a hook between its library's end, which lets go of SIGTERM, and that of the processes, which takes seconds.
    And workers that end with their raylet: now and then one hangs in its exit, for good.
    """
    if (node := worker._global_node) is None:
        return
    kill = node.kill_all_processes

    def act_and_kill(**options: Any) -> None:
        act()
        workers = _workers(node)
        kill(**options)
        _end(workers)

    node.kill_all_processes = act_and_kill


def missing_process() -> str | None:
    """Which of the processes that this one is connected to no longer listens; None if all do, or none is known.

    Missing: a death of its own node's raylet or of the head that Ray tells its driver of.
    """
    if (node := worker._global_node) is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as raylet:
            raylet.settimeout(5)
            raylet.connect(node.raylet_socket_name)
    except (TimeoutError, BlockingIOError):
        pass  # busy, and there; the second is a full queue
    except OSError:
        return f"Ray's raylet on this machine has died (its logs are in {node.get_logs_dir_path()})"
    host, _, port = node.gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()  # IPv6 has brackets only in URLs
    except OSError as error:
        return f"Ray's head at {node.gcs_address} no longer answers ({error.strerror or error})"
    return None


def kill_processes() -> None:
    """End the processes of a Ray that was started here, at once. Missing: `ray.shutdown` that asks nobody."""
    if (node := worker._global_node) is not None:  # of one that it only connected to, it has none
        # They would end by themselves, but not before they have told the head for a minute.
        workers = _workers(node)
        with suppress(Exception):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        _end(workers)


def _workers(node: Any) -> dict[int, int]:
    """The processes that the raylet has started, of a Ray that was started here, and since when they run."""
    raylets = [started.process.pid for started in node.all_processes.get(ray_constants.PROCESS_TYPE_RAYLET, ())]
    found: list[str] = []
    with suppress(OSError):
        for raylet in raylets:
            found += " ".join(file.read_text() for file in Path(f"/proc/{raylet}/task").glob("*/children")).split()
    workers: dict[int, int] = {}
    for number in map(int, found):
        with suppress(OSError):
            workers |= {number: began} if (began := began_at(number)) is not None else {}
    return workers


def _end(workers: dict[int, int]) -> None:
    for number, began in workers.items():
        with suppress(OSError):
            if began_at(number) == began:  # else it has ended, and the number may be another's
                os.kill(number, signal.SIGKILL)


def placement_groups() -> list[Any]:
    """Those of the cluster that are not removed, as `PlacementGroupTableData`.

    Missing: `ray.util.state` says it, but only where the dashboard runs, and `placement_group_table` not who made them.
    """
    found = [PlacementGroupTableData.FromString(group) for group in _accessor().get_placement_group_table()]
    return [group for group in found if group.state != PlacementGroupTableData.REMOVED]


def is_waiting(group: Any) -> bool:
    """Whether one of the `placement_groups` waits for its place."""
    return bool(group.state == PlacementGroupTableData.PENDING)


def owner_of(actor: bytes) -> str | None:
    """Id of the worker that made an actor; None if nothing is known of it. Missing: as `placement_groups`."""
    found = _accessor().get_actor_info(ray.ActorID(actor))
    owner: str | None = None if found is None else ActorTableData.FromString(found).owner_address.worker_id.hex()
    return owner


def _accessor() -> Any:
    return ray._private.state.state._connect_and_get_accessor()
