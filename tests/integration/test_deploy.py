"""The deployment that `moa server init` writes: its processes, without containers."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, AuthenticationError, RateLimitError

from tests.fake_server import eventually
from tests.integration.composed import Composed

pytestmark = pytest.mark.services

CLIENTS = ("ann", "ben", "carl", "dora", "emil")
KEYS = {name: f"{name}-0123456789abcdef" for name in CLIENTS}
RUNS_PER_MINUTE = 12
LARGEST = 100_000  # bytes of a request
QUESTION = [{"role": "user", "content": "hi there"}]
PORTS = ("SITE_HTTPS_PORT", "SITE_HTTP_PORT")
SERVERS = ("server-1", "server-2")
INIT = """
import sys
from pathlib import Path
from moa_graph.server.deployment import init
print(init(Path(sys.argv[1]), port=int(sys.argv[2]), http_port=int(sys.argv[3]), tell=print))
"""


@dataclass
class Deployment:
    """A running deployment."""

    composed: Composed
    folder: Path
    port: int
    http_port: int
    trust: ssl.SSLContext
    """Trusts the authority of the proxy."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, name: str) -> AsyncOpenAI:
        """OpenAI's client with the key of a client."""
        return AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key=KEYS.get(name, "wrong-0123456789abcdef"),
            http_client=httpx.AsyncClient(verify=self.trust),
            max_retries=0,
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def has_certificate(port: int, site: str, trust: ssl.SSLContext) -> bool:
    """Whether a client that connects to a port as that site trusts what it gets."""
    with suppress(ConnectionRefusedError, ssl.SSLError):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        with connection, trust.wrap_socket(connection, server_hostname=site):
            return True
    return False


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder that the database's user may enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="moa-deploy-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def folder(aegra, work, _server) -> Path:
    """What the installed package writes, with an operator's settings."""
    folder = work / "folder"
    ports = map(str, free_ports(2))
    subprocess.run([aegra, "-I", "-c", INIT, folder, *ports], check=True, cwd=work)
    settings = folder / "moa.env"
    metrics = folder / "prometheus.yml"
    metrics.write_text(metrics.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s"))
    keys = ",".join(f"{name}={key}" for name, key in KEYS.items())
    text = re.sub("^MOA_API_KEYS=.*$", rf"\g<0>,{keys}", settings.read_text(), flags=re.MULTILINE)
    settings.write_text(
        f"{text}"
        f"OPENAI_BASE_URL={_server.url}\n"
        "OPENAI_API_KEY=sk-test-0123456789\n"
        "MOA_ALLOWED_MODELS=openai:*\n"
        f"MOA_MAX_BYTES={LARGEST}\n"
        f"MOA_RUNS_PER_MINUTE={RUNS_PER_MINUTE}\n"
    )
    return folder


@pytest.fixture(scope="module")
async def deployment(folder, work, aegra) -> AsyncIterator[Deployment]:
    (work / "containers").mkdir()
    composed = Composed(folder, "moa.env", work / "containers", aegra)
    try:
        composed.up()
        port, http_port = (int(composed.variables[name] or 0) for name in PORTS)
        root = composed.volume("certificates") / "caddy/pki/authorities/local/root.crt"
        trust = ssl.create_default_context(cafile=str(root))
        await eventually(lambda: has_certificate(port, "localhost", trust), 30)
        yield Deployment(composed, folder, port, http_port, trust)
    finally:
        composed.stop()


@pytest.fixture(scope="module")
async def mixture(deployment) -> str:
    """The name of an assistant of every client."""
    context = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg?tps=20"}
    for key in KEYS.values():
        async with httpx.AsyncClient(verify=deployment.trust, base_url=deployment.url) as http:
            made = await http.post(
                "/assistants",
                headers={"x-api-key": key},
                json={"graph_id": "mixture", "name": "mine", "context": context},
            )
            assert made.is_success, made.text
    return "mine"


def answered_by(name: str, composed: Composed) -> list[str]:
    """The ids of the requests to OpenAI's API that a server has answered."""
    lines = [json.loads(line) for line in composed.log(name).splitlines() if line[:1] == "{"]
    requests = [line["http"] for line in lines if "http" in line]
    return [each["request_id"] for each in requests if each["url"] == "/v1/chat/completions"]


async def test_both_servers_answer_over_tls_and_have_the_ids_of_requests(
    deployment, mixture, server
):
    server.answers["agg"] = "word " * 10  # half a second, in which the other requests arrive
    ids = [str(uuid.uuid4()) for _ in range(6)]
    async with deployment.client("ann") as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=mixture, messages=QUESTION, extra_headers={"X-Request-ID": each}
                )
                for each in ids
            )
        )
    assert [each.choices[0].message.content for each in answers] == ["word " * 10] * 6

    def seen() -> list[set[str]]:
        return [set(answered_by(name, deployment.composed)) & set(ids) for name in SERVERS]

    await eventually(lambda: set.union(*seen()) == set(ids))
    assert all(seen()), "one server has answered all requests"
    assert not set.intersection(*seen())


