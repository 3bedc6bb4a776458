"""One configuration's labels, for rows that are made by hand."""

from __future__ import annotations

from typing import Any

TOY: dict[str, Any] = {
    "dataset": "toy",
    "method": "s3",
    "kind": "simulated",
    "scale": "smoke",
    "granularity": 8,
    "batch_size": 64,
    "reading": "",
    "branch": "suff+min",
}
