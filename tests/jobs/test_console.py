from __future__ import annotations

import json
import time

import pytest

from jobs.console import Console


def test_with_json_stdout_has_one_object_and_people_read_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(json=True)
    console.say("working")
    console.show("the page")
    console.result({"value": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"ok": True, "value": 1}
    assert out.count("\n") == 1
    assert "working" in err
    assert "the page" in err


def test_without_json_the_result_is_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=False)
    console.say("working")
    console.show("the page [brackets]")
    console.result({"value": 1})
    out, err = capsys.readouterr()
    assert out == "the page [brackets]\n"
    assert err == "working\n"


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(json=False)
    with console.bars() as bars:
        for done in range(1001):
            bars.update("reading", done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "reading: 1000 of 1000"
    assert len(lines) <= 3


def test_steps_are_timed_also_when_they_fail() -> None:
    console = Console(json=False)
    with pytest.raises(RuntimeError), console.step("work"):
        time.sleep(0.01)
        raise RuntimeError
    assert console.seconds["work"] >= 0.01
