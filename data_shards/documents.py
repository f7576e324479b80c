"""TOML documents checked against a typed model, with errors that name key, value and remedy."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_shards.errors import InputError

ModelT = TypeVar("ModelT", bound=BaseModel)


class Document(BaseModel):
    """Base of everything that is read from a file: frozen, and no key passes unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_toml(path: Path, *, remedy: str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: the file is missing (then ``remedy`` is told) or is not TOML.
    """
    if not path.is_file():
        raise InputError("no such file", path=path, remedy=remedy)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"not valid TOML: {error}", path=path, remedy="correct that line"
        ) from None


def parse(kind: type[ModelT], values: Mapping[str, Any], source: Path | str) -> ModelT:
    """Check values against a model.

    Args:
        kind: the pydantic model.
        values: nested mappings, as from TOML.
        source: file (or other origin) to name in the message.

    Raises:
        InputError: the first fault, with its dotted key; for an unknown key the nearest known one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # A misspelt key is both unknown and missing: unknown says more.
        fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            problem, remedy = _unknown_key(kind, fault["loc"])
        elif fault["type"] == "missing":
            problem, remedy = f"key {where!r} is missing", "add it"
        elif fault["type"] == "value_error" and not where:
            problem, remedy = fault["msg"].removeprefix("Value error, "), "correct the value"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(fault["input"], (Mapping, list)) else f" = {fault['input']!r}"
            problem, remedy = f"{where}{shown}: {message}", "correct the value"
        raise InputError(problem, path=source, remedy=remedy) from None


def _unknown_key(kind: type[BaseModel], place: tuple[int | str, ...]) -> tuple[str, str]:
    known = _keys_at(kind, place[:-1])
    name = str(place[-1])
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {'.'.join(str(part) for part in place)!r}", remedy


def _keys_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """List the fields of the model that sits at a path of keys and list positions."""
    model: type[BaseModel] = kind
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            nested = _nested_model(model.model_fields[part].annotation)
            model = nested if nested is not None else model
    return list(model.model_fields)


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _nested_model(argument)
        if found is not None:
            return found
    return None
