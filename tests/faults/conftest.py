"""What became of each fault, told in one table at the end of the session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

# A worker of pytest-xdist sends its lines to the process that prints them.
_LINES = "faults_tally"


class FaultsTally:
    """Counts faults by their kind; the seed with which the same ones come again."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool, int]] = []

    def add(self, kind: str, survived: bool, seed: int) -> None:
        self.lines.append((kind, survived, seed))


def table(lines: Iterable[tuple[str, bool, int]]) -> list[str]:
    """Per kind how many were tried and survived, all of them last."""
    told = [(kind, survived, seed) for kind, survived, seed in lines]
    tried, survived = Counter(kind for kind, _, _ in told), Counter(kind for kind, held, _ in told if held)
    rows = [(kind, str(tried[kind]), str(survived[kind])) for kind in sorted(tried)]
    rows = [("fault", "tried", "survived"), *rows, ("all", str(tried.total()), str(survived.total()))]
    width = max(len(kind) for kind, _, _ in rows)
    seeds = ", ".join(str(seed) for seed in sorted({seed for _, _, seed in told}))
    return [f"{kind:<{width}}  {one:>5}  {other:>8}" for kind, one, other in rows] + [f"seed {seeds}"]


_tally = pytest.StashKey[FaultsTally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_tally] = FaultsTally()


@pytest.fixture(scope="session")
def faults_tally(request: pytest.FixtureRequest) -> FaultsTally:
    """`add(kind, survived, seed)` for each fault."""
    return request.config.stash[_tally]


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_LINES] = session.config.stash[_tally].lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    received = getattr(node, "workeroutput", {}).get(_LINES, [])
    config = node.config  # type: ignore[attr-defined]
    config.stash[_tally].lines += [tuple(line) for line in received]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[_tally].lines:
        terminalreporter.section("faults")
        for line in table(lines):
            terminalreporter.write_line(line)
