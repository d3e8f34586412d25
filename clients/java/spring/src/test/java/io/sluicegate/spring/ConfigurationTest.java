package io.sluicegate.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.UnavailableException;
import io.sluicegate.client.WhenAway;
import io.sluicegate.servlet.SluicegateFilter;
import io.sluicegate.testkit.Certificates;
import io.sluicegate.testkit.Ports;
import io.sluicegate.testkit.Sluice;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.boot.autoconfigure.AutoConfigurations;
import org.springframework.boot.autoconfigure.ssl.SslAutoConfiguration;
import org.springframework.boot.test.context.runner.WebApplicationContextRunner;
import org.springframework.boot.web.servlet.FilterRegistrationBean;

class ConfigurationTest {
    private final WebApplicationContextRunner application = new WebApplicationContextRunner()
            .withConfiguration(AutoConfigurations.of(SluicegateAutoConfiguration.class,
                    SluicegateServletAutoConfiguration.class));

    @Test
    void withoutServiceAndCapacityItSaysWhatToSet() {
        application.run(context -> {
            Throwable failure = context.getStartupFailure();
            while (failure.getCause() != null) {
                failure = failure.getCause();
            }
            assertTrue(failure.getMessage().contains("sluicegate.url"), failure.getMessage());
            assertTrue(failure.getMessage().contains("sluicegate.pod.capacity"), failure.getMessage());
        });
    }

    @Test
    void switchedOffThereIsNothing() {
        application.withPropertyValues("sluicegate.enabled=false").run(context -> {
            assertEquals(0, context.getBeansOfType(SluicegateClient.class).size());
            assertEquals(0, context.getBeansOfType(FilterRegistrationBean.class).size());
        });
    }

    @Test
    void thePolicyFollowsFromTheCapacityUnlessChosen() {
        String url = "sluicegate.url=http://127.0.0.1:9";
        application.withPropertyValues(url).run(context -> assertEquals(WhenAway.OPEN, policy(context)));
        application.withPropertyValues(url, "sluicegate.pod.capacity=5")
                .run(context -> assertEquals(WhenAway.LOCAL, policy(context)));
        application.withPropertyValues(url, "sluicegate.pod.capacity=5", "sluicegate.when-away=closed")
                .run(context -> assertEquals(WhenAway.CLOSED, policy(context)));
        application.withPropertyValues(url, "sluicegate.when-away=local")
                .run(context -> assertTrue(context.getStartupFailure() != null, "local needs units"));
    }

    @Test
    void aBundleShowsThePodsCertificateToTheService(@TempDir Path folder) throws Exception {
        Certificates certificates = new Certificates(folder);
        int port = Ports.free();
        String bundle = "spring.ssl.bundle.pem.caller.";
        WebApplicationContextRunner secured = application
                .withConfiguration(AutoConfigurations.of(SslAutoConfiguration.class))
                .withPropertyValues("sluicegate.url=https://127.0.0.1:" + port, "sluicegate.when-away=closed",
                        bundle + "keystore.certificate=file:" + certificates.pem("caller"),
                        bundle + "keystore.private-key=file:" + certificates.pem("caller-key"),
                        bundle + "truststore.certificate=file:" + certificates.pem("authority"));
        String rules = "pool: shop\npods: [{name: a, url: \"http://127.0.0.1:9\", capacity: 4}]";
        try (Sluice sluice = new Sluice(rules, certificates.door(port))) {
            secured.withPropertyValues("sluicegate.ssl-bundle=caller").run(context -> {
                try (Lease lease = context.getBean(SluicegateClient.class).acquire(Ask.api("default"))) {
                    assertEquals("a", lease.pod());
                    assertEquals(1, sluice.inUse());
                }
            });
            secured.run(context -> assertThrows(UnavailableException.class,
                    () -> context.getBean(SluicegateClient.class).acquire(Ask.api("default"))));
        }
    }

    @Test
    void theFilterSeesAsynchronousDispatchesToo() {
        application.withPropertyValues("sluicegate.pod.capacity=5", "sluicegate.filter-order=7").run(context -> {
            FilterRegistrationBean<?> filter = context.getBean(FilterRegistrationBean.class);
            assertTrue(filter.getFilter() instanceof SluicegateFilter);
            assertEquals(7, filter.getOrder());
            assertTrue(filter.isAsyncSupported());
        });
    }

    @Test
    void everySettingHasItsDescription() throws IOException {
        String metadata;
        try (var file = SluicegateProperties.class.getResourceAsStream("/META-INF/spring-configuration-metadata.json")) {
            metadata = new String(file.readAllBytes(), StandardCharsets.UTF_8);
        }
        for (String setting : new String[] {"url", "when-away", "pod.capacity", "pod.register", "retry.attempts"}) {
            assertTrue(metadata.contains("\"sluicegate." + setting + "\""), setting);
        }
        long settings = metadata.split("\"name\": \"sluicegate\\.").length - 1;
        long described = metadata.split("\"description\": ").length - 1;
        assertTrue(described >= settings - 2, described + " of " + settings + ", groups need none");
    }

    private static WhenAway policy(org.springframework.context.ApplicationContext context) {
        return context.getBean(SluicegateClient.class).whenAway();
    }
}
