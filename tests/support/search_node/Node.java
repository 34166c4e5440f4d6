import static org.codelibs.opensearch.runner.OpenSearchRunner.newConfigs;

import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node until the process is ended: `Node FOLDER ADDRESS HTTP_PORT TRANSPORT_PORT`. */
public class Node {
    public static void main(String[] arguments) throws Exception {
        try (OpenSearchRunner runner = new OpenSearchRunner()) {
            runner.onBuild((number, settings) -> {
                settings.put("discovery.type", "single-node");
                settings.put("network.host", arguments[1]);
                settings.put("http.port", arguments[2]);
                settings.put("transport.port", arguments[3]);
                // A developer's disk may be nearly full; the node would stop taking lines.
                settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            });
            runner.build(newConfigs().basePath(arguments[0]).numOfNode(1).clusterName("payflow").useLogger());
            Thread.currentThread().join();
        }
    }
}
