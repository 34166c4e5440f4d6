"""What the services stand on in Compose: database, cache, event log. And what every container may not do."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.yaml import Block


def confined(limit_mb: int) -> Block:
    """No right that a container does not need, and a bound for its memory and its log."""
    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "deploy": {"resources": {"limits": {"memory": f"{limit_mb}M"}}},
        "logging": {
            "driver": "json-file",
            "options": {"max-size": "10m", "max-file": "3", "labels": "com.docker.compose.service"},
        },
    }


STORES: Final[Block] = {
    "postgres-db": {
        "image": "postgres:18-alpine",
        "profiles": ["core"],
        "command": [
            "postgres",
            *("-c", "shared_buffers=96MB"),
            *("-c", "max_connections=120"),
            *("-c", "max_wal_size=1GB"),
            *("-c", "jit=off"),
            *("-c", "timezone=UTC"),
            # A statement or a violated key would carry customers' data into the log.
            *("-c", "log_min_error_statement=panic"),
            *("-c", "log_error_verbosity=terse"),
        ],
        "environment": [
            "POSTGRES_USER=${POSTGRES_OWNER:-payflow}",
            "POSTGRES_DB=${POSTGRES_DATABASE:-payflow}",
            "POSTGRES_PASSWORD_FILE=/run/payflow/password",
            "POSTGRES_INITDB_ARGS=--auth-host=scram-sha-256 --data-checksums",
        ],
        "volumes": ["postgres:/var/lib/postgresql", "secrets-postgres:/run/payflow:ro"],
        "networks": ["data"],
        "shm_size": "128m",
        "deploy": {"resources": {"limits": {"memory": "320M"}}},
        "depends_on": {"secrets": {"condition": "service_completed_successfully"}},
        "restart": "unless-stopped",
        # A fast shutdown: sessions are ended, and the data is left clean.
        "stop_signal": "SIGINT",
        "stop_grace_period": "30s",
        "healthcheck": {
            # By address: while the database is being made, the server listens on its socket only.
            "test": [
                "CMD-SHELL",
                "pg_isready -h 127.0.0.1 -U ${POSTGRES_OWNER:-payflow} -d ${POSTGRES_DATABASE:-payflow}",
            ],
            "interval": "3s",
            "timeout": "3s",
            "retries": 20,
            "start_period": "30s",
        },
    },
    "redis-cache": {
        "image": "valkey/valkey:8-alpine",
        "profiles": ["core"],
        # Nothing in it may not be lost; evicting would drop a limit or a revocation silently.
        "command": [
            "valkey-server",
            *("--save", ""),
            *("--appendonly", "no"),
            *("--maxmemory", "40mb"),
            *("--maxmemory-policy", "noeviction"),
            # It has no password: nothing but the services is in its network, and that has no way out.
            *("--protected-mode", "no"),
        ],
        "networks": ["data"],
        "tmpfs": ["/data:size=8m"],
        **confined(64),
        "user": "999:1000",
        "restart": "unless-stopped",
        "healthcheck": {
            "test": ["CMD", "valkey-cli", "ping"],
            "interval": "3s",
            "timeout": "3s",
            "retries": 10,
        },
    },
    "kafka": {
        "image": "apache/kafka:4.1.0",
        "profiles": ["core"],
        "environment": [
            "KAFKA_NODE_ID=1",
            "KAFKA_PROCESS_ROLES=broker,controller",
            "KAFKA_LISTENERS=PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://kafka:9092",
            "KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS=1@kafka:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS=4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR=1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR=1",
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS=4",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0",
            "KAFKA_LOG_DIRS=/var/lib/kafka/data",
            # Its default of 128 MB does not fit into so small a heap.
            "KAFKA_LOG_CLEANER_DEDUPE_BUFFER_SIZE=8388608",
            "KAFKA_HEAP_OPTS=-Xms160m -Xmx160m -XX:+UseSerialGC",
            "CLUSTER_ID=${KAFKA_CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}",
        ],
        "volumes": ["kafka:/var/lib/kafka/data"],
        "networks": ["data"],
        "deploy": {"resources": {"limits": {"memory": "360M"}}},
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        "healthcheck": {
            "test": ["CMD-SHELL", "timeout 2 bash -c '</dev/tcp/127.0.0.1/9092'"],
            "interval": "5s",
            "timeout": "3s",
            "retries": 20,
            "start_period": "30s",
        },
    },
}
