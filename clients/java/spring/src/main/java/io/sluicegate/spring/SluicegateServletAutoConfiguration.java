package io.sluicegate.spring;

import io.sluicegate.client.SluicegateClient;
import io.sluicegate.servlet.AskResolver;
import io.sluicegate.servlet.SluicegateFilter;
import jakarta.servlet.DispatcherType;
import java.util.EnumSet;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.beans.factory.annotation.Qualifier;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.web.servlet.DispatcherServlet;
import org.springframework.web.servlet.mvc.method.annotation.RequestMappingHandlerMapping;

/** The filter for Spring MVC. */
@AutoConfiguration(after = SluicegateAutoConfiguration.class)
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
@ConditionalOnClass(DispatcherServlet.class)
@ConditionalOnBean(SluicegateClient.class)
public class SluicegateServletAutoConfiguration {
    /** Made by Spring. */
    public SluicegateServletAutoConfiguration() {}

    /**
     * What requests ask for: replace it to decide otherwise.
     *
     * @param properties settings
     * @param handlers finds controller methods
     * @return asks by path and {@link Weight}
     */
    @Bean
    @ConditionalOnMissingBean
    public AskResolver sluicegateAsks(SluicegateProperties properties,
            @Qualifier("requestMappingHandlerMapping") ObjectProvider<RequestMappingHandlerMapping> handlers) {
        return new MvcAsks(new Asks(properties.getExclude()), handlers);
    }

    /**
     * The filter, for all paths, also of asynchronous dispatches.
     *
     * @param client asks
     * @param asks what for
     * @param properties settings
     * @return its registration
     */
    @Bean
    public FilterRegistrationBean<SluicegateFilter> sluicegateFilter(SluicegateClient client, AskResolver asks,
            SluicegateProperties properties) {
        var registration = new FilterRegistrationBean<>(new SluicegateFilter(client, asks));
        registration.setDispatcherTypes(EnumSet.of(DispatcherType.REQUEST, DispatcherType.ASYNC));
        registration.setAsyncSupported(true);
        registration.setOrder(properties.getFilterOrder());
        return registration;
    }
}
