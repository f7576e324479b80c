"""When each worker does what: an event simulator of pipelines.

It follows instruction streams, so it is exact for any schedule, given the times of passes and
messages. A message needs both ends: it starts when both have come to it (and the one before it in
the same direction has arrived), takes latency + bytes / bandwidth, and both ends wait for it. That
is how gloo and NCCL send tensors of more than a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.planning.streams import Message, Pass, Stream


@dataclass(frozen=True)
class Span:
    """What a worker did from one moment to another, measured or predicted.

    Attributes:
        rank: of the worker.
        kind: "forward", "backward", "send" and "receive" (waiting for the other end included),
            "reduce" (averaging gradients over replicas), "step" (of the optimizer); measured ones
            also "load".
        micro_batch: number of the micro-batch, if it is about one.
        start: seconds.
        end: seconds.
    """

    rank: int
    kind: str
    micro_batch: int | None
    start: float
    end: float


@dataclass(frozen=True)
class Durations:
    """How long everything in a step takes, in seconds.

    Attributes:
        forward: a forward pass of one micro-batch, for each part.
        backward: a backward pass, for each part.
        message: activations of one micro-batch from each part to the next, or their gradients
            back; 0 where the same worker has both.
        reduce: averaging the gradients over replicas, for each stage.
        update: the optimizer's step, for each stage.
    """

    forward: Sequence[float]
    backward: Sequence[float]
    message: Sequence[float]
    reduce: Sequence[float]
    update: Sequence[float]


@dataclass(frozen=True)
class Timeline:
    """One training step of one replica.

    Attributes:
        seconds: from its start until the last worker is done.
        spans: of all workers, by rank, in order.
        transfer: for each worker, seconds in which messages were on their way to or from it.
        bubble: for each worker, the part of the step in which it neither computed nor had a
            message on its way: it waited for others.
    """

    seconds: float
    spans: tuple[Span, ...]
    transfer: tuple[float, ...]
    bubble: tuple[float, ...]


def simulate(streams: Sequence[Stream], durations: Durations) -> Timeline:
    """Play one training step.

    Args:
        streams: of each stage.
        durations: of passes and messages.

    Raises:
        RuntimeError: the streams wait for each other for ever.
    """
    state = _State(streams, durations)
    runnable = list(range(len(streams)))
    while runnable:
        runnable += state.run(runnable.pop())
    if any(at < len(stream) for at, stream in zip(state.at, streams, strict=True)):
        raise RuntimeError("the instruction streams wait for each other for ever")
    for rank in range(len(streams)):
        state.compute(rank, "reduce", None, durations.reduce[rank])
        state.compute(rank, "step", None, durations.update[rank])
    seconds = max(state.clock)
    bubble = tuple(
        max(0.0, 1 - (busy + moved) / seconds) if seconds else 0.0
        for busy, moved in zip(state.busy, state.moved, strict=True)
    )
    spans = tuple(span for spans in state.spans for span in spans)
    return Timeline(seconds, spans, tuple(state.moved), bubble)


class _State:
    """Clocks and places of all workers, and the messages for which one end has come."""

    def __init__(self, streams: Sequence[Stream], durations: Durations) -> None:
        workers = len(streams)
        self.streams, self.durations = streams, durations
        self.at = [0] * workers
        self.clock = [0.0] * workers
        self.busy = [0.0] * workers
        self.moved = [0.0] * workers
        self.spans: list[list[Span]] = [[] for _ in range(workers)]
        self._posted: dict[Message, float] = {}
        self._free: dict[tuple[int, int], float] = {}
        self._missing = [0] * workers  # messages of the exchange that have no second end yet
        self._first = [0.0] * workers  # when the first of them started
        self._last = [0.0] * workers  # when the last of them arrived

    def run(self, rank: int) -> list[int]:
        """Let a worker go on as far as it can; return the workers that can go on after that."""
        stream, durations = self.streams[rank], self.durations
        while self.at[rank] < len(stream):
            item = stream[self.at[rank]]
            if not isinstance(item, Pass):
                woken = self._post(rank, item.messages)
                if self._missing[rank]:
                    return woken
                self._arrive(rank)
                if woken:
                    return [*woken, rank]
                continue
            times = durations.forward if item.kind == "forward" else durations.backward
            self.compute(rank, item.kind, item.micro_batch, times[item.part])
            self.at[rank] += 1
        return []

    def compute(self, rank: int, kind: str, micro_batch: int | None, seconds: float) -> None:
        """Let a worker be busy."""
        if seconds == 0 and micro_batch is None:
            return
        start = self.clock[rank]
        self.clock[rank] = start + seconds
        self.busy[rank] += seconds
        self.spans[rank].append(Span(rank, kind, micro_batch, start, start + seconds))

    def _post(self, rank: int, messages: Sequence[Message]) -> list[int]:
        """Come to an exchange; return the workers that waited for nothing else."""
        now, woken = self.clock[rank], []
        self._first[rank], self._last[rank] = float("inf"), now
        self._missing[rank] = len(messages)
        for message in messages:
            posted = self._posted.pop(message, None)
            if posted is None:
                self._posted[message] = now
                continue
            way = message.source, message.target
            start = max(now, posted, self._free.get(way, 0.0))
            end = start + self.durations.message[message.cut]
            self._free[way] = end
            for worker in way:
                self._missing[worker] -= 1
                self._first[worker] = min(self._first[worker], start)
                self._last[worker] = max(self._last[worker], end)
            other = message.source + message.target - rank
            if not self._missing[other]:
                self._arrive(other)
                woken.append(other)
        return woken

    def _arrive(self, rank: int) -> None:
        """End a worker's exchange."""
        messages = self.streams[rank][self.at[rank]].messages  # type: ignore[union-attr]
        start, end = self.clock[rank], self._last[rank]
        kind = "send" if all(message.source == rank for message in messages) else "receive"
        number = messages[0].micro_batch if len(messages) == 1 else None
        self.spans[rank].append(Span(rank, kind, number, start, end))
        self.moved[rank] += end - self._first[rank]
        self.clock[rank] = end
        self.at[rank] += 1
