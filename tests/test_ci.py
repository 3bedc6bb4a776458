"""What `.ci/run` decides before it runs anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CONDITION = re.search(
    r"^if (.*); then\n    apt-get", Path(__file__).parents[1].joinpath(".ci", "run").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(
    ("present", "installs"),
    [((), True), (("chromium",), True), (("chromedriver",), True), (("chromium", "chromedriver"), False)],
)
def test_a_browser_without_its_driver_is_installed_again(
    tmp_path: Path, present: tuple[str, ...], installs: bool
) -> None:
    assert CONDITION is not None
    for name in present:
        (tmp_path / name).touch(mode=0o755)
    bash = shutil.which("bash")
    assert bash is not None
    ended = subprocess.run(
        [bash, "-euo", "pipefail", "-c", f"if {CONDITION[1]}; then exit 7; fi"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (7 if installs else 0, ""), ended.stderr