async def test_an_answer_arrives_while_it_is_written(deployment, mixture, server):
    server.answers["agg"] = "word " * 40
    async with deployment.client("ben") as client:
        stream = await client.chat.completions.create(model=mixture, messages=QUESTION, stream=True)
        ended = [
            server.of("agg")[0].ended async for part in stream if part.choices[0].delta.content
        ]
    assert len(ended) >= 40
    assert ended[0] is None, "the proxy has kept the first token"
    assert None in ended[1:20]


async def test_a_client_that_leaves_ends_the_call(deployment, mixture, server):
    server.answers["agg"] = "word " * 400
    async with deployment.client("ben") as client:
        stream = await client.chat.completions.create(model=mixture, messages=QUESTION, stream=True)
        async for part in stream:
            if part.choices[0].delta.content:
                break
        await stream.close()
    await eventually(lambda: server.of("agg")[0].disconnected)


async def test_clients_without_a_key_are_refused(deployment, mixture, server):
    async with deployment.client("none") as client:
        with pytest.raises(AuthenticationError):
            await client.chat.completions.create(model=mixture, messages=QUESTION)
    assert not server.calls


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models", 401),
        ("/moa", 200),
        ("/live", 200),
        ("/ready", 200),
        ("/metrics", 404),
        ("/metrics/", 404),
        ("//metrics", 404),
        ("/%6Detrics", 404),
        ("/moa/../metrics", 404),
        ("/./metrics?a=1", 404),
    ],
)
def test_what_is_public(deployment, path, status):
    """With the token of metrics, which is for Prometheus, and with the path as it is."""
    token = {"Authorization": f"Bearer {deployment.composed.variables['MOA_METRICS_TOKEN']}"}
    connection = HTTPSConnection("localhost", deployment.port, context=deployment.trust, timeout=10)
    connection.request("GET", path, headers=token)
    assert connection.getresponse().status == status
    connection.close()


def test_plain_http_is_sent_to_tls(deployment):
    answer = httpx.get(f"http://localhost:{deployment.http_port}/v1/models")
    assert answer.status_code == 308
    assert answer.headers["location"] == f"{deployment.url}/v1/models"


async def test_a_request_that_is_too_large_is_refused(deployment, server):
    headers = {"x-api-key": KEYS["ann"], "content-type": "application/json"}
    body = b" " * (LARGEST + 1)

    async def parts():
        yield body

    async with httpx.AsyncClient(verify=deployment.trust, headers=headers) as client:
        for content in (body, parts()):
            answer = await client.post(f"{deployment.url}/v1/chat/completions", content=content)
            assert answer.status_code == 413, answer.text
    assert not server.calls


async def test_servers_share_proposals(deployment, mixture, server):
    async with deployment.client("carl") as client:
        for _ in range(4):
            await client.chat.completions.create(model=mixture, messages=QUESTION)
    assert sorted(server.labels()) == ["a", "agg", "agg", "agg", "agg", "b"]


async def test_servers_count_runs_together(deployment, mixture):
    async with deployment.client("dora") as client:
        outcomes = await asyncio.gather(
            *(
                client.chat.completions.create(model=mixture, messages=QUESTION)
                for _ in range(RUNS_PER_MINUTE + 4)
            ),
            return_exceptions=True,
        )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(each) for each in refused] == [RateLimitError] * 4


