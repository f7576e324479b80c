"""A sweep's pages in a real browser: nested trials, interactive pictures, comparison, registry."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.sweep.conftest import Sweeps, finish
from tests.jobs.sweep.test_storage import TINY
from tests.jobs.test_ui import FLAGS, find_browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    """A sweep of four trials."""
    folder = tmp_path_factory.mktemp("swept")
    space = folder / "space.toml"
    space.write_text(
        '["optimizer.lr"]\nlow = 1e-3\nhigh = 1e-1\nlog = true\n[seed]\nlow = 0\nhigh = 9\n'
    )
    sweeps = Sweeps(tiny_data, folder)
    flags = (*TINY, space, "--set", "batch_size=20", "--trials", "4", "--pruner", "none")
    answer = finish(sweeps.begin("s", *flags))
    assert answer["counts"]["complete"] == 4, sweeps.said()
    return sweeps


@pytest.fixture(scope="module")
def url(swept: Sweeps) -> Iterator[str]:
    command = Path(sys.executable).with_name("replisome")
    server = subprocess.Popen(
        [command, "ui", "--runs", swept.runs, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    yield json.loads(server.stdout.readline())["url"]
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0


def test_a_browser_finds_trials_below_their_sweep_its_pictures_and_the_best_model(
    swept: Sweeps, url: str
) -> None:
    from playwright.sync_api import expect, sync_playwright

    from jobs.tracking import open_store

    client = open_store(swept.runs)
    [parent] = client.search_runs(["1"], "tags.`replisome.phase` = 'sweep'")
    trials: list[Any] = client.search_runs(["1"], "tags.`replisome.phase` = 'trial'")
    assert len(trials) == 4
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1800})

        def see(text: str) -> None:
            expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)

        page.goto(f"{url}/#/experiments/1/runs/{parent.info.run_id}")
        see("4 trials")
        see("sweep.space")
        page.goto(f"{url}/#/experiments/1/runs/{parent.info.run_id}/artifacts/figures/sweep.html")
        frame = page.frame_locator("iframe")
        expect(frame.get_by_text("Parallel coordinates").first).to_be_visible(timeout=60_000)
        page.goto(f"{url}/#/experiments/1/runs/{trials[0].info.run_id}")
        see("Parent run")
        see("optimizer.lr")
        ids = json.dumps([run.info.run_id for run in trials[:2]])
        page.goto(f'{url}/#/compare-runs?runs={ids}&experiments=["1"]')
        see("objective/loss")
        see("optimizer.lr")
        page.goto(f"{url}/#/models/danq")
        see("best-of-s")
        browser.close()
