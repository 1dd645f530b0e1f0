"""Run several servers with one database and one queue on this machine: `moa cluster up`.

Aegra serves the same `langgraph.json` as LangGraph Server does. Its processes take runs from a
shared queue; when a process dies, the others continue its runs. PostgreSQL and Redis are installed
from Debian packages if they are missing. Aegra is installed in its own virtual environment.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from moa_graph.server.settings import SETTINGS

_NAME = "moa"  # name of the database and its role
_PACKAGES = {"pg_createcluster": "postgresql", "redis-server": "redis-server"}
AEGRA = "aegra-api>=0.11,<0.12"
"""Requirement of the server, also in the image of `moa server init`."""
_NEEDS_PYTHON = (3, 12)
_STARTS_WITHIN = 120  # seconds
_LAST_WORDS = 10  # seconds after MOA_DRAIN_SECONDS, to end the requests that are left
_RUNS_END_WITHIN = 30  # seconds after that, in which Aegra lets runs end by default


@dataclass
class Cluster:
    """State of a cluster, stored in `cluster.json` in its folder."""

    postgres_version: str
    postgres_port: int
    redis_port: int
    password: str
    servers: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Process of each server, by port: process id and creation time in Unix seconds."""
    stops_within: float = 70
    """Seconds that a server may take to stop."""

    def save(self, folder: Path) -> None:
        """Write the state to a file that only the owner can read."""
        file = folder / "cluster.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, folder: Path) -> Cluster | None:
        """Return the state that `save` wrote, or None if there is no file."""
        try:
            return cls(**json.loads((folder / "cluster.json").read_text()))
        except FileNotFoundError:
            return None

    @property
    def postgres(self) -> tuple[str, str]:
        """Version and name of the database server, as Debian's tools expect them."""
        return self.postgres_version, f"moa_{self.postgres_port}"

    def environment(self, config: Path) -> dict[str, str]:
        """Return the environment variables of every server."""
        redis = f"redis://:{self.password}@127.0.0.1:{self.redis_port}/0"
        postgres = f"postgresql://{_NAME}:{self.password}@127.0.0.1:{self.postgres_port}/{_NAME}"
        return {
            "AEGRA_CONFIG": str(config.resolve()),
            "AUTH_TYPE": "custom",
            "DATABASE_URL": postgres,
            # To colour the traceback of a failed run takes a second, in which nothing else is done.
            "ENV_MODE": os.environ.get("ENV_MODE", "PRODUCTION"),
            "REDIS_BROKER_ENABLED": "true",
            "REDIS_URL": redis,
            "MOA_RATE_STORAGE": f"async+{redis}",
        }


def up(
    folder: Path,
    config: Path,
    *,
    servers: int,
    host: str,
    port: int,
    tell: Callable[[str], None],
) -> list[str]:
    """Start the services and servers that are not running yet.

    Args:
        folder: Folder for settings, logs and Aegra's environment.
        config: Path of `langgraph.json`.
        servers: Number of servers; at least 1.
        host: Address that the servers listen on.
        port: Port of the first server; the others use the following ports.
        tell: Function that prints a progress line before a slow step.

    Returns:
        URLs of the servers.

    Raises:
        RuntimeError: If something cannot be installed or started. The message says what to do.
    """
    if not config.is_file():
        raise RuntimeError(f"There is no {config}: run this in the folder of your langgraph.json.")
    folder.mkdir(mode=0o700, exist_ok=True)
    install_packages(tell)
    python = python_with_aegra(folder, tell)
    cluster = Cluster.load(folder) or Cluster(
        _postgres_version(), _free_port(), _free_port(), secrets.token_urlsafe(24)
    )
    cluster.stops_within = _stops_within()
    cluster.save(folder)
    _start_postgres(cluster)
    _start_redis(cluster, folder)
    for number in range(servers):
        this = port + number
        if not _process(cluster.servers.get(str(this))):
            tell(f"Starting the server on port {this} …")
            # The first server creates the tables.
            settings = {**cluster.environment(config), "HOST": host, "PORT": str(this)}
            settings["RUN_MIGRATIONS_ON_STARTUP"] = "false" if number else "true"
            cluster.servers[str(this)] = _start_server(python, folder, settings)
            cluster.save(folder)
    return [f"http://{_reachable(host)}:{port + number}" for number in range(servers)]


