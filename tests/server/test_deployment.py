"""What the files of a deployment say; `tests/integration/test_deploy.py` runs them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values

from moa_graph.server.cluster import AEGRA
from moa_graph.server.deployment import init
from moa_graph.server.settings import Settings
from tests.integration.composed import interpolated

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path) -> Path:
    init(tmp_path, domain="moa.example.com", tell=lambda _: None)
    return tmp_path


@pytest.fixture
def file(folder) -> dict:
    """The `compose.yaml` without its variables."""
    return yaml.safe_load((folder / "compose.yaml").read_text())


@pytest.fixture
def services(file, folder) -> dict:
    return interpolated(file, dotenv_values(folder / "moa.env"))["services"]


@pytest.fixture
def servers(services) -> dict:
    return {name: service for name, service in services.items() if "build" in service}


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])


def test_every_service_is_pinned_checked_and_restarted(services):
    for name, service in services.items():
        assert re.fullmatch(r"[\w/-]+:v?\d+(\.\d+)*", service["image"]), name
        assert service["restart"] == "unless-stopped", name
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert seconds(check["timeout"]) <= seconds(check["interval"]), name
        assert "driver" in service["logging"], name


def test_only_the_proxy_is_published(services, file):
    assert {name for name, service in services.items() if "ports" in service} == {"proxy"}
    assert services["proxy"]["ports"] == ["80:80", "443:443"]
    assert file["networks"]["back"]["internal"]
    for name in ("postgres", "redis", "cache", "prometheus"):
        assert services[name]["networks"] == ["back"]


def test_no_secret_is_in_a_file(folder, file):
    named = re.compile(r"(PASSWORD|TOKEN|KEYS?|SECRET)$|_URL$|^MOA_CACHE$|^MOA_RATE_STORAGE$")
    for service in file["services"].values():
        for name, value in service.get("environment", {}).items():
            if named.search(name):
                assert "${" in value, name
    without = dict.fromkeys(dotenv_values(folder / "moa.env"), "")
    with pytest.raises(ValueError, match=r"--env-file moa\.env"):
        interpolated(file, without)


def test_every_variable_has_a_value(folder, file):
    """A secret of which the name is misspelt is an error here, and empty in a container."""
    known = {name: value for name, value in dotenv_values(folder / "moa.env").items() if value}
    optional = {"MOA_PACKAGES", "MOA_MAX_BYTES"}
    used = set(re.findall(r"\$\{(\w+)", json.dumps(file)))
    assert used - set(known) == optional
    required = set(re.findall(r"\$\{(\w+):\?", json.dumps(file)))
    assert used - optional == required


def test_servers_have_time_to_finish(servers):
    for service in servers.values():
        given = service["environment"]
        requests = int(given["UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"])
        assert requests > int(given["MOA_DRAIN_SECONDS"])
        runs = int(given["WORKER_DRAIN_TIMEOUT"])
        assert seconds(service["stop_grace_period"]) > requests + runs


def test_servers_share_a_database_a_queue_counts_and_proposals(servers, services, monkeypatch):
    one, other = (service["environment"] for service in servers.values())
    assert one.keys() == other.keys()
    differ = {name for name in one if one[name] != other[name]}
    assert differ == {"RUN_MIGRATIONS_ON_STARTUP"}
    for name in ("DATABASE_URL", "REDIS_URL", "MOA_RATE_STORAGE", "MOA_CACHE"):
        host = re.search(r"@([\w-]+):\d+/", one[name])
        assert host[1] in services, name
    for name, value in one.items():
        monkeypatch.setenv(name, value)
    assert Settings().rate_storage.startswith("async+redis://")
    assert Settings().cache.startswith("redis://")


def test_one_server_migrates_before_the_other_starts(servers):
    (migrates,) = [
        name
        for name, service in servers.items()
        if service["environment"]["RUN_MIGRATIONS_ON_STARTUP"] == "true"
    ]
    (other,) = servers.keys() - {migrates}
    assert servers[other]["depends_on"][migrates] == {"condition": "service_healthy"}


def test_the_proxy_and_prometheus_know_all_servers(folder, servers):
    proxy = (folder / "Caddyfile").read_text()
    (upstreams,) = re.findall(r"^\treverse_proxy (.*) \{$", proxy, re.MULTILINE)
    addresses = {f"{name}:2026" for name in servers}
    assert set(upstreams.split()) == addresses
    metrics = yaml.safe_load((folder / "prometheus.yml").read_text())
    (job,) = metrics["scrape_configs"]
    assert set(job["static_configs"][0]["targets"]) == addresses
    for service in servers.values():
        assert "127.0.0.1:2026/ready" in service["healthcheck"]["test"][-1]


def test_volumes_networks_and_secrets_are_declared(file):
    for kind in ("networks", "volumes", "secrets"):
        used = {
            each.split(":")[0]
            for service in file["services"].values()
            for each in service.get(kind, ())
            if not each.startswith(".")
        }
        assert used == set(file[kind])


def test_files_that_are_mounted_are_written(folder, file):
    for service in file["services"].values():
        for volume in service.get("volumes", ()):
            if volume.startswith("."):
                assert (folder / volume.split(":")[0]).is_file()


@pytest.mark.parametrize("wheels", [[], ["0.0.9"], ["1.2.3"], ["0.0.9", "1.2.3"]])
def test_a_wheel_of_the_version_is_installed_in_place_of_the_release(folder, tmp_path, wheels):
    text = (folder / "Dockerfile").read_text().replace("\\\n", "")
    (install,) = re.findall(r"^RUN (set .*)$", text, re.MULTILINE)
    for version in wheels:
        (folder / f"moa_graph-{version}-py3-none-any.whl").touch()
    said = subprocess.run(
        ["sh", "-c", f"pip() {{ printf '%s|' \"$@\"; }}; {install}"],
        cwd=folder, text=True, capture_output=True, check=True,
        env={"MOA_VERSION": "1.2.3", "MOA_PACKAGES": "langchain-anthropic langchain-groq"},
    )  # fmt: skip
    moa, aegra, *more = said.stdout.strip("|").split("|")[2:]
    wheel = "./moa_graph-1.2.3-py3-none-any.whl[mcp]"
    assert moa == (wheel if "1.2.3" in wheels else "moa-graph[mcp]==1.2.3")
    assert aegra == AEGRA
    assert more == ["langchain-anthropic", "langchain-groq"]
