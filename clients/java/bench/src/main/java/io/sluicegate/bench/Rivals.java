package io.sluicegate.bench;

import com.alibaba.csp.sentinel.Entry;
import com.alibaba.csp.sentinel.SphU;
import com.alibaba.csp.sentinel.cluster.ClusterStateManager;
import com.alibaba.csp.sentinel.cluster.client.config.ClusterClientAssignConfig;
import com.alibaba.csp.sentinel.cluster.client.config.ClusterClientConfigManager;
import com.alibaba.csp.sentinel.slots.block.BlockException;
import com.alibaba.csp.sentinel.slots.block.flow.ClusterFlowConfig;
import com.alibaba.csp.sentinel.slots.block.flow.FlowRule;
import com.alibaba.csp.sentinel.slots.block.flow.FlowRuleManager;
import jakarta.servlet.Filter;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.redisson.Redisson;
import org.redisson.api.RPermitExpirableSemaphore;
import org.redisson.api.RedissonClient;
import org.redisson.config.Config;

/** The same place in the request, kept by others. */
final class Rivals {
    /** The resource and the flow rule of Sentinel. */
    static final String RESOURCE = "work";
    static final long FLOW_ID = 1;
    static final double LIMIT = 1_000_000;

    private Rivals() {}

    static RedissonClient redisson(int port) {
        Config config = new Config();
        config.useSingleServer().setAddress("redis://127.0.0.1:" + port);
        return Redisson.create(config);
    }

    /** A permit for each request; given back off the path of the request, as ours is. */
    static Filter permits(RedissonClient redisson, int capacity) {
        RPermitExpirableSemaphore semaphore = redisson.getPermitExpirableSemaphore("units");
        semaphore.trySetPermits(capacity);
        return (request, response, chain) -> {
            String permit;
            try {
                permit = semaphore.tryAcquire(0, 15, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                throw new IOException(e);
            }
            if (permit == null) {
                refuse(response);
                return;
            }
            try {
                chain.doFilter(request, response);
            } finally {
                semaphore.releaseAsync(permit);
            }
        };
    }

    /** A token of the cluster's token server for each request. */
    static Filter tokens(int port) {
        ClusterClientConfigManager.applyNewAssignConfig(new ClusterClientAssignConfig("127.0.0.1", port));
        ClusterStateManager.applyState(ClusterStateManager.CLUSTER_CLIENT);
        FlowRule rule = new FlowRule(RESOURCE).setCount(LIMIT).setClusterMode(true)
                .setClusterConfig(new ClusterFlowConfig().setFlowId(FLOW_ID).setThresholdType(1)
                        .setFallbackToLocalWhenFail(false));
        FlowRuleManager.loadRules(List.of(rule));
        return (request, response, chain) -> {
            Entry entry;
            try {
                entry = SphU.entry(RESOURCE);
            } catch (BlockException e) {
                refuse(response);
                return;
            }
            try {
                chain.doFilter(request, response);
            } finally {
                entry.exit();
            }
        };
    }

    private static void refuse(ServletResponse response) {
        ((HttpServletResponse) response).setStatus(429);
    }
}
