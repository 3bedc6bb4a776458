"""Connecting to a cluster or starting a local one, its capacity, and what dead sweeps left on it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import ray
import ray.util.state
from ray import PlacementGroupID
from ray.exceptions import AuthenticationError, RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state.exception import RayStateApiException

from s3ray.data.memory import free_memory
from s3ray.engine import ENVIRONMENT, private
from s3ray.engine.preflight import Capacity, Execution, cluster_capacity
from s3ray.errors import UserError
from s3ray.store import Store

logger = logging.getLogger(__name__)

_LOCAL_OBJECT_STORE = 256 * 2**20  # bytes; results travel through the store, not through Ray

# Of a Ray that is started here and ends with the sweep.
_OF_OWN_RAY = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody preempts this machine
    # Else the head remembers the last 100,000 calls, some 4 kB each, for a dashboard that is not there; every look of
    # Train's controllers at their workers is one.
    "RAY_task_events_report_interval_ms": "0",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where Ray is said to run."""

    address: str  # HOST:PORT of its GCS
    source: str  # the variable or file that says so, for people
    remedy: str


def cluster_address() -> Address | None:
    """The Ray to connect to; None if it is to be started here. Nothing is contacted.

    Raises:
        UserError: RAY_ADDRESS or the address file that `ray start` leaves is no address.
    """
    value = os.environ.get("RAY_ADDRESS", "")
    scheme, separator, _ = value.partition("://")
    if separator and scheme in ("http", "https"):
        raise UserError(
            f"RAY_ADDRESS={value}: is a dashboard, to which jobs are submitted (ray job submit -- python …); to run "
            f"from here set HOST:PORT of a Ray whose node this is, or RAY_ADDRESS=local to start Ray on this machine"
        )
    if separator:
        raise UserError(
            f"RAY_ADDRESS={value}: Ray Client and its like are not supported; submit a job (ray job submit), or set "
            f"HOST:PORT of a Ray whose node this is, or RAY_ADDRESS=local to start Ray on this machine"
        )
    file = private.address_file()
    if value not in ("", "auto"):
        source = f"RAY_ADDRESS={value}"
        remedy = "correct it, or set RAY_ADDRESS=local to start Ray on this machine"
    elif file.exists():
        source = str(file)
        remedy = "delete the file if that Ray is gone, or set RAY_ADDRESS=local to start Ray on this machine"
    else:
        source, remedy = "RAY_ADDRESS=auto", "start one (ray start --head), or unset it to start Ray on this machine"
    try:
        address = private.bootstrap_address()
    except ConnectionError:
        raise UserError(f"{source}: no Ray runs on this machine; {remedy}") from None
    except (OSError, ValueError):
        raise UserError(f"{source}: is no HOST:PORT of a Ray; {remedy}") from None
    if address is None:
        return None
    port = address.rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"{source}: is no HOST:PORT of a Ray; {remedy}")
    return Address(address, source, remedy)


def local_capacity() -> Capacity | None:
    """This machine's capacity if `connected` would start Ray here; None if there is a cluster to connect to.

    Asked before Ray is started, so that a request that cannot fit costs nothing.
    """
    if cluster_address() is not None:
        return None
    free = free_memory()
    return Capacity(*private.machine_resources(), 1, is_local=True, memory=() if free is None else (float(free),))


def check_answers(at: Address, seconds: float = 5.0) -> None:
    """UserError unless a Ray of this version answers there, within seconds: ray.init tries for a quarter of an hour."""
    try:
        version = private.version_at(at.address, seconds)
    except grpc.RpcError as error:
        match error.code():
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                raise _wants_token(at, "not this one") from None
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                reason = f"no answer in {seconds:g} s"
            case grpc.StatusCode.UNIMPLEMENTED:
                reason = "something else listens there"
            case _:
                details = error.details() or ""
                reason = (
                    "something else listens there" if "HTTP/2" in details else details.rpartition(": ")[2].strip()
                ) or str(error.code())
        raise UserError(f"{at.source}: no Ray answers at {at.address} ({reason}); {at.remedy}") from None
    except AuthenticationError:
        raise _wants_token(at, "there is none here") from None
    except (RuntimeError, OSError, ValueError):  # no certificates
        return  # ray.init says it in words of its own
    if version and version != ray.__version__:
        raise UserError(
            f"{at.source}: runs Ray {version}, this is Ray {ray.__version__}; install the cluster's version here"
        )


