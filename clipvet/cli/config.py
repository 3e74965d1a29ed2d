"""From words to options: durations, class names and the configuration file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from clipvet.errors import UsageError

if TYPE_CHECKING:
    from clipvet.api import InspectOptions

__all__ = ["class_names", "inspect_options", "seconds"]

_UNITS = {"s": 1, "m": 60, "h": 3600}
_OF_THE_RUN = ("work", "resume")  # these belong to one run, not to a configuration


def seconds(text: str) -> float:
    """Read a duration: ``90``, ``90s``, ``10m``, ``1h30m``.

    Raises:
        UsageError: it is none of these.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip() or any(not u for _, u in parts[:-1]):
        raise UsageError(f"expected a duration such as 90s, 10m or 1h30m, got {text!r}")
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)


def class_names(text: str) -> tuple[str, ...]:
    """Read class names: a file with one per line, or the names themselves with commas between them.

    Raises:
        UsageError: there is no name, or a name stands twice.
    """
    path = Path(text)
    if path.is_file():
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    elif "," not in text and (path.suffix or len(path.parts) > 1):
        raise UsageError(f"expected a file with one class name per line, or names with commas between them; found no file {text!r}")
    else:
        names = [name.strip() for name in text.split(",")]
    names = [name for name in names if name]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if not names or doubled:
        found = f"{doubled[0]!r} twice" if doubled else "none"
        raise UsageError(f"expected class names, each once and in the order of the logits, got {found} in {text!r}")
    return tuple(names)


def inspect_options(given: Mapping[str, Any], config: Path | None) -> InspectOptions:
    """Join what the command line states with a configuration file; the command line wins.

    Args:
        given: fields of InspectOptions; None where nothing was stated.
        config: a TOML file with those fields at its top level.

    Raises:
        UsageError: one sentence that lists every error of the file, or the first of the command line.
    """
    from clipvet.api import InspectOptions

    stated = {name: value for name, value in given.items() if value is not None}
    return InspectOptions(**({**_read(config, InspectOptions), **stated}))


def _read(config: Path | None, options: type[InspectOptions]) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"expected a TOML file at {str(config)!r}: {error}") from error
    known = [field.name for field in fields(options) if field.name not in _OF_THE_RUN]
    hints = get_type_hints(options)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in table.items():
        if name not in known:
            problems.append(f"{name}: expected one of {', '.join(known)}")
            continue
        try:
            values[name] = _value(name, value, hints[name], config.parent)
            options(**{name: values[name]})
        except UsageError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise UsageError(f"{config}: {'; '.join(problems)}")
    return values


def _value(name: str, value: Any, hint: Any, folder: Path) -> Any:
    """Check one value against the field's type; a path is taken relative to the configuration file."""
    from pydantic import TypeAdapter, ValidationError

    if name == "budget" and isinstance(value, str):
        return seconds(value)
    if name == "class_names" and isinstance(value, str):
        return class_names(value)
    try:
        checked = TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise UsageError(f"{error.errors()[0]['msg'].lower()}, got {value!r}") from error
    return folder / checked if isinstance(checked, Path) else checked
