"""Memory and time of the way from a MultiBench file to trials, at the full size of one dataset.

    python benchmarks/multibench_files.py [mosei] [FOLDER]

Simulates the file (3.7 GB for mosei) in FOLDER, prepares it, opens it, and lets eight processes read all of it at
once. Every figure is a ratio within this run. Needs Linux (/proc).
"""

import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from s3ray.data.dataset import Dataset
from s3ray.data.multibench import FILES
from s3ray.data.multibench.prepare import prepare
from s3ray.data.multibench.simulate import simulate

READERS = 8


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def proportional(path: Path) -> tuple[int, int]:
    """Proportional set size of this process in bytes: (all, of the files below `path`)."""
    total = mapped = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = str(path) in line
        elif line.startswith("Pss:"):
            size = 1024 * int(line.split()[1])
            total += size
            mapped += size * inside
    return total, mapped


def preparing(name: str, file: Path, folder: Path, answers: Any) -> None:
    before, started = status("VmRSS"), time.perf_counter()
    prepare(name, file, folder)
    answers.put((status("VmHWM") - before, time.perf_counter() - started))


def unpickling(file: Path, answers: Any) -> None:
    before = status("VmRSS")
    with file.open("rb") as stream:
        content = pickle.load(stream)
    for arrays in content.values():
        for key in ("vision", "audio", "text"):
            arrays[key] = arrays[key].astype(np.float32)
    answers.put(status("VmHWM") - before)


def reading(folder: Path, start: Any, measure: Any, answers: Any) -> None:
    start.wait()
    without, _ = proportional(folder)
    start.wait()
    started = time.perf_counter()
    data = Dataset.open(folder)
    opened = time.perf_counter() - started
    for split in data.splits.values():
        for first in range(0, len(split), 256):
            split.batch(np.arange(first, min(first + 256, len(split))))
    measure.wait()  # all have read everything
    total, mapped = proportional(folder)
    answers.put((opened, total, total - without, mapped))
    measure.wait()  # none leaves before all have measured


def in_process(target: Callable[..., None], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=target, args=(*arguments, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def readers(folder: Path, count: int) -> list[tuple[float, int, int, int]]:
    context = multiprocessing.get_context("spawn")
    answers, start, measure = context.Queue(), context.Barrier(count), context.Barrier(count)
    processes = [context.Process(target=reading, args=(folder, start, measure, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    answer = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return answer


def main(name: str = "mosei", parent: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        file = simulate(name, sum(FILES[name].samples.values()), folder)
        size = file.stat().st_size
        print(f"{file.name}: {size / 1e9:.2f} GB simulated in {time.perf_counter() - started:.0f} s")
        peak, seconds = in_process(preparing, name, file, folder)
        print(f"prepare: {seconds:.0f} s, peak resident memory {peak / size:.2f} × the file's size")
        print(f"pickle.load and float32: peak {in_process(unpickling, file) / size:.2f} × the file's size")
        prepared = folder / name
        on_disk = sum(entry.stat().st_size for entry in prepared.iterdir())
        print(f"prepared: {on_disk / 1e9:.2f} GB")
        one = np.array(readers(prepared, 1))
        eight = np.array(readers(prepared, READERS))
        print(f"open: {1e3 * one[0, 0]:.1f} ms; the slowest of eight at once: {1e3 * eight[:, 0].max():.1f} ms")
        print(f"proportional set size of {READERS} readers over one's:")
        for column, what in enumerate(("whole processes", "what reading added", "the mapped files"), start=1):
            print(f"  {what}: {eight[:, column].sum() / one[0, column]:.2f} × ({one[0, column] / 1e6:.0f} MB)")


if __name__ == "__main__":
    if not os.path.exists("/proc/self/smaps"):
        sys.exit("needs Linux: /proc/self/smaps is not there")
    main(*sys.argv[1:])
