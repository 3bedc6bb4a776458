"""Who computes what, and whose result counts, whatever networks, clocks, processes and machines do.

S3RAY_INTERLEAVINGS: how many are tried (`make faults`: 100,000). S3RAY_SEED: which; without one the same in every run.
A mutation of the protocol must be found out: what holds without the condition would show nothing.
"""

from __future__ import annotations

import os
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from s3ray.store import claims
from simulated import ViolationError, World, simulated

NUMBERS = st.integers(0, 255)
TURNS = st.binary(min_size=8, max_size=40)
CLOCKS = st.tuples(
    st.floats(-1e6, 1e6), st.floats(0.82, 1.2)
)  # an offset and a rate: one is not half as fast again as another


class Machine(RuleBasedStateMachine):
    """Two or three processes with the same sweep, and what comes between them; in the end all is done."""

    synced: ClassVar[bool] = True

    @initialize(clocks=st.lists(CLOCKS, min_size=2, max_size=3), fetching=st.integers(0, 7))
    def begin(self, clocks: list[tuple[float, float]], fetching: int) -> None:
        # Fetched data cost as much time as all the rest: every eighth time.
        self.world = World(clocks, fetching=fetching == 7, synced=self.synced)

    def go_on(self, turns: bytes) -> None:
        for turn in turns:
            self.world.go_on(turn)

    @rule(turns=TURNS)
    def nothing_happens(self, turns: bytes) -> None:
        self.go_on(turns)

    @rule(request=NUMBERS, times=st.integers(1, 2), turns=TURNS)
    def a_request_overtakes_or_is_repeated(self, request: int, times: int, turns: bytes) -> None:
        for _ in range(times):
            self.world.carry_out(request)
        self.go_on(turns)

    @rule(request=NUMBERS, turns=TURNS)
    def a_reply_times_out(self, request: int, turns: bytes) -> None:
        self.world.time_out(request)
        self.go_on(turns)

    @rule(request=NUMBERS, turns=TURNS)
    def a_request_or_its_reply_is_lost(self, request: int, turns: bytes) -> None:
        self.world.lose(request)
        self.go_on(turns)

    @rule(process=NUMBERS, turns=TURNS)
    def a_process_stands_still_or_goes_on(self, process: int, turns: bytes) -> None:
        self.world.pause(process)
        self.go_on(turns)

    @rule(seconds=st.integers(1, 60), turns=TURNS)
    def time_passes(self, seconds: int, turns: bytes) -> None:
        self.world.pass_time(seconds)
        self.go_on(turns)

    @rule(process=NUMBERS, turns=TURNS)
    def a_process_is_killed(self, process: int, turns: bytes) -> None:
        self.world.crash(process)
        self.go_on(turns)

    @rule(file=NUMBERS, turns=TURNS)
    def a_bit_flips(self, file: int, turns: bytes) -> None:
        self.world.damage(file)
        self.go_on(turns)

    @rule(keys=st.binary(max_size=8), turns=TURNS)
    def the_power_fails(self, keys: bytes, turns: bytes) -> None:
        for key in keys:  # what the disk has kept, had nobody asked it to
            self.world.sync(key)
        self.world.power_failure()
        self.go_on(turns)

    def teardown(self) -> None:
        try:
            self.world.settle()
        finally:
            self.world.end()


def interleavings(count: int, *, shrink: bool = False, synced: bool = True) -> None:
    """Try that many.

    Raises:
        ViolationError: one of them has led to what must never be.
    """
    machine = type("Machine", (Machine,), {"synced": synced})
    number = os.environ.get("S3RAY_SEED")
    chosen = settings(
        max_examples=count,
        stateful_step_count=10,
        derandomize=number is None,
        phases=[Phase.generate, *[Phase.shrink] * shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with simulated():
        run_state_machine_as_test(seed(int(number))(machine) if number is not None else machine, settings=chosen)


@pytest.mark.slow  # ten seconds
def test_nothing_is_done_twice_or_lost_and_all_ends() -> None:
    interleavings(int(os.environ.get("S3RAY_INTERLEAVINGS", "1000")), shrink=True)


def test_without_the_sync_it_is_found_out() -> None:
    with pytest.raises(ViolationError):
        interleavings(300, synced=False)
