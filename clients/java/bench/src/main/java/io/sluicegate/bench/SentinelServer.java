package io.sluicegate.bench;

import com.alibaba.csp.sentinel.cluster.flow.rule.ClusterFlowRuleManager;
import com.alibaba.csp.sentinel.cluster.server.SentinelDefaultTokenServer;
import com.alibaba.csp.sentinel.cluster.server.config.ClusterServerConfigManager;
import com.alibaba.csp.sentinel.cluster.server.config.ServerFlowConfig;
import com.alibaba.csp.sentinel.cluster.server.config.ServerTransportConfig;
import com.alibaba.csp.sentinel.slots.block.flow.ClusterFlowConfig;
import com.alibaba.csp.sentinel.slots.block.flow.FlowRule;
import java.util.List;
import java.util.Set;

/** Sentinel's token server in a process of its own. Arguments: port, namespace. */
final class SentinelServer {
    private SentinelServer() {}

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        String namespace = args[1];
        // In cluster mode Sentinel wants to be told that this process is the server, even if nothing else runs here.
        ClusterServerConfigManager.loadGlobalTransportConfig(new ServerTransportConfig().setIdleSeconds(600).setPort(port));
        ClusterServerConfigManager.loadServerNamespaceSet(Set.of(namespace));
        ClusterServerConfigManager.loadGlobalFlowConfig(new ServerFlowConfig().setMaxAllowedQps(Rivals.LIMIT));
        ClusterFlowRuleManager.registerPropertyIfAbsent(namespace);
        FlowRule rule = new FlowRule(Rivals.RESOURCE).setCount(Rivals.LIMIT).setClusterMode(true)
                .setClusterConfig(new ClusterFlowConfig().setFlowId(Rivals.FLOW_ID).setThresholdType(1));
        ClusterFlowRuleManager.loadRules(namespace, List.of(rule));
        SentinelDefaultTokenServer server = new SentinelDefaultTokenServer();
        server.start();
        System.out.println("token server listening");
        Thread.currentThread().join();
    }
}
