"""`moa server init`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from moa_graph.cli.app import app
from moa_graph.server import graphs
from moa_graph.server.deployment import FILES

ROOT = Path(__file__).parents[2]
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "MOA_METRICS_TOKEN")


@pytest.fixture
def init(tmp_path):
    """`init("--port", "8443")`: the command with a folder."""

    def run(*options: str, folder: Path = tmp_path / "site"):
        return CliRunner().invoke(app, ["server", "init", str(folder), *options])

    return run


def settings(tmp_path: Path) -> dict[str, str | None]:
    return dotenv_values(tmp_path / "site" / "moa.env")


def test_it_writes_all_files_and_prints_a_key(init, tmp_path):
    result = init()
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "site").iterdir()} == {*FILES, "moa.env"}
    for name in (*FILES, "moa.env"):
        assert str(tmp_path / "site" / name) in result.stderr
    assert settings(tmp_path)["MOA_API_KEYS"] == f"me={result.stdout.strip()}"
    assert "To deploy this clone" in result.stderr


def test_secrets_are_generated_and_private(init, tmp_path):
    assert init().exit_code == init(folder=tmp_path / "other").exit_code == 0
    one, other = settings(tmp_path), dotenv_values(tmp_path / "other" / "moa.env")
    secrets = [each[name] or "" for each in (one, other) for name in (*SECRETS, "MOA_API_KEYS")]
    assert len(set(secrets)) == 8
    assert all(len(secret) >= 40 for secret in secrets)
    assert stat.S_IMODE((tmp_path / "site" / "moa.env").stat().st_mode) == 0o600
    for name in FILES:
        text = (tmp_path / "site" / name).read_text()
        assert not [secret for secret in secrets if secret in text]


def test_the_image_has_the_graphs_of_the_repository(init, tmp_path):
    assert init().exit_code == 0
    text = (tmp_path / "site" / "langgraph.json").read_text()
    assert text == (ROOT / "langgraph.json").read_text()
    paths = {each["path"] for each in json.loads(text)["graphs"].values()}
    assert paths == {f"./moa_graph/server/graphs.py:{name}" for name in graphs.__all__}


def test_nothing_is_overwritten_by_itself(init, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "Dockerfile").write_text("mine")
    result = init()
    assert result.exit_code == 1
    assert "already has Dockerfile" in result.stderr
    assert "--force" in result.stderr
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["Dockerfile"]
    assert init("--force").exit_code == 0
    assert (tmp_path / "site" / "Dockerfile").read_text() != "mine"


def test_force_keeps_secrets_and_settings(init, tmp_path):
    assert init("--domain", "moa.example.com", "--port", "8443").exit_code == 0
    file = tmp_path / "site" / "moa.env"
    file.write_text(f"{file.read_text()}# mine\nTOGETHER_API_KEY=tgp\\1$x")
    file.write_text(file.read_text().replace("REDIS_PASSWORD=", "OLD="))
    file.chmod(0o644)
    before = settings(tmp_path)
    result = init("--force", "--http-port", "8080")
    assert result.exit_code == 0
    assert result.stdout == "", "a key is printed once"
    after = settings(tmp_path)
    assert after.pop("REDIS_PASSWORD")
    assert after == {**before, "SITE_HTTP_PORT": "8080"}
    assert "# mine" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert init("--force", "--domain", "localhost").exit_code == 0
    assert settings(tmp_path)["SITE_ISSUER"] == "internal"
    assert settings(tmp_path)["SITE_HTTPS_PORT"] == "8443"


@pytest.mark.parametrize(
    ("domain", "site", "issuer"),
    [
        (None, "localhost", "internal"),
        ("moa.example.com", "moa.example.com", "acme"),
        ("MOA.Example.com", "moa.example.com", "acme"),
        ("bücher.example.com", "xn--bcher-kva.example.com", "acme"),
        ("localhost", "localhost", "internal"),
        ("moa.localhost", "moa.localhost", "internal"),
        ("server", "server", "internal"),
        ("moa.lan", "moa.lan", "internal"),
        ("moa.internal", "moa.internal", "internal"),
        ("moa.home.arpa", "moa.home.arpa", "internal"),
        ("internal.example.com", "internal.example.com", "acme"),
        ("mylocal.com", "mylocal.com", "acme"),
        ("192.0.2.1", "192.0.2.1", "internal"),
    ],
)
def test_a_public_name_has_a_public_certificate(init, tmp_path, domain, site, issuer):
    assert init(*(["--domain", domain] if domain else [])).exit_code == 0
    given = settings(tmp_path)
    assert (given["SITE_DOMAIN"], given["SITE_ISSUER"]) == (site, issuer)


@pytest.mark.parametrize(
    "options",
    [
        ["--domain", ""],
        ["--domain", "https://moa.example.com"],
        ["--domain", "moa.example.com:8443"],
        ["--domain", "moa.example.com/moa"],
        ["--domain", "*.example.com"],
        ["--domain", "moa..example.com"],
        ["--domain", "-moa.example.com"],
        ["--domain", "moa example.com"],
        ["--domain", "moa.example.com\nX=1"],
        ["--domain", "{$HOME}.example.com"],
        ["--domain", "a" * 64 + ".example.com"],
        ["--domain", ".".join(["a" * 60] * 5)],
        ["--domain", "256.1.1.1"],
        ["--domain", "::1"],
        ["--port", "0"],
        ["--port", "65536"],
        ["--port", "https"],
        ["--port", "80"],
        ["--http-port", "443"],
        ["--port", "8443", "--http-port", "8443"],
    ],
)
def test_a_wrong_call_writes_nothing(init, tmp_path, options):
    result = init(*options)
    assert result.exit_code == 2, result.output
    assert options[0].removeprefix("--").split("-")[-1] in result.stderr.lower()
    assert not (tmp_path / "site").exists()


def test_a_folder_that_is_a_file_is_told(init, tmp_path):
    (tmp_path / "site").write_text("")
    result = init()
    assert result.exit_code == 1
    assert "site" in result.stderr
    assert "Traceback" not in result.output
