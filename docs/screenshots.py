"""Takes the README's picture of a report: `python docs/screenshots.py`, with what `nox -s browser` installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
SYSTEMS = ("encodec_tiny@6", "encodec_tiny@1.5", "dac_tiny@3", "snac_tiny", "opus@6", "opus@12")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        asked = [part for name in SYSTEMS for part in ("-c", name)]
        command = ["compare", ROOT / "examples" / "speech.flac", *asked, "-o", report]
        subprocess.run([sys.executable, "-m", "blazen_codec_core.cli.main", *command], check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1560})
        page.goto(report.as_uri())
        page.get_by_role("radio", name="snac_tiny").check()
        page.locator(".image.level").first.click(position={"x": 420, "y": 40})
        page.get_by_role("radio", name="snac_tiny").check()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=ROOT / "docs" / "compare.jpg", type="jpeg", quality=88)
        browser.close()


if __name__ == "__main__":
    main()
