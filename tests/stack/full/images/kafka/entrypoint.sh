#!/bin/bash
# The conventions of the official image, as far as compose.yaml uses them: KAFKA_A_B=c is `a.b=c` in the server's
# properties, CLUSTER_ID names the cluster, KAFKA_HEAP_OPTS goes to Java.
set -euo pipefail
properties=/tmp/server.properties
env | grep '^KAFKA_' | grep -v '^KAFKA_HEAP_OPTS=' | while IFS='=' read -r name value; do
  key=${name#KAFKA_}
  key=${key//_/.}
  echo "${key,,}=$value"
done >"$properties"
java -cp '/opt/kafka/libs/*' -Dlog4j2.configurationFile=/opt/kafka/log4j2.yaml kafka.tools.StorageTool \
  format -t "$CLUSTER_ID" -c "$properties" --ignore-formatted
# shellcheck disable=SC2086 - several arguments in one variable
exec java $KAFKA_HEAP_OPTS -cp '/opt/kafka/libs/*' -Dlog4j2.configurationFile=/opt/kafka/log4j2.yaml kafka.Kafka "$properties"
