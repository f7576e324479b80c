"""`replisome ui`, looked at in a real browser: it finds the run and its figures in the page."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.conftest import Demo

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium in a container, silent towards the network.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")
def url(demo: Demo) -> Iterator[str]:
    """The address of a served demo."""
    command = Path(sys.executable).with_name("replisome")
    server = subprocess.Popen(
        [command, "ui", "--runs", demo.runs, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    answer = json.loads(server.stdout.readline())
    yield answer["url"]
    server.send_signal(signal.SIGTERM)  # Ctrl-C comes the same way; a plain kill must too
    assert server.wait(timeout=30) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)


def find_browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):
        pytest.fail("CI looks at the page in a browser; .ci/run installs one")
    pytest.skip("no Chromium or Chrome on this machine (Debian: apt install chromium)")


def test_a_browser_finds_the_run_its_parameters_curves_and_figures(demo: Demo, url: str) -> None:
    from playwright.sync_api import Page, expect, sync_playwright

    run_id, name = demo.result["run_id"], demo.result["run"]

    def see(page: Page, text: str) -> None:
        expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1800})
        page.goto(f"{url}/#/experiments")
        page.get_by_role("link", name="danq", exact=True).first.click()
        page.goto(f"{url}/#/experiments/1/runs")
        page.get_by_role("link", name=name).first.click()
        page.wait_for_url(f"**/runs/{run_id}**")
        see(page, "Finished")
        see(page, f"genome.zarr ({demo.result['data_fingerprint'][:32]})")
        see(page, "AUROC / AUPR on the held-out test split")
        see(page, "data.fingerprint")
        see(page, demo.result["data_fingerprint"])
        see(page, "cut.danq")
        page.goto(f"{url}/#/experiments/1/runs/{run_id}/model-metrics")
        search = page.get_by_placeholder("Search metric charts")
        for curve in (
            "train/loss",
            "valid/loss",
            "valid/auroc/a_before_b",
            "danq-no-lstm/train/loss",
        ):
            search.fill(curve)
            see(page, f"{name} ({curve})")
        for score in ("test/auroc/motif_b", "6-mer-lr/test/aupr/motif_a"):
            search.fill(score)
            chart = page.get_by_role("heading", name=score.split("/")[-1], exact=True).first
            expect(chart).to_be_visible(timeout=60_000)
        page.goto(f"{url}/#/experiments/1/runs/{run_id}/system-metrics")
        see(page, "cpu_utilization_percentage")
        for figure in ("training", "roc", "precision_recall", "stages", "comparison"):
            page.goto(f"{url}/#/experiments/1/runs/{run_id}/artifacts/figures/{figure}.png")
            picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
            expect(picture).to_be_visible(timeout=60_000)
            width = picture.evaluate("img => img.complete ? img.naturalWidth : 0")
            assert width > 300, f"{figure}.png is not drawn"
        page.goto(f"{url}/#/models")
        see(page, "danq")
        browser.close()
