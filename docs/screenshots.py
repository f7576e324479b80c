"""Takes the pictures of MLflow that the docs show, from a runs folder with a training and a sweep.

    replisome demo
    replisome sweep danq --data demo/seed-0/genome.zarr --size small --epochs 2 \
        --trials 8 --name lr-and-batch
    python docs/screenshots.py runs

Needs Chromium or Chrome, and playwright (``pip install -e .[dev]``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = {"width": 1360, "height": 1000}
PATIENCE, SETTLED = 60_000, 3_000  # milliseconds until a page is there, and its charts in place

RELATIVE = """folder => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode())
        walk.currentNode.data = walk.currentNode.data.replaceAll(folder, "");
}"""  # takes the folder of the runs out of what a page shows


def main() -> None:
    """Serve the runs, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of runs")
    options = parser.parse_args()
    command = [Path(sys.executable).with_name("replisome"), "ui", "--runs", options.runs]
    with subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            take(json.loads(server.stdout.readline())["url"], options.runs)
        finally:
            server.send_signal(signal.SIGTERM)


def newest(runs: Path, phase: str) -> list[Any]:
    """Return the runs of a phase, the newest first."""
    from jobs.tracking import open_store

    client = open_store(runs)
    experiment = client.get_experiment_by_name("danq")
    return list(
        client.search_runs(
            [experiment.experiment_id],
            f"tags.`replisome.phase` = '{phase}'",
            order_by=["attributes.start_time DESC"],
        )
    )


def take(url: str, runs: Path) -> None:
    """Take all pictures."""
    from playwright.sync_api import sync_playwright

    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    [training, *_], trials = newest(runs, "train"), newest(runs, "trial")
    experiment = training.info.experiment_id
    home = f"{url}/#/experiments/{experiment}"
    several = json.dumps([trial.info.run_id for trial in trials[:6]])
    run = f"{home}/runs/{training.info.run_id}"
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]

        def picture(name: str, address: str, *, shows: str, find: str = "") -> None:
            """Go to a page, wait until it shows something, and take its picture."""
            page.goto("about:blank")
            page.goto(address)
            if find:
                page.get_by_placeholder("Search metric charts").fill(find, timeout=PATIENCE)
            page.get_by_text(shows).first.wait_for(timeout=PATIENCE)
            page.wait_for_timeout(SETTLED)
            page.evaluate(RELATIVE, f"{runs.resolve().parent}/")  # nobody else has this folder
            page.screenshot(path=IMAGES / f"{name}.png")

        loss = f"{training.info.run_name} (train/loss)"
        picture("runs", f"{home}/runs", shows=str(training.info.run_name))
        picture("mlflow-run", run, shows="held-out test split")
        picture("curves", f"{run}/model-metrics", find="train/loss", shows=loss)
        compared = f'{url}/#/compare-runs?runs={several}&experiments=["{experiment}"]'
        picture("compare", compared, shows="objective/loss")
        browser.close()
    figures = runs / "danq" / str(training.info.run_name) / "figures"
    shutil.copy(figures / "training.png", IMAGES / "training.png")


if __name__ == "__main__":
    main()
