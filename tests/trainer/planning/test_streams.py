"""Instruction streams against DeepSpeed's own schedules."""

from __future__ import annotations

import pytest
from deepspeed.runtime.pipe.schedule import DualPipeVSchedule, TrainSchedule

from trainer.planning.streams import Exchange, Pass, in_flight, owner, streams, translate

SIZES = [(1, 1), (1, 5), (2, 1), (2, 4), (3, 2), (3, 7), (4, 4), (4, 9), (5, 3)]


@pytest.mark.parametrize(("stages", "micro_batches"), SIZES)
def test_1f1b_has_the_order_of_deepspeed(stages: int, micro_batches: int) -> None:
    theirs = tuple(
        translate(TrainSchedule(micro_batches, stages, stage).steps(), stage, stages)
        for stage in range(stages)
    )
    assert streams("1f1b", stages, micro_batches) == theirs


@pytest.mark.parametrize(("stages", "micro_batches"), SIZES)
def test_1f1b_has_as_many_micro_batches_in_flight_as_stages_from_here_on(
    stages: int, micro_batches: int
) -> None:
    for stage, stream in enumerate(streams("1f1b", stages, micro_batches)):
        assert in_flight(stream) == ((min(micro_batches, stages - stage),),)


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 2), (2, 4), (2, 7), (3, 6), (4, 10)])
@pytest.mark.parametrize("schedule", ["1f1b", "dualpipev"])
def test_every_pass_is_there_once_and_every_message_has_two_ends(
    schedule: str, stages: int, micro_batches: int
) -> None:
    orders = streams(schedule, stages, micro_batches)  # type: ignore[arg-type]
    parts = stages * (2 if schedule == "dualpipev" else 1)
    passes = [item for stream in orders for item in stream if isinstance(item, Pass)]
    assert sorted(passes) == sorted(
        Pass(kind, part, number)
        for kind in ("forward", "backward")
        for part in range(parts)
        for number in range(micro_batches)
    )
    ends: dict[object, list[int]] = {}
    for stage, stream in enumerate(orders):
        for item in stream:
            if isinstance(item, Exchange):
                for message in item.messages:
                    ends.setdefault(message, []).append(stage)
    for message, stages_of in ends.items():
        pair = [owner(message.cut, stages), owner(message.cut + 1, stages)]
        assert sorted(stages_of) == sorted(pair)
        assert sorted(stages_of) == sorted((message.source, message.target))
    crossing = parts - 1 - (schedule == "dualpipev")  # the turn at the last stage needs none
    assert len(ends) == 2 * crossing * micro_batches


def test_dualpipev_refuses_too_few_micro_batches() -> None:
    with pytest.raises(ValueError, match="at least"):
        streams("dualpipev", 2, 3)


def test_dualpipev_is_translated_part_by_part() -> None:
    stream = translate(DualPipeVSchedule(4, 2, 1).steps(), 1, 2)
    passes = [item for item in stream if isinstance(item, Pass)]
    assert passes[:2] == [Pass("forward", 1, 0), Pass("forward", 2, 0)], "it turns around here"
    assert {item.part for item in passes} == {1, 2}