async def test_prometheus_reads_the_metrics_of_both_servers(deployment, mixture):
    composed, prometheus = deployment.composed, "http://localhost:9090"
    async with deployment.client("emil") as client:
        await client.chat.completions.create(model=mixture, messages=QUESTION)

    def health() -> dict[str, str]:
        asked = ("wget", "-q", "-O", "-", f"{prometheus}/api/v1/targets")
        targets = json.loads(composed.run("prometheus", *asked).stdout)["data"]["activeTargets"]
        return {target["scrapeUrl"]: target["health"] for target in targets}

    def runs() -> str:
        query = ("promtool", "query", "instant", prometheus, "sum(moa_runs_total) > 0")
        return composed.run("prometheus", *query).stdout.strip()

    up = {f"http://{composed.address(name)}:2026/metrics": "up" for name in SERVERS}
    await eventually(lambda: health() == up, 60)
    await eventually(runs, 60)


def test_no_log_has_a_secret(deployment):
    composed = deployment.composed
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "MOA_METRICS_TOKEN", "OPENAI_API_KEY")
    secrets = [*KEYS.values(), *(composed.variables[name] for name in names)]
    for service in composed.services:
        log = composed.log(service)
        assert log, service
        assert not [secret for secret in secrets if secret in log], service


async def test_the_certificate_is_of_the_address_and_of_the_authority(deployment, work):
    """A client that connects to an address sends no name; the proxy does not know the address."""
    address, (port, http_port) = "192.0.2.1", free_ports(2)
    site = {"SITE_DOMAIN": address, "SITE_HTTPS_PORT": str(port), "SITE_HTTP_PORT": str(http_port)}
    adapted = deployment.composed.run(
        "proxy", "caddy", "adapt", "--config", "/etc/caddy/Caddyfile", **site, SITE_ISSUER="acme"
    )
    (policy,) = json.loads(adapted.stdout)["apps"]["tls"]["automation"]["policies"]
    assert policy["subjects"] == [address]
    assert [issuer["module"] for issuer in policy["issuers"]] == ["acme"]
    with deployment.composed.also("proxy", **site):
        await eventually(lambda: has_certificate(port, address, deployment.trust), 30)


async def test_the_proxy_goes_on_with_the_other_server(deployment, mixture):
    composed, headers = deployment.composed, {"x-api-key": KEYS["emil"]}
    dead = composed.processes["server-1"]
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    async with httpx.AsyncClient(verify=deployment.trust, headers=headers) as client:
        for _ in range(6):
            assert (await client.get(f"{deployment.url}/v1/models")).status_code == 200
    # Caddy repeats requests with a body only from 2.7 on; the health check then helps the others.
    noticed = re.compile(rf"health_checker.*{re.escape(composed.address('server-1'))}:2026/ready")
    await eventually(lambda: noticed.search(composed.log("proxy")), 30)
    async with deployment.client("emil") as client:
        for number in range(4):
            question = [{"role": "user", "content": f"question {number}"}]
            answer = await client.chat.completions.create(model=mixture, messages=question)
            assert answer.choices[0].message.content == f"agg: question {number}"


async def test_a_backup_restores_threads(deployment):
    """The commands of the deployment's README."""
    composed = deployment.composed
    readme = (deployment.folder / "README.md").read_text()
    dump, restore = re.findall(r"^docker compose exec -T postgres (.*)$", readme, re.MULTILINE)
    password = composed.variables["POSTGRES_PASSWORD"]
    client = {"PGHOST": composed.address("postgres"), "PGPASSWORD": password or ""}

    def run(command: str) -> str:
        done = composed.run("postgres", "sh", "-c", command, **client)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    count = "psql --username=moa moa --tuples-only --command='SELECT count(*) FROM thread'"
    headers = {"x-api-key": KEYS["ann"]}
    async with httpx.AsyncClient(verify=deployment.trust, headers=headers) as http:
        made = (await http.post(f"{deployment.url}/threads", json={})).json()["thread_id"]
        before = run(count)
        run(dump)
        deleted = await http.delete(f"{deployment.url}/threads/{made}")
        assert deleted.is_success, deleted.text
    assert int(run(count)) == int(before) - 1
    composed.stop(*SERVERS)
    run(restore)
    assert run(count) == before
