"""How long a report takes to open in headless Chromium: `python benchmarks/report_opening.py FOLDER [TIMES]`.

FOLDER is what `s3ray report --output` wrote. Seconds from navigationStart until the page has loaded, and until
the first and the last figure is drawn; the median of TIMES openings (5), each in a browser of its own, so
that none finds a compiled script of the last.
"""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
DRAWN = "return [...document.querySelectorAll('.figure')].every(e => e.querySelector('.curve, .main-svg .trace'))"
# The page marks every figure that it has drawn: while it draws, it answers no questions.
TIMES = """
const figures = performance.getEntriesByName("figure").map(mark => mark.startTime);
const { loadEventEnd, navigationStart } = performance.timing;
return [loadEventEnd - navigationStart, Math.min(...figures), Math.max(...figures)];
"""


def opened(page: Path) -> list[float]:
    """Seconds until `page` was loaded, its first and its last figure drawn."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            browser.get(page.as_uri())
            WebDriverWait(browser, 120, poll_frequency=0.02).until(lambda browser: browser.execute_script(DRAWN))
            return [milliseconds / 1000 for milliseconds in browser.execute_script(TIMES)]
        finally:
            browser.quit()


def main(folder: str, times: str = "5") -> None:
    page = Path(folder).resolve() / "index.html"
    print(f"{page.stat().st_size / 1e6:.1f} MB")
    measured = zip(*(opened(page) for _ in range(int(times))), strict=True)
    for name, seconds in zip(("loaded", "first figure drawn", "last figure drawn"), measured, strict=True):
        print(f"{name}: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
