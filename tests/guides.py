"""The README and the guides, as tests read them.

python -m tests.guides install -e '.[local]'   # what `pip` is in a README's block under test
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / ".github" / "CONTRIBUTING.md"
DEPLOYMENT = ROOT / "moa_graph" / "server" / "deploy" / "README.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GUIDES = sorted((ROOT / "notebooks").glob("*.md"))
SERVER = "http://localhost:2024"
"""The server's address in the guides."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_MARKED = re.compile(r"<!-- run: (\w+) -->\n```bash\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(language: str, path: Path = README) -> list[str]:
    """The blocks of a language in a file, in their order."""
    return [text for named, text in BLOCK.findall(path.read_text()) if named == language]


def bash_block(name: str) -> str:
    """The README's block below `<!-- run: name -->`. Who takes it runs it."""
    return dict(_MARKED.findall(README.read_text()))[name]


def check_install(words: list[str]) -> None:
    """Check that `pip` with these words would install extras of this package, and that they are here.

    Raises:
        ValueError: If there is no such extra, or one of its packages is not installed.
    """
    found = re.fullmatch(r"install -e \.\[([\w,]+)\]", " ".join(words))
    if not found:
        raise ValueError(f"pip {' '.join(words)}: only pip install -e '.[EXTRA]' is known here.")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    todo = found[1].split(",")
    for extra in todo:
        for line in extras[extra]:
            requirement = Requirement(line)
            if requirement.name == "moa-graph":
                todo += sorted(requirement.extras - {*todo})
            elif requirement.marker is None or requirement.marker.evaluate():
                metadata.version(requirement.name)


if __name__ == "__main__":
    check_install(sys.argv[1:])
