from __future__ import annotations

import pytest

from moa_graph.server.checks import addresses
from moa_graph.server.checks.addresses import check_addresses, is_private
from moa_graph.server.settings import Settings

PRIVATE = [
    "http://localhost/x.png",
    "http://LOCALHOST:8080",
    "http://a.localhost",
    "http://printer.local/x",
    "http://metadata.google.internal/",
    "http://127.0.0.1/x.png",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://10.1.2.3/",
    "https://192.168.0.1",
    "http://172.16.0.1:9000/a",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00::1]/",
    "http://[2002:7f00:1::]/",
    "http://user:pass@127.0.0.1/",
    "http://localhost./",
    "http://[::1",
    r"http://127.0.0.1\@example.com/",
    r"http:\\127.0.0.1",
    "http:/127.0.0.1/",
    "http:127.0.0.1",
    "http:///127.0.0.1/",
    "//127.0.0.1/x",
    "127.0.0.1:8080/x",
    "localhost:8080/x",
    "http://%31%32%37.0.0.1/",
    "http://loc%61lhost/",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://localhost。/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://local\thost/",
    "http://local\nhost/",
    "ht\ntp://127.0.0.1/",
    " http://127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://a@b@127.0.0.1/",
    "http://127.0.0.1:80:80/",
    "http://redis:6379/",
    "http://postgres",
    "https://metadata/",
    "http://db.localdomain/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2001:0:0:0:0:0:80ff:fffe]/",
    "http://224.0.0.1/",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://example.com/",
    "jar:http://127.0.0.1!/",
]
PUBLIC = [
    "https://example.org/x.png",
    "http://8.8.8.8/",
    "https://[2606:4700::1111]/",
    "https://localhost.example.org/",
    "https://example.org:8443/x.png?a=http://127.0.0.1/",
    "https://user:pass@example.org/x",
    "https://bücher.example/ü.png",
    "HTTPS://EXAMPLE.ORG",
    "data:image/png;base64,AAAA",
    "data:text/plain,a b",
    "gs://bucket/x.png",
    "s3://bucket/x.png",
    "file-abc123",
    "Note: see http://127.0.0.1/",
    "50% of it",
    "1, 2 or 3",
    "/9j/4AAQ\nSkZJ",
    "x",
    "",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_this_machine_and_its_network_are_refused(address):
    assert is_private(address)
    for content in (
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "image_url", "image_url": address},
        {"type": "image", "source_type": "url", "url": address},
        {"type": "image", "source": {"type": "url", "url": address}},
        {"type": "media", "file_uri": address},
        {"fileData": {"fileUri": address}},
        {"type": "video_url", "video_url": address},
        {"type": "input_audio", "audio_url": {"url": address}},
        {"type": "images", "image_urls": ["https://example.org/x.png", address]},
    ):
        with pytest.raises(ValueError, match="MOA_PRIVATE_URLS"):
            check_addresses({"messages": [{"role": "user", "content": [content]}]})


@pytest.mark.parametrize("address", PUBLIC)
def test_others_are_not(address):
    assert not is_private(address)
    check_addresses([{"image_url": {"url": address}}])


def test_an_operator_can_allow_them(monkeypatch):
    monkeypatch.setattr(addresses, "SETTINGS", Settings(private_urls=True))
    check_addresses({"url": PRIVATE[0]})


def test_text_is_not_an_address():
    check_addresses({"messages": [{"role": "user", "content": "see http://localhost/"}]})


@pytest.mark.parametrize("field", ["image", "video", "audio", "document", "file_data", "fileData"])
def test_content_may_be_an_address(field):
    for address in ("http://127.0.0.1/", "file:///etc/passwd", r"\\127.0.0.1\x"):
        with pytest.raises(ValueError, match="MOA_PRIVATE_URLS"):
            check_addresses([{"type": "x", field: address}])
    for content in (
        "https://example.org/x.png",
        "data:image/png;base64,AA==",
        "AAAA",
        "x y",
        "//uQ\nAA",
        "a: b",
    ):
        check_addresses([{"type": "x", field: content}])


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [{"name": "open", "args": {"url": "http://localhost:3000"}, "id": "1"}]},
        {"content": [{"type": "tool_use", "name": "open", "input": {"url": "http://localhost"}}]},
        {"content": [{"type": "tool_call", "name": "open", "args": {"url": "http://redis"}}]},
    ],
)
def test_arguments_of_tools_are_not_fetched(call):
    check_addresses({"messages": [{"role": "assistant", "content": "", **call}]})