def _wants_token(at: Address, reason: str) -> UserError:
    return UserError(
        f"{at.source}: cannot be reached, since the cluster wants a token, and {reason}; set RAY_AUTH_MODE=token and "
        f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    )


# What Ray puts below its temporary folder, at its longest; the numbers are date, time and process.
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_SOCKET_BYTES = 107  # a Unix socket's path


def check_temporary_folder() -> None:
    """UserError unless Ray can keep its sockets and logs in the temporary folder."""
    folder = private.temporary_folder()
    named = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name) == folder), None)
    where = f"{named}={folder}" if named else folder
    remedy = "set RAY_TMPDIR to a short folder that you may write to, such as RAY_TMPDIR=/tmp"
    if excess := max(len(os.fsencode(os.path.abspath(os.path.join(folder, _SOCKET)))) - _SOCKET_BYTES, 0):
        raise UserError(
            f"{where}: {excess} bytes too long, since Ray's sockets below it may have {_SOCKET_BYTES}; {remedy}"
        )
    try:
        inside = os.path.join(folder, "ray")
        os.makedirs(inside, exist_ok=True)
        with tempfile.TemporaryFile(dir=inside) as file:
            file.write(bytes(2**20))  # a full disk takes an empty file
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{where}: Ray cannot write there ({reason}); {remedy}") from None


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while, unless they are set already; what Ray adds meanwhile goes with them."""
    before = set(os.environ)
    for name, value in values.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in os.environ.keys() - before:
            if name.startswith(("RAY_", "TUNE_")) or name == "PYTHONBREAKPOINT":
                del os.environ[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own chatter off the terminal for a while, in this process and those it starts."""
    quiet = {
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's new reporter prints even at verbosity 0
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    # Tune and Train log every failed attempt with its traceback; the cause is in our own line.
    levels = {logger: logger.level for logger in map(logging.getLogger, ("ray", "ray.tune", "ray.train"))}
    with _variables(quiet), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\..*")
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


@contextmanager
def connected(execution: Execution) -> Iterator[Capacity]:
    """Use the Ray that this process has, or connect to that of RAY_ADDRESS or of this machine, or start one here.

    Leaves everything as it was: what is begun here ends here, a Ray that this process had before stays.

    Yields:
        The capacity that the cluster can grow to, as S3RAY_MAX_CPUS and S3RAY_MAX_GPUS declare it, else what is there.

    Raises:
        UserError: this machine cannot hold one worker group or Ray's files (raised before Ray is started), the cluster
            cannot be reached or Ray not be started, or S3RAY_MAX_CPUS or S3RAY_MAX_GPUS is no number.
    """
    with ExitStack() as restored:
        restored.enter_context(_variables(ENVIRONMENT))
        if not execution.verbose:
            restored.enter_context(_quiet())
        if ray.is_initialized():
            yield _capacity()
            return
        if not execution.verbose:
            restored.enter_context(private.no_notes())
        if (address := cluster_address()) is None:
            restored.enter_context(_variables(_OF_OWN_RAY))
        try:
            yield _connect(address, execution)
        finally:
            _disconnect()


def _connect(address: Address | None, execution: Execution) -> Capacity:
    local = local_capacity()
    options: dict[str, Any] = {
        "log_to_driver": execution.verbose,
        "logging_level": logging.INFO if execution.verbose else logging.CRITICAL,
    }
    if local is not None:
        local.slots(execution)
        check_temporary_folder()
        # No dashboard for a cluster that ends with this process; `ray start --head` gives one that stays.
        options |= {"include_dashboard": False, "object_store_memory": _LOCAL_OBJECT_STORE}
    elif address is not None:
        check_answers(address)
        # Processes on other machines do not inherit this one's environment.
        inherited = {name: os.environ[name] for name in ENVIRONMENT}
        inherited["RAY_TRAIN_ENABLE_STATE_TRACKING"] = "1"  # Train runs in the dashboard
        options |= {"runtime_env": {"env_vars": inherited}}
    try:
        with own_signals():
            ray.init(**options)
    except Exception as error:  # whatever it is, it is not a bug of the sweep that asked
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if address is None:
            raise UserError(
                f"Ray cannot be started on this machine ({reason}); see its logs in {private.log_folder()}, or set "
                f"RAY_TMPDIR to another folder"
            ) from error
        raise UserError(
            f"Ray at {address.address}: cannot be reached ({reason}); check {address.source.partition('=')[0]}, and, "
            f"if the cluster wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from error
    return local or _capacity()


def _capacity() -> Capacity:
    """Of the Ray that this process is connected to, once what dead sweeps left on it is gone."""
    reap_placement_groups()
    held = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    memory = tuple(one["memory"] for one in held if one.get("CPU") and one.get("memory"))
    return cluster_capacity(ray.cluster_resources(), len(held), memory)


def _disconnect() -> None:
    with own_signals() as restore:
        # An impatient second signal must not leave half of the processes behind.
        private.before_processes_end(restore)
        ray.shutdown()


@contextmanager
def own_signals() -> Iterator[Callable[[], None]]:
    """Keep this process's way of ending: Ray takes SIGTERM for itself, in Python and once more in C++.

    Yields:
        The function that gives the signals back to those who had them; called at the end, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def restore() -> None:
        for number, handler in ours.items():
            if handler is not None:  # None: set by other code than Python's
                signal.signal(number, handler)

    try:
        with private.no_signal_handlers():
            yield restore
    finally:
        restore()


def log_folder() -> str:
    """Where Ray keeps its logs on this machine, for people: HOST:FOLDER."""
    context = ray.get_runtime_context()
    return f"{socket.gethostname()}:{context.get_temp_dir()}/{context.get_session_name()}/logs"


def alive_nodes() -> list[str]:
    """Ids of the nodes that are up."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def check_nodes_can_write(storage: str) -> None:
    """UserError unless every node that is up can write the store; the driver's own access proves nothing."""

    @ray.remote(num_cpus=0, max_retries=0)
    def check() -> str | None:
        try:
            Store(storage).check_writable()
        except UserError as error:
            return str(error)
        return None

    pending = {
        check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=True)).remote(): n
        for n in alive_nodes()
    }
    for reference, node in pending.items():
        if (complaint := ray.get(reference)) is not None:
            raise UserError(f"{complaint} (on node {node[:12]})")


