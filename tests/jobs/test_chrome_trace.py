from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from jobs.chrome_trace import chrome_trace, write_chrome_trace
from trainer.planning.pipeline import Span

KINDS = ("forward", "backward", "send", "receive", "load", "reduce", "step", "other")
# Of catapult's tracing/base/color_scheme.html: it refuses a trace with any other name.
RESERVED_COLOURS = {
    *("thread_state_uninterruptible", "thread_state_iowait", "thread_state_running"),
    *("thread_state_runnable", "thread_state_sleeping", "thread_state_unknown"),
    *("background_memory_dump", "light_memory_dump", "detailed_memory_dump"),
    *("vsync_highlight_color", "generic_work", "good", "bad", "terrible", "black", "grey", "white"),
    *("yellow", "olive", "rail_response", "rail_animation", "rail_idle", "rail_load", "startup"),
}

spans_of_a_trace = st.lists(
    st.builds(
        lambda rank, kind, number, start, length: Span(rank, kind, number, start, start + length),
        st.integers(0, 5),
        st.sampled_from(KINDS),
        st.none() | st.integers(0, 9),
        st.floats(1e3, 2e3),
        st.floats(0, 10),
    ),
    max_size=30,
)


def test_a_span_is_a_complete_event_of_its_replica_and_stage_in_microseconds() -> None:
    spans = [
        Span(0, "load", 0, 5.0, 5.5),
        Span(3, "forward", 7, 5.25, 6.25),
        Span(3, "step", None, 7.0, 7.5),
    ]
    events = chrome_trace(spans, stages=2)["traceEvents"]
    assert [event for event in events if event["ph"] == "X"][1:] == [
        {
            "ph": "X",
            "name": "forward 7",
            "cat": "forward",
            "cname": "rail_response",
            "pid": 1,
            "tid": 1,
            "ts": 250_000.0,
            "dur": 1_000_000.0,
            "args": {"rank": 3, "micro_batch": 7},
        },
        {
            "ph": "X",
            "name": "step",
            "cat": "step",
            "cname": "detailed_memory_dump",
            "pid": 1,
            "tid": 1,
            "ts": 2_000_000.0,
            "dur": 500_000.0,
            "args": {"rank": 3, "micro_batch": None},
        },
    ]


def test_replicas_are_named_processes_and_stages_named_threads_in_order() -> None:
    spans = [Span(rank, "forward", 0, 0.0, 1.0) for rank in (2, 0, 3, 1)]
    events = chrome_trace(spans, stages=2)["traceEvents"]
    named = {
        (event["name"], event["pid"], event["tid"], *event["args"].values())
        for event in events
        if event["ph"] == "M"
    }
    assert named == {
        *(("process_name", r, 0, f"replica {r}") for r in (0, 1)),
        *(("process_sort_index", r, 0, r) for r in (0, 1)),
        *(("thread_name", r, s, f"stage {s}") for r in (0, 1) for s in (0, 1)),
        *(("thread_sort_index", r, s, s) for r in (0, 1) for s in (0, 1)),
    }


@given(spans=spans_of_a_trace, stages=st.integers(1, 6))
def test_every_event_is_one_that_the_format_defines(spans: list[Span], stages: int) -> None:
    trace = json.loads(json.dumps(chrome_trace(spans, stages), allow_nan=False))
    assert trace.keys() == {"traceEvents", "displayTimeUnit"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    threads = set()
    complete = 0
    for event in trace["traceEvents"]:
        assert {"ph", "name", "pid", "tid", "args"} <= event.keys()
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            threads.add((event["pid"], event["tid"]))
            continue
        complete += 1
        assert event["ph"] == "X"
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert event["cname"] in RESERVED_COLOURS
        assert (event["pid"], event["tid"]) in threads
    assert complete == len(spans)


def test_the_file_is_the_trace_as_json(tmp_path: Path) -> None:
    spans = [Span(0, "forward", 0, 0.0, 1.0), Span(1, "backward", 0, 1.0, 3.0)]
    path = write_chrome_trace(spans, 2, tmp_path / "trace.json")
    assert json.loads(path.read_text()) == chrome_trace(spans, 2)
