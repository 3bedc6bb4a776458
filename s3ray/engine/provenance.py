"""Where a result comes from: code, versions, hardware."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from s3ray.stages.collective import workers


def provenance(device: torch.device) -> dict[str, str | int]:
    """What goes into a commit marker beside the identity."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "code_revision": code_revision(),
        "s3ray": version("s3ray"),
        "torch": version("torch"),
        "scikit_learn": version("scikit-learn"),
        "ray": version("ray"),
        "python": platform.python_version(),
        "hardware": f"{platform.machine()} {hardware}",
        "workers": workers(),
    }


@functools.cache
def code_revision() -> str:
    """Commit of the checkout that this package runs from, with `+changes` if it has any; else `unknown`."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return "unknown"
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
