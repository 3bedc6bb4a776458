"""Who computes what, and whose result counts, whatever the network, the clocks and the machines do.

S3RAY_INTERLEAVINGS: how many are tried (`make faults`: 100,000); S3RAY_SEED: which, printed when it is drawn.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from s3ray.store import claims
from simulated import ViolationError, World

NUMBER = st.integers(0, 255)


class Machine(RuleBasedStateMachine):
    """Two or three processes that do the same sweep, and all that can come between them."""

    mutation: dict[str, bool] = {}

    @initialize(clocks=st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.9, 1.1)), min_size=2, max_size=3))
    def begin(self, clocks: list[tuple[float, float]]) -> None:
        self.world = World(clocks, **self.mutation)

    @rule(turns=st.binary(min_size=1, max_size=64))
    def go_on(self, turns: bytes) -> None:
        for number in turns:
            self.world.go_on(number)
            self.world.check()

    @rule(numbers=st.binary(min_size=1, max_size=8))
    def reorder(self, numbers: bytes) -> None:
        for number in numbers:
            self.world.reorder(number)
            self.world.check()

    def teardown(self) -> None:
        self.world.settle()


def _one(happens: str) -> None:
    def one(self: Machine, number: int) -> None:
        getattr(self.world, happens)(number)
        self.world.check()

    one.__name__ = happens
    setattr(Machine, happens, rule(number=NUMBER)(one))


for happens in ("time_out", "lose", "pause", "crash", "power_failure", "sync", "pass_time"):
    _one(happens)


def interleavings(count: int, numbers_seed: int | None = None, phases=(Phase.generate,), **mutation: bool) -> None:
    machine = type("Machine", (Machine,), {"mutation": mutation})
    test = settings(
        max_examples=count,
        stateful_step_count=20,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        derandomize=numbers_seed is None,
        deadline=None,
        database=None,
    )
    run_state_machine_as_test(machine, settings=test)


def test_it() -> None:
    t = time.time()
    interleavings(int(os.environ.get("S3RAY_INTERLEAVINGS", 1000)))
    print(time.time() - t)