def reap_placement_groups() -> list[str]:
    """Remove the placement groups whose creating job is over; returns their ids.

    A driver that dies can leave the placement groups of its Train runs behind, and with them the resources.
    Those of Train have no name and are not detached; named ones (such as Ray Serve's) are not ours to remove.
    """
    # Left to itself it looks for a Ray of this machine, where others may run beside ours.
    ours: dict[str, Any] = {"address": ray.get_runtime_context().gcs_address, "limit": 10_000}
    try:
        groups = ray.util.state.list_placement_groups(detail=True, **ours)
        alive = {job.job_id for job in ray.util.state.list_jobs(**ours) if job.status in ("RUNNING", "PENDING")}
    except (
        RayError,
        RayStateApiException,
        OSError,
        ValueError,
    ) as error:  # the cluster runs without the dashboard, which answers this
        logger.warning("cannot look for leaked placement groups: %s", error)
        return []
    leaked = [
        group.placement_group_id
        for group in groups
        if group.state != "REMOVED" and not group.is_detached and not group.name and group.creator_job_id not in alive
    ]
    for identifier in leaked:
        ray.util.remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(identifier)))
    return leaked


def free_placement_groups() -> None:
    """Remove what the Train runs of this process hold, all of which are over.

    A worker group that fails while its backend starts is forgotten by Train's controller, and its CPUs with it, for as
    long as the job lasts.
    """
    me = ray.get_runtime_context().get_worker_id()
    for group in private.placement_groups():
        if group.creator_actor_id and private.owner_of(group.creator_actor_id) == me:
            ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def waiting_for() -> str:
    """What is known of why nothing runs: the worker groups that wait for a place, and what the cluster has free."""
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    wanted: Counter[str] = Counter()
    waiting = 0
    for group in private.placement_groups():
        if group.creator_job_id == job and private.is_waiting(group):
            waiting += 1
            for bundle in group.bundles:
                wanted.update(bundle.unit_resources)
    if not waiting:
        return "worker groups are starting"
    held, free = ray.cluster_resources(), ray.available_resources()
    places = ", ".join(
        f"{amount:g} {name} of which {free.get(name, 0.0):g} of {held.get(name, 0.0):g} are free"
        for name, amount in sorted(wanted.items())
    )
    return f"{waiting} worker groups wait for {places}"
