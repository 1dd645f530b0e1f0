"""The processes of a `compose.yaml` without containers: each service has a loopback address.

Commands, environment, configuration, secrets, health checks and the order of starts are those of
the files. Only what a container has for itself is translated: the names of services, the addresses
that a program listens on, and paths in the container.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

_STARTS_WITHIN = 180  # seconds; well above what it should take
_STOPS_WITHIN = 15
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")
_OWN_ADDRESS = re.compile(r"\b(0\.0\.0\.0|127\.0\.0\.1|localhost)\b")
_POSTGRES_USER = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
_DATABASE = "/var/lib/postgresql/data"
_CADDY = ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]


def interpolated(value: Any, variables: Mapping[str, str | None]) -> Any:
    """A value of a `compose.yaml` with its variables replaced, as Compose does it."""

    def replace(found: re.Match[str]) -> str:
        name, operator, text = found.groups()
        if name is None:
            return "$"
        value = variables.get(name)
        if (value is None and operator != "-") or (not value and operator == "?"):
            raise ValueError(f"{name}: {text or 'is not set'}")
        return value or text or ""

    if isinstance(value, str):
        return _VARIABLE.sub(replace, value)
    if isinstance(value, list):
        return [interpolated(each, variables) for each in value]
    if isinstance(value, dict):
        return {name: interpolated(each, variables) for name, each in value.items()}
    return value


class Composed:
    """The services of a folder with a `compose.yaml`.

    Args:
        folder: The folder.
        settings: Name of its file of settings.
        work: An empty folder for volumes, logs and images, which every user may enter.
        python: A Python that has the packages which the Dockerfile installs.
    """

    def __init__(self, folder: Path, settings: str, work: Path, python: Path) -> None:
        self.variables = dotenv_values(folder / settings)
        file = interpolated(yaml.safe_load((folder / "compose.yaml").read_text()), self.variables)
        self.services: dict[str, Any] = file["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder, self._work = folder, work
        net = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self._addresses = {name: f"{net}.{i}" for i, name in enumerate(self.services, start=1)}
        postgres = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._path = f"{python.parent}:{postgres}:{os.environ['PATH']}"
        self._paths = {name: self._places(name) for name in self.services}
        secrets = {
            name: self.variables[given["environment"]] for name, given in file["secrets"].items()
        }
        for name in self.services:
            self._fill(name, secrets)
        (build,) = {json.dumps(s["build"]) for s in self.services.values() if "build" in s}
        arguments = json.loads(build)["args"]
        self._image = Image.built(folder, arguments, work / "image", self._path)

    def address(self, name: str) -> str:
        """The address of a service."""
        return self._addresses[name]

    def log(self, name: str) -> str:
        """What a service has written so far."""
        return (self._work / f"{name}.log").read_text()

    def volume(self, name: str) -> Path:
        """The folder of a volume."""
        return self._work / "volumes" / name

    def up(self) -> None:
        """Start the services in the order of their dependencies, until all are healthy."""
        ends, healthy = time.monotonic() + _STARTS_WITHIN, set[str]()
        while late := set(self.services) - healthy:
            assert time.monotonic() < ends, {name: self.log(name)[-3000:] for name in late}
            for name in late:
                if name in self.processes:
                    assert self.processes[name].poll() is None, f"{name}: {self.log(name)[-3000:]}"
                    healthy |= {name} if self.is_healthy(name) else set()
                elif healthy.issuperset(self.services[name].get("depends_on", ())):
                    self._start(name)
            time.sleep(0.3)

    def stop(self, *names: str) -> None:
        """Stop services, or all."""
        stopped = {name: self.processes.pop(name) for name in names or list(self.processes)}
        for name, process in stopped.items():
            # At SIGTERM, PostgreSQL waits for its clients; its image has this signal instead.
            fast = _image(self.services[name]) == "postgres"
            process.send_signal(signal.SIGINT if fast else signal.SIGTERM)
        for process in stopped.values():
            try:
                process.wait(_STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def is_healthy(self, name: str) -> bool:
        """Whether the health check of a service succeeds."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        return self.run(name, *command).returncode == 0

    def run(self, name: str, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command as if in a container of a service, with more variables."""
        return subprocess.run(
            [self._here(name, part, own=True) for part in command],
            env=self._environment(name) | more, cwd=self._work, check=False, capture_output=True,
            text=True,
        )  # fmt: skip

    @contextmanager
    def also(self, name: str, **more: str) -> Iterator[None]:
        """Another process of a service, with other variables."""
        process = self._popen(name, self._command(name), **more)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _start(self, name: str) -> None:
        if _image(self.services[name]) == "postgres":
            self._make_database(name)
        self.processes[name] = self._popen(name, self._command(name))

    def _command(self, name: str) -> list[str]:
        """The command of a service's container."""
        service = self.services[name]
        command = service.get("command", [])
        if _image(service) == "postgres":
            options = "-c listen_addresses=0.0.0.0 -c unix_socket_directories="
            return [*command, "-D", _DATABASE, *options.split()]
        if _image(service) == "redis":
            options = "redis-server - --bind 0.0.0.0 --dir /data"
            return [part.replace("redis-server -", options) for part in command]
        if _image(service) == "prom/prometheus":
            return ["prometheus", *command]
        return _CADDY if _image(service) == "caddy" else self._image.command

    def _popen(self, name: str, command: list[str], **more: str) -> subprocess.Popen[bytes]:
        with (self._work / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [self._here(name, part, own=True) for part in command],
                env=self._environment(name) | more, cwd=self._paths[name]["/app"], stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                user=_POSTGRES_USER if _image(self.services[name]) == "postgres" else None,
            )  # fmt: skip

    def _make_database(self, name: str) -> None:
        """Make a database as the image does when its volume is empty."""
        folder, given = self._paths[name][_DATABASE], self.services[name]["environment"]
        password = self._work / name / "password"
        password.write_text(given["POSTGRES_PASSWORD"])
        for path in (folder, password):
            if _POSTGRES_USER:
                shutil.chown(path, _POSTGRES_USER)

        def run(*command: object, given: str = "") -> None:
            subprocess.run(
                command, input=given, env=self._environment(name), cwd=folder, user=_POSTGRES_USER,
                text=True, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip

        options = f"--username {given['POSTGRES_USER']} --auth scram-sha-256 --no-sync"
        run("initdb", "--pgdata", folder, "--pwfile", password, *options.split())
        create = f"CREATE DATABASE {given['POSTGRES_DB']}"
        run("postgres", "--single", "-D", folder, "postgres", given=create)

    def _environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        found: dict[str, Any] = {"PATH": self._path}
        if "build" in service:
            found |= self._image.environment
        elif _image(service) == "caddy":
            found |= {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/config", "CADDY_ADMIN": "off"}
        for file in service.get("env_file", ()):
            found |= dotenv_values(self._folder / file)
        found |= service.get("environment", {})
        return {key: self._here(name, value) for key, value in found.items()}

    def _here(self, name: str, text: str, *, own: bool = False) -> str:
        """A text of a container, with addresses and paths of this machine.

        With `own`, the service has its address where a container has all of them.
        """
        if own:
            text = _OWN_ADDRESS.sub(self._addresses[name], text)
        for service, address in self._addresses.items():
            text = re.sub(rf"(?<![\w.-]){service}(?=:\d)", address, text)
        for place, path in self._paths[name].items():
            text = re.sub(rf"(?<![\w/.]){re.escape(place)}(?![\w.-])", str(path), text)
        return text

    def _places(self, name: str) -> dict[str, Path]:
        """The paths of a container, and where they are here."""
        own, service = self._work / name, self.services[name]
        found = {"/config": own / "config", "/data": own / "data"}
        found["/app"] = self._work / "image" if "build" in service else own
        for secret in service.get("secrets", ()):
            found[f"/run/secrets/{secret}"] = own / secret
        for mounted in service.get("volumes", ()):
            source, place, *_ = mounted.split(":")
            found[place] = own / source if source.startswith(".") else self.volume(source)
        return found

    def _fill(self, name: str, secrets: Mapping[str, str | None]) -> None:
        """Make the folders and files of a container."""
        service, paths = self.services[name], self._paths[name]
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        for secret in service.get("secrets", ()):
            paths[f"/run/secrets/{secret}"].write_text(secrets[secret] or "")
        for mounted in service.get("volumes", ()):
            source, place, *_ = mounted.split(":")
            if source.startswith("."):
                text = (self._folder / source).read_text()
                paths[place].write_text(self._here(name, text))
            else:
                paths[place].mkdir(parents=True)
        (self._work / name / "data").mkdir(exist_ok=True)


def _image(service: Mapping[str, Any]) -> str:
    return service["image"].partition(":")[0]


@dataclass
class Image:
    """What a Dockerfile makes."""

    command: list[str]
    environment: dict[str, str]

    @classmethod
    def built(cls, context: Path, arguments: Mapping[str, str], folder: Path, path: str) -> Image:
        """Follow the Dockerfile of a folder; pip checks only that all is installed.

        Args:
            context: The folder.
            arguments: Those of the build.
            folder: The working folder of the image, which is made.
            path: Where programs are.
        """
        folder.mkdir()
        environment, command = {}, []
        text = re.sub(r"^#.*\n|\\\n", "", (context / "Dockerfile").read_text(), flags=re.MULTILINE)
        for instruction, _, rest in (line.partition(" ") for line in text.splitlines() if line):
            if instruction == "ENV":
                environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            elif instruction == "COPY":
                for pattern in rest.split()[:-1]:
                    for file in context.glob(pattern):
                        shutil.copy(file, folder)
            elif instruction == "RUN":
                dry = {"PATH": path, "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_QUIET": "1"}
                subprocess.run(
                    ["sh", "-c", rest],
                    cwd=folder,
                    env={**environment, **arguments, **dry},
                    check=True,
                )
            elif instruction == "CMD":
                command = json.loads(rest)
        return cls(command, environment)
