"""Instruction streams: what each worker of a pipeline does, in which order.

A network is cut into parts, numbered along the network. Under 1F1B stage s has part s. Under
DualPipeV it has part s and part ``2 * stages - 1 - s``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from trainer.config import PipelineSchedule

Direction = Literal["activation", "gradient"]


class Pass(NamedTuple):
    """A forward or backward pass of one micro-batch through one part."""

    kind: Literal["forward", "backward"]
    part: int
    micro_batch: int


class Message(NamedTuple):
    """Activations (or their gradients) of a micro-batch on the way between two parts.

    ``cut`` is the number of the part before the cut that it crosses.
    """

    direction: Direction
    cut: int
    micro_batch: int
    source: int
    target: int


class Exchange(NamedTuple):
    """Messages that a worker sends and receives at once; it goes on when all have arrived."""

    messages: tuple[Message, ...]


Instruction = Pass | Exchange
Stream = tuple[Instruction, ...]


def owner(part: int, stages: int) -> int:
    """Return the stage that has a part."""
    return part if part < stages else 2 * stages - 1 - part


def parts_of(stage: int, stages: int, schedule: PipelineSchedule) -> tuple[int, ...]:
    """Return the parts that a stage has."""
    return (stage,) if schedule == "1f1b" else (stage, 2 * stages - 1 - stage)


def streams(schedule: PipelineSchedule, stages: int, micro_batches: int) -> tuple[Stream, ...]:
    """Return the stream of each stage for one training step.

    Raises:
        ValueError: DualPipeV with fewer than ``2 * stages`` micro-batches.
    """
    if schedule == "1f1b":
        return tuple(_one_f_one_b(stage, stages, micro_batches) for stage in range(stages))
    # Importing DeepSpeed takes seconds.
    from deepspeed.runtime.pipe.schedule import DualPipeVSchedule

    return tuple(
        translate(DualPipeVSchedule(micro_batches, stages, stage).steps(), stage, stages)
        for stage in range(stages)
    )


def _one_f_one_b(stage: int, stages: int, micro_batches: int) -> Stream:
    """1F1B in the order of DeepSpeed's ``TrainSchedule``.

    Of the steps that all stages count together, those of the stage's own parity are forward passes
    and the others backward ones; a stage is one step later than the one before it on the way there
    and one earlier on the way back. Each transfer blocks both ends.
    """

    def message(direction: Direction, source: int, target: int, micro_batch: int) -> Exchange:
        return Exchange((Message(direction, min(source, target), micro_batch, source, target),))

    stream: list[Instruction] = []
    before, after = stage - 1, stage + 1
    for step in range(2 * (micro_batches + stages - 1)):
        forward, backward = (step - stage) // 2, (step + stage + 1 - 2 * stages) // 2
        if step % 2 == stage % 2:
            # What the step before computed is sent, then what this one needs is received.
            last = (step + stage - 2 * stages) // 2
            if 0 <= last < micro_batches and before >= 0:
                stream.append(message("gradient", stage, before, last))
            if 0 <= forward < micro_batches:
                if before >= 0:
                    stream.append(message("activation", before, stage, forward))
                stream.append(Pass("forward", stage, forward))
        else:
            last = (step - 1 - stage) // 2
            if 0 <= backward < micro_batches and after < stages:
                stream.append(message("gradient", after, stage, backward))
            if 0 <= last < micro_batches and after < stages:
                stream.append(message("activation", stage, after, last))
            if 0 <= backward < micro_batches:
                stream.append(Pass("backward", stage, backward))
    return tuple(stream)


def translate(steps: Iterable[Sequence[Any]], stage: int, stages: int) -> Stream:
    """Translate the instructions of a DeepSpeed schedule.

    Args:
        steps: of ``TrainSchedule`` or ``DualPipeVSchedule``, whose sends and receives wait for the
            next ``CommitP2P``.
        stage: whose schedule it is.
        stages: how many there are.
    """
    instructions = [instruction for step in steps for instruction in step]
    queues = any(type(instruction).__name__ == "CommitP2P" for instruction in instructions)
    counts: dict[tuple[str, int], int] = {}
    stream: list[Instruction] = []
    waiting: list[Message] = []
    for instruction in instructions:
        name, phase = type(instruction).__name__, getattr(instruction, "phase", 0)
        if name == "CommitP2P":
            if waiting:
                stream.append(Exchange(tuple(waiting)))
                waiting = []
            continue
        # Each kind of instruction takes the micro-batches in order.
        number = counts.get((name, phase), 0)
        counts[name, phase] = number + 1
        part = stage if phase == 0 else 2 * stages - 1 - stage
        if name == "ForwardPass":
            stream.append(Pass("forward", part, number))
        elif name == "BackwardPass":
            stream.append(Pass("backward", part, number))
        elif name in _MESSAGES:
            waiting.append(_message(name, number, part, stage, phase))
            if not queues:
                stream.append(Exchange(tuple(waiting)))
                waiting = []
    return tuple(stream)


# Name of the instruction -> direction, whether it sends, whether the other end is the next part
_MESSAGES: dict[str, tuple[Direction, bool, bool]] = {
    "SendActivation": ("activation", True, True),
    "RecvActivation": ("activation", False, False),
    "SendGrad": ("gradient", True, False),
    "RecvGrad": ("gradient", False, True),
}


def _message(name: str, micro_batch: int, part: int, stage: int, phase: int) -> Message:
    direction, sends, onwards = _MESSAGES[name]
    # In phase 1 the network runs back towards the first stage.
    other = stage + (1 if onwards == (phase == 0) else -1)
    source, target = (stage, other) if sends else (other, stage)
    return Message(direction, part if onwards else part - 1, micro_batch, source, target)


def in_flight(stream: Stream) -> tuple[tuple[int, ...], ...]:
    """Return how many micro-batches are between forward and backward pass at once, at most.

    Returns:
        One count for each part that the worker has, in the order of their numbers. With two parts
        there may be several pairs of counts of which none is at most another in both; all of them.
    """
    owned = sorted({item.part for item in stream if isinstance(item, Pass)})
    alive = dict.fromkeys(owned, 0)
    seen: set[tuple[int, ...]] = set()
    for item in stream:
        if isinstance(item, Pass):
            alive[item.part] += 1 if item.kind == "forward" else -1
            seen.add(tuple(alive.values()))
    return tuple(
        sorted(
            counts
            for counts in seen
            if not any(
                other != counts and all(a <= b for a, b in zip(counts, other, strict=True))
                for other in seen
            )
        )
    )
