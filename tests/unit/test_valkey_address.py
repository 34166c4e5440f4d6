"""Addresses of one server and of a cluster."""

from __future__ import annotations

import pytest
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from payflow.platform.settings import CommonSettings, SettingsError, read_settings, shown
from payflow.platform.valkey import connect_valkey


def test_one_server_and_a_cluster_are_told_by_their_addresses() -> None:
    assert isinstance(connect_valkey("redis://localhost:6379/0"), redis.Redis)
    assert isinstance(connect_valkey("redis+cluster://localhost:7000"), RedisCluster)


def test_a_cluster_is_reached_by_any_of_its_nodes_with_the_login_of_the_address() -> None:
    client = connect_valkey("rediss+cluster://payflow:s%40cret@one:7000,two,[::1]:7002")

    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()] == [
        ("one", 7000),
        ("two", 6379),
        ("::1", 7002),
    ]
    assert (client.connection_kwargs["username"], client.connection_kwargs["password"]) == ("payflow", "s@cret")


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://one:7000,,two:7000"])
def test_a_cluster_without_a_node_is_refused_before_anything_starts(url: str) -> None:
    with pytest.raises(SettingsError, match=r"PAYFLOW_REDIS_URL.*HOST:PORT"):
        read_settings(CommonSettings, {"PAYFLOW_REDIS_URL": url})


def test_the_password_of_a_cluster_is_masked() -> None:
    assert shown("redis_url", "redis+cluster://:s3cret@a:1,b:2") == "redis+cluster://:********@a:1,b:2"


def test_a_cluster_with_a_login_is_accepted_by_the_settings() -> None:
    url = "redis+cluster://:s3cret@a:1,[::1]:2"

    assert read_settings(CommonSettings, {"PAYFLOW_REDIS_URL": url}).redis_url == url


def test_a_login_is_no_node() -> None:
    with pytest.raises(SettingsError, match=r"PAYFLOW_REDIS_URL.*HOST:PORT"):
        read_settings(CommonSettings, {"PAYFLOW_REDIS_URL": "redis+cluster://user:s3cret@:7000"})
