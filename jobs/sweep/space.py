"""The search space of a sweep: which settings are searched, and how.

A space is a TOML file with a table a setting, named as in a run's configuration::

    ["optimizer.lr"]
    low = 1e-4
    high = 1e-1
    log = true

    [batch_size]
    choices = [64, 128, 256]

    ["optimizer.nesterov"]
    choices = [true, false]
    when = { "optimizer.name" = "sgd" }
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from data_shards.documents import Document, parse
from data_shards.errors import InputError
from trainer.config import RunConfig, flatten, merge
from trainer.grid import grid_of, lay_out

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Value = bool | int | float | str
Direction = Literal["minimize", "maximize"]
_KEYS = {"low", "high", "log", "step", "choices", "when"}
_BATCH = "batch_size"


class Parameter(Document):
    """What values a setting may take: a range, or choices.

    A range of whole numbers has whole numbers; write 1.0 for others.
    """

    low: int | float | None = Field(None)
    high: int | float | None = Field(None)
    log: bool = Field(False, description="draw the logarithm evenly")
    step: int | float | None = Field(None, gt=0)
    choices: tuple[Value, ...] | None = Field(None, min_length=1)
    when: dict[str, Value | tuple[Value, ...]] = Field(
        {}, description="searched only where other settings, searched above, have these values"
    )

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if any(said is not None for said in (self.low, self.high, self.step)) or self.log:
                raise ValueError("choices take no low, high, log or step")
            return self
        if self.low is None:
            raise ValueError("say low and high, or choices")
        if self.high is None or self.high < self.low:
            raise ValueError("a range needs low and, not below it, high")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, ...]:
        """Return values that are fine only if all are: the ends of a range, or all choices."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """Return it as Optuna's."""
        from optuna import distributions

        if self.choices is not None:
            return distributions.CategoricalDistribution(self.choices)
        assert self.low is not None and self.high is not None
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return distributions.IntDistribution(int(self.low), int(self.high), self.log, step)
        return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether it is searched where other settings have these values."""
        for name, wanted in self.when.items():
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            if name not in values or values[name] not in allowed:
                return False
        return True


@dataclass(frozen=True)
class Space:
    """Settings by their dotted names, in the order in which they are drawn."""

    parameters: Mapping[str, Parameter]

    @classmethod
    def read(cls, document: Mapping[str, Any], source: str) -> Space:
        """Read a space from nested or dotted tables.

        Args:
            document: as from TOML.
            source: for messages.

        Raises:
            InputError: a table is no parameter, or a condition names a setting that is not above.
        """
        parameters: dict[str, Parameter] = {}
        for name, table in _tables(document, "", source):
            parameters[name] = _parameter(name, table, source)
            if unknown := [key for key in parameters[name].when if key not in parameters]:
                raise InputError(
                    f"{name}: the condition on {unknown[0]!r} is on a setting that is not searched "
                    "above it",
                    path=source,
                    remedy="write the table of that setting first",
                )
        if not parameters:
            raise InputError(
                "the search space is empty",
                path=source,
                remedy='write a table a setting, as ["optimizer.lr"]',
            )
        return cls(parameters)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw values for a trial; settings whose condition does not hold are left out."""
        from optuna import distributions

        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if not parameter.applies(values):
                continue
            distribution = parameter.distribution()
            if isinstance(distribution, distributions.CategoricalDistribution):
                values[name] = trial.suggest_categorical(name, distribution.choices)
            elif isinstance(distribution, distributions.IntDistribution):
                values[name] = trial.suggest_int(
                    name,
                    distribution.low,
                    distribution.high,
                    step=distribution.step,
                    log=distribution.log,
                )
            else:
                assert isinstance(distribution, distributions.FloatDistribution)
                values[name] = trial.suggest_float(
                    name,
                    distribution.low,
                    distribution.high,
                    step=distribution.step,
                    log=distribution.log,
                )
        return values

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, as they are stored with the study."""
        return {
            name: parameter.model_dump(mode="json", exclude_defaults=True)
            for name, parameter in self.parameters.items()
        }

    def grid(self) -> dict[str, list[Any]]:
        """Return all values of each setting, for a grid search.

        Raises:
            InputError: a range has no step, or a setting has a condition.
        """
        return {name: _values(name, parameter) for name, parameter in self.parameters.items()}

    def fitted(self, config: RunConfig, samples: int) -> Space:
        """Check that every value makes a valid configuration; keep batch sizes that can be cut.

        Args:
            config: of the trials, apart from what is searched.
            samples: in the training split.

        Returns:
            The space, with a batch size that is a range made one of sizes that divide.

        Raises:
            InputError: a setting is unknown or a value out of range; a batch size can't be shared
                out over the grid.
        """
        plain = config.model_dump()
        for name, parameter in self.parameters.items():
            for value in parameter.ends():
                parse(RunConfig, merge(plain, nested({name: value})), "the search space")
        batch = self.parameters.get(_BATCH)
        if batch is None:
            return self
        fits = _batch_fits(config, samples)
        if batch.choices is None:
            batch = _dividing(batch, config, fits)
        elif bad := [value for value in batch.choices if not fits(int(value))]:
            good = _nearest(int(bad[0]), fits)
            raise InputError(
                f"batch_size {bad[0]} can't be shared out over {config.grid.stages} stages x "
                f"{config.grid.replicas} replicas, or is more than all {samples:,} samples",
                path="the search space",
                remedy=f"the nearest that can: {good}" if good else "use another grid",
            )
        return Space({**self.parameters, _BATCH: batch})


def default_space(config: RunConfig, recipe: Mapping[str, Any], samples: int) -> Space:
    """Return the space of a sweep that names none: rate, batch size, momentum, weight decay.

    Args:
        config: of the trials; ranges lie around its values.
        recipe: what the recipe says of its ranges; wins.
        samples: in the training split.
    """
    rate, size = config.optimizer.lr, config.batch_size
    fits = _batch_fits(config, samples)
    sizes = [n for n in (size // 4, size // 2, size, 2 * size, 4 * size) if n > 0 and fits(n)]
    document = {
        "optimizer.lr": {"low": rate / 30, "high": rate * 30, "log": True},
        "batch_size": {"choices": sizes},
        "optimizer.momentum": {"low": 0.0, "high": 0.98},
        "optimizer.weight_decay": {"low": 1e-8, "high": 1e-2, "log": True},
    }
    return Space.read({**document, **recipe}, "the recipe")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested tables."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        table: dict[str, Any] = {}
        inner: Any = value
        for part in reversed(name.split(".")):
            table = {part: inner}
            inner = table
        result = merge(result, table)
    return result


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say how two spaces or other plain documents differ, a line a setting."""
    before, after = flatten(old), flatten(new)
    lines = []
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            then, now = (str(side.get(name, "absent")) for side in (before, after))
            lines.append(f"{name}: {then} then, {now} now")
    return lines


