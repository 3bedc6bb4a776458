"""Connecting to a cluster or starting a local one, its capacity, and what dead sweeps left on it."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.util.state
import yaml
from ray import PlacementGroupID
from ray._common.network_utils import parse_address  # type: ignore[attr-defined]
from ray._common.utils import get_default_ray_temp_dir, get_ray_address_file
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import get_num_cpus
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state.exception import RayStateApiException

from s3ray.config import UserError
from s3ray.engine import ENVIRONMENT
from s3ray.engine.preflight import Capacity, Execution, cluster_capacity
from s3ray.store import Store

logger = logging.getLogger(__name__)

_LOCAL_OBJECT_STORE = 256 * 2**20  # bytes; results travel through the store, not through Ray


_PROBE_SECONDS = 3.0
# What a client of HTTP/2, and so of gRPC, says first, and then empty SETTINGS.
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def cluster_address() -> str | None:
    """HOST:PORT of the cluster that `ray.init` would connect to; None if it would start Ray here.

    Raises:
        UserError: nobody answers there, or it is no address of that kind. Ray itself would try for minutes.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    scheme, separator, _ = named.partition("://")
    if separator:
        reason = {
            "http": "is the dashboard's, which ray job submit --address takes",
            "https": "is the dashboard's, which ray job submit --address takes",
            "ray": "is Ray Client's, through which no sweep can run",
        }.get(scheme, "is none of Ray's")
        raise UserError(
            f"RAY_ADDRESS={named}: this address {reason}; submit the sweep as a job, or, on a machine of the cluster, "
            f"set RAY_ADDRESS to HOST:PORT of its head (unset: the cluster of this machine, or Ray starts here)"
        )
    try:
        address = canonicalize_bootstrap_address(None)  # type: ignore[arg-type]  # None is what ray.init passes
    except (ValueError, OSError) as error:  # ConnectionError: "auto", and there is no cluster
        raise UserError(
            f"RAY_ADDRESS={named}: leads to no cluster ({_sentence(error)}); correct it, or unset it to start Ray here"
        ) from error
    if address is None or (complaint := _complaint(address)) is None:
        return address
    if named not in ("", "auto"):
        raise UserError(f"RAY_ADDRESS={named}: {complaint}; correct it, or unset it to start Ray here")
    file = get_ray_address_file(None)
    raise UserError(f"{file}: names a Ray at {address}, and {complaint}; delete the file, or start that Ray again")


def _complaint(address: str) -> str | None:
    """What keeps this address from being a Ray's; None if one seems to listen there."""
    host, port = parse_address(address) or (address, "")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return None
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(_HTTP2_GREETING)
            answer = connection.recv(9)
    except (ValueError, OverflowError):
        return "its port is none"
    except TimeoutError:
        return f"nobody answered within {_PROBE_SECONDS:g} seconds"
    except OSError as error:
        return f"nobody answers there ({error.strerror or error})"
    return None if answer[3:4] == b"\x04" else "what answers there is no Ray"  # its SETTINGS


def _sentence(error: BaseException) -> str:
    """An error of Ray's in one line: theirs go over several, some a page long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"


def local_capacity() -> Capacity:
    """This machine's capacity. Asked before Ray is started, so that a request that cannot fit costs nothing."""
    accelerators = ray._private.accelerators.get_accelerator_manager_for_resource("GPU")
    gpus = accelerators.get_current_node_num_accelerators() if accelerators else 0
    return Capacity(float(get_num_cpus()), float(gpus), 1, is_local=True)


def quiet_ray(verbose: bool) -> None:
    """Keep Ray's own chatter off the terminal, in this process and those it starts."""
    if verbose:
        return
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's new reporter prints even at verbosity 0
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    warnings.filterwarnings("ignore", module=r"ray\..*")
    for name in ("ray", "ray.tune", "ray.train"):
        # Errors too: what fails is said in our own words, and Tune's are pages of traceback.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # The raylet's notes (such as the number of worker processes) come through here, past every log level.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def keep_signals() -> None:
    """Let signals end the sweep as everywhere else (console.py): Ray's handlers exit in their own ways, with a C++
    stack or without a word."""
    ray._private.ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    ray._private.utils.set_sigterm_handler = lambda handler: None


def connect(execution: Execution) -> Capacity:
    """Connect to the cluster of RAY_ADDRESS or of this machine, or start Ray here.

    Returns:
        The capacity that the cluster can grow to: with autoscaling its configured maximum.

    Raises:
        UserError: this machine cannot hold one worker group (raised before Ray is started), Ray cannot be started or
            the cluster not be reached, or S3RAY_MAX_CPUS or S3RAY_MAX_GPUS is no number.
    """
    address = cluster_address()
    local = local_capacity() if address is None else None
    quiet_ray(execution.verbose)
    keep_signals()
    options: dict[str, Any] = {
        "log_to_driver": execution.verbose,
        "logging_level": logging.INFO if execution.verbose else logging.ERROR,
    }
    if local is not None:
        local.slots(execution)
        # No dashboard for a cluster that ends with this process; `ray start --head` gives one that stays.
        options |= {"include_dashboard": False, "object_store_memory": _LOCAL_OBJECT_STORE}
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody preempts this machine
    else:
        # Processes on other machines do not inherit this one's environment.
        variables = {name: os.environ[name] for name in ENVIRONMENT}
        variables["RAY_TRAIN_ENABLE_STATE_TRACKING"] = "1"  # Train runs in the dashboard
        options |= {"runtime_env": {"env_vars": variables}}
    try:
        ray.init(**options)
    except Exception as error:  # whatever it is, it is one sentence
        if local is None:
            raise UserError(
                f"Ray at {address}: cannot be reached ({_sentence(error)}); check RAY_ADDRESS, and, if the "
                f"cluster wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            ) from error
        folder = get_default_ray_temp_dir()
        raise UserError(
            f"Ray cannot be started on this machine ({_sentence(error)}); set RAY_TMPDIR to a short path that you may "
            f"write to, on a disk with room, or see what is in {folder}/session_latest/logs"
        ) from error
    if local is not None:
        return local
    reap_placement_groups()
    return cluster_capacity(ray.cluster_resources(), len(alive_nodes()), autoscaling_config())


def autoscaling_config() -> dict[str, Any] | None:
    """What the autoscaler of this cluster may add; None without one, or if this process is not on its node.

    Ray tells nobody how far a cluster can grow; but its autoscaler runs beside the head, with the file on its
    command line.
    """
    address = ray.get_runtime_context().gcs_address
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        options = dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part)
        if "--autoscaling-config" in options and options.get("--gcs-address") == address:
            path = Path(options["--autoscaling-config"]).expanduser()
            config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
            return config
    return None


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
    try:
        groups = ray.util.state.list_placement_groups(detail=True, limit=10_000)
        alive = {job.job_id for job in ray.util.state.list_jobs(limit=10_000) if job.status in ("RUNNING", "PENDING")}
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
