"""Running one command: what is common to all of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from data_shards.errors import InputError
from jobs.console import Console

Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of the recipe: replisome recipes list.")
]


def run(json_mode: bool, work: Callable[[Console], dict[str, Any]]) -> None:
    """Run a command: result to stdout, errors in words to stderr, and the right exit status."""
    console = Console(json_mode)
    try:
        result = work(console)
    except InputError as error:
        raise failed(console, str(error), 2) from None
    except KeyboardInterrupt:
        raise failed(console, "interrupted", 130) from None
    except typer.Exit:
        raise
    except Exception as error:
        if "REPLISOME_TRACEBACK" in os.environ:
            raise
        text = f"{type(error).__name__}: {error}\n  (REPLISOME_TRACEBACK=1 shows where)"
        raise failed(console, text, 1) from None
    console.result(result)
    if result.get("faults"):
        raise typer.Exit(1)


def failed(console: Console, text: str, status: int) -> typer.Exit:
    """Tell a failure to whoever listens; return what is to be raised."""
    console.say(f"error: {text}")
    if console.json:
        sys.stdout.write(json.dumps({"ok": False, "error": text, "status": status}) + "\n")
    return typer.Exit(status)
