"""Which checkpoints are kept: a pure function of their steps."""

from __future__ import annotations

from collections.abc import Collection


def removable(
    steps: Collection[int], committed: int, keep: int, best: Collection[int]
) -> list[int]:
    """List the checkpoints to remove after one was committed.

    Kept are the newest ``keep`` up to the one just committed, and the best. Those beyond it are
    of a course that was given up (resumed from an earlier one, as they were damaged or unwanted);
    they would be taken for the newest, so they go, unless they are named best.

    Args:
        steps: of all checkpoints there are.
        committed: of the one just committed; it is never removed.
        keep: how many of the newest to keep, at least 1.
        best: steps to keep in any case.

    Returns:
        The steps to remove, oldest first.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    newest = sorted(step for step in steps if step <= committed)[-keep:]
    return sorted(set(steps) - set(newest) - set(best) - {committed})