def down(folder: Path, *, remove: bool = False) -> None:
    """Stop everything that `up` started.

    Args:
        folder: As for `up`.
        remove: Whether to delete the threads, the logs and the environment too.
    """
    cluster = Cluster.load(folder)
    if cluster is None:
        return
    _stop([*map(_process, cluster.servers.values())], cluster.stops_within)
    _stop([_redis(cluster, folder)], _LAST_WORDS)
    if remove:
        _as_root("pg_dropcluster", "--stop", *cluster.postgres)
        shutil.rmtree(folder)
    else:
        if _listens(cluster.postgres_port):
            _as_root("pg_ctlcluster", *cluster.postgres, "stop")
        cluster.servers.clear()
        cluster.save(folder)


# --- requirements ------------------------------------------------------------------------


def install_packages(tell: Callable[[str], None]) -> None:
    """Install PostgreSQL and Redis if they are missing.

    Args:
        tell: As for `up`.

    Raises:
        RuntimeError: As `up`.
    """
    missing = [package for tool, package in _PACKAGES.items() if not shutil.which(tool)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise RuntimeError(
            f"Install {' and '.join(missing)}: this command installs packages on Debian and "
            "Ubuntu only."
        )
    tell(f"Installing {' and '.join(missing)} …")
    _as_root("apt-get", "update", "--quiet", "--quiet")
    _as_root("apt-get", "install", "--quiet", "--quiet", "--yes", *missing)


def python_with_aegra(folder: Path, tell: Callable[[str], None]) -> Path:
    """Return a Python executable with Aegra and this package installed.

    Args:
        folder: Folder for an environment, which is made if this process has no Aegra.
        tell: As for `up`.

    Raises:
        RuntimeError: As `up`.
    """
    own = folder / "environment" / "bin" / "python"
    if own.is_file():
        return own
    if sys.version_info >= _NEEDS_PYTHON and _imports(Path(sys.executable), "aegra_api"):
        return Path(sys.executable)
    for python in newer_pythons():
        tell(f"Installing Aegra, for {python} …")
        _run(str(python), "-m", "venv", "--clear", str(own.parents[1]))
        source = Path(__file__).parents[2]
        this = f"{source}[mcp]" if (source / "pyproject.toml").is_file() else "moa-graph[mcp]"
        _install(own, AEGRA, this)
        return own
    needed = ".".join(map(str, _NEEDS_PYTHON))
    raise RuntimeError(f"Aegra needs Python {needed} or newer, and there is none on the PATH.")


def newer_pythons() -> Iterator[Path]:
    """Yield Python executables that are new enough for Aegra, the current one first."""
    names = [sys.executable, *(f"python3.{minor}" for minor in range(20, _NEEDS_PYTHON[1] - 1, -1))]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = [shutil.which(name) for name in names]
    for python in [*filter(None, found), *sorted(map(str, pyenv.glob("3.*/bin/python")))]:
        asked = f"import sys, venv; sys.exit(sys.version_info < {_NEEDS_PYTHON})"
        if subprocess.run([python, "-c", asked], capture_output=True, check=False).returncode == 0:
            yield Path(python)


def _install(python: Path, *packages: str) -> None:
    # uv takes seconds where pip takes minutes, but it does not read pip's settings.
    with suppress(FileNotFoundError, RuntimeError):
        _run("uv", "pip", "install", "--quiet", "--python", str(python), *packages)
        return
    _run(str(python), "-m", "pip", "install", "--quiet", *packages)


def _imports(python: Path, module: str) -> bool:
    asked = [str(python), "-c", f"import importlib.util as i; i.find_spec('{module}').name"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


# --- the services ------------------------------------------------------------------------


def _postgres_version() -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not versions:
        raise RuntimeError("PostgreSQL's own programs are not in /usr/lib/postgresql.")
    return versions[-1].parents[1].name


def _start_postgres(cluster: Cluster) -> None:
    if not Path("/etc/postgresql", *cluster.postgres).exists():
        _as_root("pg_createcluster", "--port", str(cluster.postgres_port), *cluster.postgres)
    if not _listens(cluster.postgres_port):
        _as_root("pg_ctlcluster", *cluster.postgres, "start")
    _psql(
        cluster,
        f"""
        DO $$ BEGIN CREATE ROLE {_NAME} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
        ALTER ROLE {_NAME} PASSWORD '{cluster.password}';
        SELECT 'CREATE DATABASE {_NAME} OWNER {_NAME}'
        WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{_NAME}') \\gexec
        """,
    )


def _psql(cluster: Cluster, commands: str) -> None:
    as_owner = ["runuser", "-u", "postgres", "--", "env", "-C", "/"]
    psql = ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--port", str(cluster.postgres_port)]
    _as_root(*as_owner, *psql, given=commands)  # on stdin, because other users can read arguments


def _start_redis(cluster: Cluster, folder: Path) -> None:
    if _listens(cluster.redis_port):
        return
    here = folder.resolve()
    settings = here / "redis.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        f"bind 127.0.0.1\nport {cluster.redis_port}\nrequirepass {cluster.password}\n"
        f"dir {here}\nlogfile {here}/redis.log\npidfile {here}/redis.pid\n"
        "daemonize yes\nappendonly yes\n"
    )
    _run("redis-server", str(settings))
    _wait("Redis", lambda: _listens(cluster.redis_port), here / "redis.log")


def _redis(cluster: Cluster, folder: Path) -> psutil.Process | None:
    if not _listens(cluster.redis_port):
        return None
    with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return psutil.Process(int((folder / "redis.pid").read_text()))
    return None


def _start_server(python: Path, folder: Path, settings: dict[str, str]) -> tuple[int, float]:
    host, port = settings["HOST"], settings["PORT"]
    log = folder / f"server-{port}.log"
    command = [
        str(python), "-m", "uvicorn", "aegra_api.main:app", "--host", host, "--port", port,
        "--timeout-graceful-shutdown", str(_requests_end_within()),
    ]  # fmt: skip
    with log.open("a") as output:
        process = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **settings},
        )

    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"The server on port {port} stopped; see {log}.")
        with suppress(URLError, OSError):
            return bool(urlopen(f"http://{_reachable(host)}:{port}/health", timeout=5).status)
        return False

    _wait(f"The server on port {port}", answers, log)
    return process.pid, process.create_time()


