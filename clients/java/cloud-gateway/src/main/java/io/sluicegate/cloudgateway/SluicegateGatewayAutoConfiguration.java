package io.sluicegate.cloudgateway;

import io.sluicegate.client.SluicegateClient;
import io.sluicegate.spring.SluicegateAutoConfiguration;
import io.sluicegate.spring.SluicegateReactiveAutoConfiguration;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.context.annotation.Bean;

/** The two filters, in place of the starter's own for pods: a gateway asks for its routes, not for itself. */
@AutoConfiguration(after = SluicegateAutoConfiguration.class, before = SluicegateReactiveAutoConfiguration.class)
@ConditionalOnProperty(name = "spring.cloud.gateway.server.webflux.enabled", matchIfMissing = true)
@ConditionalOnBean(SluicegateClient.class)
@EnableConfigurationProperties(SluicegateGatewayProperties.class)
public class SluicegateGatewayAutoConfiguration {
    /** Made by Spring. */
    public SluicegateGatewayAutoConfiguration() {}

    /**
     * Asks, and chooses the pod.
     *
     * @param client asks
     * @return the filter
     */
    @Bean
    public SluicegateGlobalFilter sluicegateGlobalFilter(SluicegateClient client) {
        if (!client.hasService() || client.pod().isPresent() || client.local().isPresent()) {
            throw new IllegalStateException("a gateway asks the decision service for all pods: set sluicegate.url, and "
                    + "nothing of sluicegate.pod, which is for the pods themselves");
        }
        return new SluicegateGlobalFilter();
    }

    /**
     * Sees the end of each request.
     *
     * @param client asks
     * @param properties settings
     * @return the filter
     */
    @Bean
    public SluicegateStayFilter sluicegateStayFilter(SluicegateClient client, SluicegateGatewayProperties properties) {
        return new SluicegateStayFilter(client, properties.getOnDisconnect());
    }
}
