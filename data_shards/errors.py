"""The one exception for input that a person has to correct."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Bad input or configuration: names the place, the value and the remedy.

    The command line turns it into exit status 2. Nothing has been written when it is raised.

    Args:
        problem: What is wrong, with the offending value.
        path: The file at fault, if it is one.
        line: 1-based line number within ``path``.
        remedy: What to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.path, self.line, self.remedy = problem, path, line, remedy
        place = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(f"{place}{problem}" + (f"\n  remedy: {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: Ray carries it from a worker to the driver."""
        return _rebuild, (self.problem, self.path, self.line, self.remedy)


def _rebuild(
    problem: str, path: Path | str | None, line: int | None, remedy: str | None
) -> InputError:
    return InputError(problem, path=path, line=line, remedy=remedy)


class CorruptDataError(RuntimeError):
    """A stored shard is missing, changed or truncated: the data set can't be trusted."""
