"""Addresses of one server or several, in parts."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from payflow.platform.addresses import split_address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql://payflow:p%40ss%2C@a:5432/d?sslmode=require&x=1#y",
        "postgresql:///d?host=/run/postgresql",
        "POSTGRESQL://[::1]:5432/d",
        "unix:///tmp/valkey.sock",
        "redis://:p:w@a/0",
        " redis+cluster://a:1,b:2",
        "a:1",
        "//a:1/b",
    ],
)
def test_the_parts_are_those_of_the_standard_library(url: str) -> None:
    assert split_address(url) == urlsplit(url)


def test_any_of_several_servers_may_have_an_address_of_ipv6() -> None:
    parts = split_address("postgresql://u:p@a:1,[::1]:2,[::2]/d")

    assert (parts.username, parts.password, parts.netloc) == ("u", "p", "u:p@a:1,[::1]:2,[::2]")
    assert (parts.scheme, parts.path) == ("postgresql", "/d")
