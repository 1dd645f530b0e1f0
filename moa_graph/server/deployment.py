"""Write the files of a deployment with containers: `moa server init`."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import NamedTemporaryFile

FILES = (
    ".dockerignore",
    "Caddyfile",
    "Dockerfile",
    "README.md",
    "compose.yaml",
    "langgraph.json",
    "prometheus.yml",
)
"""Names of the files of a deployment, beside `moa.env`."""

SETTINGS = "moa.env"
"""Name of the file with settings and secrets."""

_SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "MOA_METRICS_TOKEN")
_BYTES = 32  # of a secret
_CLIENT = "me"  # owner of the first API key
# Names that no public authority certifies: RFC 2606, 6761, 6762 (with appendix G), 8375, 9476, and
# ICANN's `internal`.
_NOT_PUBLIC = re.compile(
    r"(.*\.)?(alt|corp|example|home|home\.arpa|internal|intranet|invalid|lan|local|localhost|onion"
    r"|private|test)|[^.]+"
)
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_LONGEST_NAME = 253
_ASSIGNMENT = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)


def init(
    folder: Path,
    *,
    domain: str | None = None,
    port: int | None = None,
    http_port: int | None = None,
    force: bool = False,
    tell: Callable[[str], None],
) -> str | None:
    """Write the files of a deployment, and generate its secrets.

    `moa.env` has the mode 600. If it exists, it keeps its secrets and every setting that is not
    given, because the database keeps the password that it was created with.

    Args:
        folder: Folder of the deployment; it is created if it does not exist.
        domain: Name or IPv4 address of the site; `localhost` by default.
        port: Port of the site, 1 to 65535; 443 by default.
        http_port: Port that redirects to the site, 1 to 65535; 80 by default.
        force: Whether to overwrite files.
        tell: Function that prints a line for each file.

    Returns:
        The API key that was generated; None if `moa.env` has one.

    Raises:
        ValueError: If the domain is neither a name nor an IPv4 address, or the ports are equal.
        FileExistsError: If a file exists and `force` is false.
        OSError: If a file cannot be written.
    """
    there = [name for name in (*FILES, SETTINGS) if (folder / name).exists()]
    if there and not force:
        raise FileExistsError(
            f"{folder} already has {', '.join(there)}: give another folder, or --force to replace "
            f"them ({SETTINGS} keeps its secrets)."
        )
    given = {} if domain is None else _site(domain)
    ports = {"SITE_HTTPS_PORT": port, "SITE_HTTP_PORT": http_port}
    given |= {name: str(value) for name, value in ports.items() if value is not None}
    settings, key = _settings(folder / SETTINGS, given)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(_packaged(name).read_bytes())
        tell(str(folder / name))
    _write_privately(folder / SETTINGS, settings)
    tell(str(folder / SETTINGS))
    return key


def _site(domain: str) -> dict[str, str]:
    """Return the settings of a site, whose certificate a public authority issues if it can."""
    try:
        address = str(ipaddress.IPv4Address(domain))
    except ValueError:
        name = _checked_name(domain)
        issuer = "internal" if _NOT_PUBLIC.fullmatch(name) else "acme"
        return {"SITE_DOMAIN": name, "SITE_ISSUER": issuer}
    return {"SITE_DOMAIN": address, "SITE_ISSUER": "internal"}


def _checked_name(domain: str) -> str:
    """Return a name in the form that certificates have."""
    try:
        name = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    fits = len(name) <= _LONGEST_NAME and not labels[-1].isdecimal()
    if not (fits and all(map(_LABEL.fullmatch, labels))):
        raise ValueError(
            "The domain must be a name or an IPv4 address, without scheme, port or path, not "
            f"{domain!r}."
        )
    return name


def _packaged(name: str) -> Traversable:
    """Return a file of this package. In a clone, `langgraph.json` is at its root."""
    found = files("moa_graph.server").joinpath("deploy", name)
    return found if found.is_file() else Path(__file__).parents[2] / name


def _settings(path: Path, given: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the text of `moa.env`, and the API key if one was generated."""
    text = path.read_text() if path.exists() else _packaged(SETTINGS).read_text()
    known = {name: value for name, value in _ASSIGNMENT.findall(text) if value}
    key = None if "MOA_API_KEYS" in known else secrets.token_urlsafe(_BYTES)
    defaults = {**_site("localhost"), "SITE_HTTPS_PORT": "443", "SITE_HTTP_PORT": "80"}
    defaults |= {name: secrets.token_urlsafe(_BYTES) for name in _SECRETS}
    defaults |= {"MOA_API_KEYS": f"{_CLIENT}={key}"}
    values = {**defaults, **known, **given, "MOA_VERSION": version("moa-graph")}
    if values["SITE_HTTPS_PORT"] == values["SITE_HTTP_PORT"]:
        raise ValueError(
            f"The ports for HTTPS and HTTP must differ, not {values['SITE_HTTP_PORT']} for both."
        )
    for name in (*defaults, "MOA_VERSION"):
        text = _with(text, name, values[name])
    return text, key


def _with(text: str, name: str, value: str) -> str:
    """Return the text of settings in which a setting has this value."""
    line = f"{name}={value}"
    text, found = re.subn(rf"^{name}=.*$", lambda _: line, text, flags=re.MULTILINE)
    return text if found else f"{text.rstrip()}\n{line}\n"


def _write_privately(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
