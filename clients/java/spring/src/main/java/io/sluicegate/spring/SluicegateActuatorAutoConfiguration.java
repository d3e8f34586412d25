package io.sluicegate.spring;

import io.micrometer.core.instrument.MeterRegistry;
import io.sluicegate.client.ClientListener;
import io.sluicegate.client.SluicegateClient;
import org.springframework.boot.actuate.health.HealthIndicator;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Health and metrics, where the application has the actuator. */
@AutoConfiguration(before = SluicegateAutoConfiguration.class,
        afterName = "org.springframework.boot.actuate.autoconfigure.metrics.CompositeMeterRegistryAutoConfiguration")
public class SluicegateActuatorAutoConfiguration {
    /** Made by Spring. */
    public SluicegateActuatorAutoConfiguration() {}

    /** Asks and leases as meters. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(MeterRegistry.class)
    @ConditionalOnBean(MeterRegistry.class)
    static class Metrics {
        @Bean
        @ConditionalOnMissingBean(ClientListener.class)
        AskTimers sluicegateAskTimers(MeterRegistry registry) {
            return new AskTimers(registry);
        }

        @Bean
        LeaseMeters sluicegateLeaseMeters(org.springframework.beans.factory.ObjectProvider<SluicegateClient> client) {
            return new LeaseMeters(client);
        }
    }

    /** The service's state as health. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(HealthIndicator.class)
    static class Health {
        @Bean
        @ConditionalOnMissingBean(name = "sluicegateHealthIndicator")
        HealthIndicator sluicegateHealthIndicator(
                org.springframework.beans.factory.ObjectProvider<SluicegateClient> client) {
            return new SluicegateHealth(client);
        }
    }
}
