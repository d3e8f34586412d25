package io.sluicegate.spring;

import io.sluicegate.client.SluicegateClient;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.beans.factory.annotation.Qualifier;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.web.reactive.DispatcherHandler;
import org.springframework.web.reactive.result.method.annotation.RequestMappingHandlerMapping;

/** The filter for Spring WebFlux, unless this is a gateway that asks for its routes. */
@AutoConfiguration(after = SluicegateAutoConfiguration.class)
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.REACTIVE)
@ConditionalOnClass(DispatcherHandler.class)
@ConditionalOnBean(SluicegateClient.class)
@ConditionalOnMissingBean(type = "io.sluicegate.cloudgateway.SluicegateGlobalFilter")
public class SluicegateReactiveAutoConfiguration {
    /** Made by Spring. */
    public SluicegateReactiveAutoConfiguration() {}

    /**
     * The filter.
     *
     * @param client asks
     * @param properties settings
     * @param handlers finds controller methods
     * @return the filter
     */
    @Bean
    public SluicegateWebFilter sluicegateWebFilter(SluicegateClient client, SluicegateProperties properties,
            @Qualifier("requestMappingHandlerMapping") ObjectProvider<RequestMappingHandlerMapping> handlers) {
        return new SluicegateWebFilter(client, new Asks(properties.getExclude()), handlers, properties.getFilterOrder());
    }
}
