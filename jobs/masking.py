"""Keeping secrets out of what is logged: parameters, tags, notes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_NAMES = re.compile(
    r"(TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|AUTH(?!OR))", re.I
)
_SHORTEST = 6  # characters of a value that is searched for: shorter ones are words
_PLAIN = re.compile(r"^(/|true$|false$|token$|\d+$)", re.I)  # paths, switches, numbers
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s:/@]*):[^\s@/]+@", re.I)  # with a password


def masked(text: str) -> str:
    """Return a text without the passwords of addresses and the values of secret variables.

    A variable is secret if its name says so (TOKEN, SECRET, PASSWORD, KEY ...).
    """
    text = _URL.sub(rf"\1\2:{MASK}@", text)
    for value in secret_values():
        text = text.replace(value, MASK)
    return text


def secret_values() -> list[str]:
    """Return the values of this process's secret environment variables, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if _NAMES.search(name) and len(value) >= _SHORTEST and not _PLAIN.match(value)
    }
    return sorted(found, key=len, reverse=True)


def masked_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested plain values with every text in them masked."""
    return {key: _masked(value) for key, value in values.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return masked_values(value)
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    return value
