"""Against a real head with dashboard, started for these tests on loopback."""

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LEAK = """
@ray.remote(num_cpus=0)
class Survivor:
    "Outlives its job and holds placement groups, as what a dead driver leaves behind does."
    def hold(self):
        self.groups = [ray.util.placement_group([{"CPU": 1}], name=name) for name in ("", "somebody's")]
        ray.get([group.ready() for group in self.groups])
        return [group.id.hex() for group in self.groups]

ray.init(logging_level="ERROR")
survivor = Survivor.options(name="survivor", namespace="leak", lifetime="detached").remote()
print(*ray.get(survivor.hold.remote()))
"""

REAP = """
capacity = connect(Execution())
print(capacity.cpus, capacity.nodes, cluster_address() is not None)
deadline = time.monotonic() + 30
while (available := ray.available_resources().get("CPU", 0.0)) < 1 and time.monotonic() < deadline:
    time.sleep(0.2)
print(available)
states = {group.placement_group_id: group.state for group in ray.util.state.list_placement_groups()}
print(*(f"{identifier}:{state}" for identifier, state in states.items()))
"""


GROWS = """
import os
os.environ |= {"S3RAY_MAX_CPUS": "32", "S3RAY_MAX_GPUS": "8"}
capacity = connect(Execution())
print(capacity.cpus, capacity.gpus, capacity.nodes)
"""


def test_a_cluster_that_grows_counts_as_what_its_file_says(head):
    grown = head.python(GROWS)
    assert grown.stdout.split() == ["32.0", "8.0", "2"], grown.stderr


def test_leaked_placement_groups_are_removed_and_others_are_not(head):
    leaked = head.python(LEAK)
    assert leaked.returncode == 0, leaked.stderr
    anonymous, named = leaked.stdout.split()
    reaped = head.python(REAP)
    assert reaped.returncode == 0, reaped.stderr
    capacity, available, states = reaped.stdout.splitlines()
    assert capacity == "2.0 1 True"
    assert float(available) == 1.0
    assert {f"{anonymous}:REMOVED", f"{named}:CREATED"} <= set(states.split())
