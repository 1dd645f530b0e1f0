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
]
PUBLIC = [
    "https://example.org/x.png",
    "http://8.8.8.8/",
    "https://[2606:4700::1111]/",
    "https://localhost.example.org/",
    "data:image/png;base64,AAAA",
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
