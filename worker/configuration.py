"""Where the settings come from: a TOML file, and the environment, which wins."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.errors import ConfigurationError
from worker.settings import Settings

DEFAULT_FILE = Path("cxr-worker.toml")
_PREFIX = "CXR_"


def read_settings(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a TOML file, then from ``CXR_SECTION__KEY`` variables, which win.

    Parameters
    ----------
    path
        The file; by default ``cxr-worker.toml`` in the working folder where there is one, else the defaults.
    environment
        By default the process's own.

    Raises
    ------
    ConfigurationError
        One line that names the file or variable, the key and what is wrong.
    """
    values = _read_file(path)
    named = _overlay(values, os.environ if environment is None else environment)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error.errors(include_url=False, include_input=False)[0], path, named)) from error


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        if not DEFAULT_FILE.exists():
            return {}
        path = DEFAULT_FILE
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such file; 'cxr-worker init {path}' writes one.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}.") from error


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lay the environment over the file's values; answer which variable set which key."""
    named: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environment.items(), key=_numbers_by_value):
        if not variable.startswith(_PREFIX):
            continue
        keys = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
        # CXR_DATA and CXR_DICOM name test data: a variable without a section is ours only where the key holds one value.
        if len(keys) == 1 and keys[0] not in {"data_dir", "database_url"}:
            continue
        _set(values, keys, text, variable)
        named[keys] = variable
    return named


def _numbers_by_value(item: tuple[str, str]) -> list[tuple[int, str]]:
    """Sorts ``__2__`` before ``__10__``: an entry of a list must come before the next one."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in item[0].split("__")]


def _set(values: dict[str, Any], keys: tuple[str, ...], text: str, variable: str) -> None:
    *path, last = keys
    place: Any = values
    for key in path:
        place = _child(place, key, variable)
    if isinstance(place, list):
        raise ConfigurationError(f"{variable}: a number alone names no key.")
    place[last] = _parsed(text)


def _child(place: Any, key: str, variable: str) -> Any:
    if key.isdecimal() and isinstance(place, list):
        index = int(key)
        if index > len(place):
            raise ConfigurationError(f"{variable}: entry {index} of a list that has {len(place)}.")
        if index == len(place):
            place.append({})
        return place[index]
    if not isinstance(place, dict):
        raise ConfigurationError(f"{variable}: names no key of the configuration.")
    child = place.setdefault(key, [] if key in {"destinations", "senders"} else {})
    if not isinstance(child, dict | list):
        raise ConfigurationError(f"{variable}: {key} is a value, not a section.")
    return child


def _parsed(text: str) -> Any:
    if not text.startswith("["):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _explain(error: ErrorDetails, path: Path | None, named: Mapping[tuple[str, ...], str]) -> str:
    location = tuple(str(part) for part in error["loc"])
    key = ".".join(location)
    source = _variable_behind(error, named) or str(path or (DEFAULT_FILE if DEFAULT_FILE.exists() else "configuration"))
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'."
    message = error["msg"].removeprefix("Value error, ")
    return f"{source}: {key}: {message[:1].lower()}{message[1:]}."


def _variable_behind(error: ErrorDetails, named: Mapping[tuple[str, ...], str]) -> str | None:
    """The variable that set the wrong key, an item of it, or, where a whole section is wrong, something in it."""
    location = tuple(str(part) for part in error["loc"])
    for keys, variable in named.items():
        is_item = location[: len(keys)] == keys
        made_the_section = keys[: len(location)] == location and error["type"] != "value_error"
        if is_item or made_the_section:
            return variable
    return None
