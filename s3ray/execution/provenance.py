"""Where a result comes from: code, versions, hardware."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

import torch

import s3ray
from s3ray.stages.collective import workers


def provenance(device: torch.device) -> dict[str, str | int]:
    """What goes into a commit marker beside the identity."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "code_revision": code_revision(),
        "s3ray": s3ray.__version__,
        "torch": version("torch"),
        "scikit_learn": version("scikit-learn"),
        "ray": version("ray"),
        "python": platform.python_version(),
        "machine": machine_kind(device),
        "hardware": f"{platform.machine()} {hardware}",
        "workers": workers(),
        "environment": environment_digest(),
    }


@functools.cache
def environment() -> str:
    """The packages that this process can import, with their versions, a line each, as `pip freeze` lists them."""
    return "".join(sorted({f"{package.metadata['Name']}=={package.version}\n" for package in distributions()}))


def environment_digest() -> str:
    """Names `environment` in markers and in the store."""
    return digest_of_environment(environment().encode())


def digest_of_environment(listed: bytes) -> str:
    return hashlib.sha256(listed).hexdigest()[:16]


def machine_kind(device: torch.device) -> str:
    """Type and instruction set or compute capability: what alone moves results by rounding, and seconds by much.

    It stands beside results, not in their identity: a store filled on GPUs serves a laptop.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda sm_{major}{minor}"
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def planned_machine(gpus_per_worker: float = 0.0) -> str | None:
    """The kind of machine that will run a plan, if known: this one, unless a cluster is named or GPUs are used."""
    known = os.environ.get("RAY_ADDRESS", "local") == "local" and not gpus_per_worker
    return machine_kind(torch.device("cpu")) if known else None


@functools.cache
def code_revision() -> str:
    """Which code ran: `S3RAY_REVISION` if set, the checkout's commit (`+changes` if it has any), or, where the
    package runs from a copy without its history, a hash of its sources."""
    if revision := os.environ.get("S3RAY_REVISION"):
        return revision
    package = Path(s3ray.__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() == package.parent:
            return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        pass
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return f"sources {digest.hexdigest()[:16]}"
