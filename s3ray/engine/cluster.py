"""Connecting to a cluster or starting a local one, its capacity, and what dead sweeps left on it."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.util.state
import yaml
from ray import PlacementGroupID
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


def local_capacity() -> Capacity | None:
    """This machine's capacity if `connect` would start Ray here; None if there is a cluster to connect to.

    Asked before Ray is started, so that a request that cannot fit costs nothing.
    """
    if canonicalize_bootstrap_address(None) is not None:  # type: ignore[arg-type]  # None is what ray.init passes
        return None
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
        logging.getLogger(name).setLevel(logging.ERROR)
    # The raylet's notes (such as the number of worker processes) come through here, past every log level.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def connect(execution: Execution) -> Capacity:
    """Connect to the cluster of RAY_ADDRESS or of this machine, or start Ray here.

    Returns:
        The capacity that the cluster can grow to: with autoscaling its configured maximum.

    Raises:
        UserError: this machine cannot hold one worker group (raised before Ray is started), the cluster cannot be
            reached, or S3RAY_MAX_CPUS or S3RAY_MAX_GPUS is no number.
    """
    local = local_capacity()
    quiet_ray(execution.verbose)
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
    except (ConnectionError, RayError) as error:
        address = os.environ.get("RAY_ADDRESS", "of this machine")
        raise UserError(
            f"Ray at {address}: cannot be reached ({str(error).splitlines()[0]}); check RAY_ADDRESS, and, if the "
            f"cluster wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
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