# --- system ------------------------------------------------------------------------------


def _run(*command: str, given: str | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, input=given, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{Path(command[0]).name} failed: {said[-1] if said else 'no output'}")


def _as_root(*command: str, given: str | None = None) -> None:
    _run(*([] if os.geteuid() == 0 else ["sudo"]), *command, given=given)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _reachable(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host


def _wait(what: str, ready: Callable[[], bool], log: Path) -> None:
    ends = time.monotonic() + _STARTS_WITHIN
    while not ready():
        if time.monotonic() > ends:
            raise RuntimeError(f"{what} does not answer; see {log}.")
        time.sleep(0.2)


def _process(known: tuple[int, float] | None) -> psutil.Process | None:
    """Return the process if it is still alive and its id was not reused, else None."""
    if known is None:
        return None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(known[0])
        if process.create_time() == known[1] and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _requests_end_within() -> int:
    """Return the seconds after which a server that is told to stop ends its last requests."""
    return ceil(SETTINGS.drain_seconds) + _LAST_WORDS


def _stops_within() -> float:
    """Return the seconds after which a server that is told to stop is killed."""
    runs = float(os.environ.get("WORKER_DRAIN_TIMEOUT", _RUNS_END_WITHIN))
    return _requests_end_within() + runs + _LAST_WORDS


def _stop(processes: list[psutil.Process | None], seconds: float) -> None:
    there = [process for process in processes if process is not None]
    for process in there:
        process.terminate()
    _, late = psutil.wait_procs(there, seconds)
    for process in late:
        process.kill()
