package io.sluicegate.spring;

import io.sluicegate.client.ClientListener;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.WhenAway;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.boot.ssl.SslBundles;
import org.springframework.boot.web.context.WebServerApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.client.RestClient;
import org.springframework.web.reactive.function.client.WebClient;

/** The client, the pod's own lock and the pod's registration. */
@AutoConfiguration
@ConditionalOnProperty(prefix = "sluicegate", name = "enabled", matchIfMissing = true)
@EnableConfigurationProperties(SluicegateProperties.class)
public class SluicegateAutoConfiguration {
    /** Made by Spring. */
    public SluicegateAutoConfiguration() {}

    /**
     * The client of this application.
     *
     * @param properties its settings
     * @param listener told what becomes of asks
     * @param bundles certificates, where a bundle is named
     * @return the client
     */
    @Bean(destroyMethod = "close")
    @ConditionalOnMissingBean
    public SluicegateClient sluicegateClient(SluicegateProperties properties, ObjectProvider<ClientListener> listener,
            ObjectProvider<SslBundles> bundles) {
        Integer capacity = properties.getPod().getCapacity();
        LocalUnits units = capacity == null ? null : new LocalUnits(capacity);
        if (properties.getUrl() == null && units == null) {
            throw new IllegalStateException("set sluicegate.url to ask a decision service, sluicegate.pod.capacity for the "
                    + "pod's own lock, or both; or sluicegate.enabled=false");
        }
        SluicegateClient.Builder builder = properties.getUrl() == null ? SluicegateClient.localOnly(units)
                : SluicegateClient.of(properties.getUrl()).token(properties.getToken()).local(units)
                        .whenAway(policy(properties.getWhenAway(), units));
        listener.ifAvailable(builder::listener);
        if (properties.getSslBundle() != null) {
            builder.tls(bundles.getObject().getBundle(properties.getSslBundle()).createSslContext());
        }
        return builder.pod(properties.getPod().getName()).waitAtMost(properties.getWaitAtMost())
                .hold(properties.getHold()).deadline(properties.getDeadline())
                .connectTimeout(properties.getConnectTimeout())
                .retryAfterFailure(properties.getRetryAfterFailure()).defaultWeight(properties.getDefaultWeight())
                .build();
    }

    private static WhenAway policy(WhenAway chosen, LocalUnits units) {
        if (chosen != null) {
            return chosen;
        }
        return units != null ? WhenAway.LOCAL : WhenAway.OPEN;
    }

    /** Only where there is a server to register. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnWebApplication
    @ConditionalOnProperty(prefix = "sluicegate.pod", name = "register", havingValue = "true")
    static class Registration {
        @Bean
        PodLifecycle sluicegatePod(SluicegateClient client, SluicegateProperties properties,
                WebServerApplicationContext server) {
            return new PodLifecycle(client, properties.getPod(), server);
        }
    }

    /** Calls of other services, with RestClient. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(RestClient.class)
    @ConditionalOnProperty(prefix = "sluicegate.retry", name = "enabled", havingValue = "true")
    static class RestRetry {
        @Bean
        org.springframework.boot.web.client.RestClientCustomizer sluicegateRestClientRetry(
                SluicegateProperties properties) {
            RetryAfterInterceptor interceptor = new RetryAfterInterceptor(RetryAfter.of(properties.getRetry()));
            return client -> client.requestInterceptor(interceptor);
        }
    }

    /** Calls of other services, with WebClient. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(WebClient.class)
    @ConditionalOnProperty(prefix = "sluicegate.retry", name = "enabled", havingValue = "true")
    static class WebRetry {
        @Bean
        org.springframework.boot.web.reactive.function.client.WebClientCustomizer sluicegateWebClientRetry(
                SluicegateProperties properties) {
            RetryAfterFunction function = new RetryAfterFunction(RetryAfter.of(properties.getRetry()));
            return client -> client.filter(function);
        }
    }
}
