"""Read the data of a TOML or YAML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".toml", ".yaml", ".yml")
"""Ends of the names of configuration files."""


def read_data(path: Path) -> Any:
    """Return the data of a file; its suffix is one of `SUFFIXES`.

    Raises:
        ValueError: If the file is not valid TOML or YAML. The message has the position only.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        toml = path.suffix.lower() == ".toml"
        return tomllib.loads(text) if toml else yaml.load(text, _UniqueKeys)  # noqa: S506 - safe
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{path} cannot be read: {_reason(error)}.") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[-1]}") from None


class _UniqueKeys(yaml.SafeLoader):
    """Loader that rejects a key that is given twice, as TOML does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise _Twice(problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Twice(yaml.constructor.ConstructorError):
    pass


def _reason(error: yaml.MarkedYAMLError) -> str:
    # Only the position: the text of the line may contain an API key.
    mark = error.problem_mark or error.context_mark
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"a key is given twice{place}" if isinstance(error, _Twice) else f"not valid YAML{place}"
