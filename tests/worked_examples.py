"""The commands of the docs' worked examples, as they are written there."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def commands(page: str) -> list[str]:
    """Return the lines of a page's worked example."""
    text = (DOCS / page).read_text().partition("## A worked example")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block is not None, f"{page} has no worked example"
    return block.group(1).strip().splitlines()
