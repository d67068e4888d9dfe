"""A server is not laid open to anybody by accident, and a wrong setting is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.core.errors import UserError
from plimsoll.serve.settings import Settings, loopback

RUN = Path("runs/x")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_may_always_ask(host: str) -> None:
    assert loopback(host)
    Settings(run=RUN, host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", ""])
def test_others_only_with_a_key_or_tls_or_when_told_so(host: str) -> None:
    with pytest.raises(UserError, match="anybody could ask"):
        Settings(run=RUN, host=host).check()
    Settings(run=RUN, host=host, keys=Path("keys")).check()
    Settings(run=RUN, host=host, certificate=Path("c"), private_key=Path("k")).check()
    Settings(run=RUN, host=host, insecure=True).check()


def test_half_of_tls_is_none() -> None:
    with pytest.raises(UserError, match="certificate and its private key"):
        Settings(run=RUN, certificate=Path("c")).check()


def test_a_value_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="port"):
        Settings.of(run=RUN, port=70_000)