def _tables(
    document: Mapping[str, Any], prefix: str, source: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in document.items():
        name = prefix + key
        if not isinstance(value, Mapping):
            raise InputError(
                f"{name} is no table of a setting",
                path=source,
                remedy=f'write ["{name}"] with low and high, or choices',
            )
        if set(value) & _KEYS or not value:
            yield name, value
        else:
            yield from _tables(value, f"{name}.", source)


def _parameter(name: str, table: Mapping[str, Any], source: str) -> Parameter:
    try:
        return parse(Parameter, table, source)
    except InputError as error:
        raise InputError(f"{name}: {error.problem}", path=source, remedy=error.remedy) from None


def _values(name: str, parameter: Parameter) -> list[Any]:
    if parameter.when:
        raise InputError(
            f"{name}: a grid search takes no conditions", remedy="use another --sampler"
        )
    if parameter.choices is not None:
        return list(parameter.choices)
    if parameter.step is None and not (parameter.whole and not parameter.log):
        raise InputError(
            f"{name}: a grid search needs choices, or a range with a step",
            remedy=f"say the values: choices = [...] for {name}",
        )
    assert parameter.low is not None and parameter.high is not None
    step = parameter.step or 1
    count = math.floor((parameter.high - parameter.low) / step + 1e-9) + 1
    return [parameter.low + number * step for number in range(count)]


def _batch_fits(config: RunConfig, samples: int) -> Callable[[int], bool]:
    grid = grid_of(config.grid)

    def fits(size: int) -> bool:
        try:
            lay_out(size, grid, config.grid.micro_batches)
        except InputError:
            return False
        return size <= samples

    return fits


def _nearest(size: int, fits: Callable[[int], bool]) -> int | None:
    for distance in range(1, size):
        for near in (size - distance, size + distance):
            if near > 0 and fits(near):
                return near
    return None


def _dividing(batch: Parameter, config: RunConfig, fits: Callable[[int], bool]) -> Parameter:
    """Turn a range of batch sizes into one of those that can be shared out."""
    assert batch.low is not None and batch.high is not None
    sizes = range(int(batch.low), int(batch.high) + 1, int(batch.step or 1))
    good = [size for size in sizes if fits(size)]
    if not good:
        raise InputError(
            f"no batch_size from {batch.low} to {batch.high} can be shared out over "
            f"{config.grid.stages} stages x {config.grid.replicas} replicas",
            path="the search space",
            remedy="use another range or grid",
        )
    if _evenly(good):
        step = good[1] - good[0] if len(good) > 1 else 1
        log = batch.log and step == 1
        return Parameter(low=good[0], high=good[-1], log=log, step=None if log else step)
    return Parameter(choices=tuple(good))


def _evenly(numbers: Sequence[int]) -> bool:
    return len({b - a for a, b in pairwise(numbers)}) <= 1
