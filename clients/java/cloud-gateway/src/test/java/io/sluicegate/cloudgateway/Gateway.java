package io.sluicegate.cloudgateway;

import io.sluicegate.client.ClientStats;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.testkit.RawClient;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeoutException;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.boot.web.context.WebServerApplicationContext;
import org.springframework.cloud.gateway.filter.GatewayFilter;
import org.springframework.cloud.gateway.filter.factory.AbstractGatewayFilterFactory;
import org.springframework.cloud.gateway.support.ServerWebExchangeUtils;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.reactive.DispatcherHandler;
import org.springframework.web.server.ServerWebExchange;
import org.springframework.web.util.UriComponentsBuilder;
import reactor.core.publisher.Mono;

/** A real Spring Cloud Gateway with a configuration that is shipped, changed where it says where things are. */
final class Gateway implements AutoCloseable {
    private static final Path SHIPPED = Path.of("../../../plugins/spring-cloud-gateway");

    private final ConfigurableApplicationContext context;

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class App {
        @Bean
        CutGatewayFilterFactory cut(ObjectProvider<DispatcherHandler> dispatcher) {
            return new CutGatewayFilterFactory(dispatcher);
        }
    }

    /**
     * The filter {@code Cut}: as a CircuitBreaker with a time limit, which brings a library of its own. The path {@code /bare}
     * has no fallback, and {@code /spoilt} fails when the pod's head is there.
     */
    static final class CutGatewayFilterFactory extends AbstractGatewayFilterFactory<Object> {
        private final ObjectProvider<DispatcherHandler> dispatcher;

        CutGatewayFilterFactory(ObjectProvider<DispatcherHandler> dispatcher) {
            this.dispatcher = dispatcher;
        }

        @Override
        public GatewayFilter apply(Object config) {
            return (exchange, chain) -> at(exchange, "/spoilt")
                    ? chain.filter(exchange).then(Mono.error(new IllegalStateException("on purpose")))
                    : chain.filter(exchange).timeout(Duration.ofMillis(300)).onErrorResume(
                            late -> late instanceof TimeoutException && !at(exchange, "/bare"),
                            late -> fallback(exchange));
        }

        private Mono<Void> fallback(ServerWebExchange exchange) {
            ServerWebExchangeUtils.reset(exchange);
            URI fallback = UriComponentsBuilder.fromUri(exchange.getRequest().getURI())
                    .replacePath("/fallback").replaceQuery(null).build().toUri();
            return ServerWebExchangeUtils.handle(dispatcher.getObject(),
                    exchange.mutate().request(request -> request.uri(fallback)).build());
        }

        private static boolean at(ServerWebExchange exchange, String path) {
            return exchange.getRequest().getPath().value().equals(path);
        }
    }

    /**
     * Starts one.
     *
     * @param changes from what to what, in turn; each must be there
     */
    Gateway(String file, List<String> changes, String... settings) {
        Path config;
        try {
            String text = Files.readString(SHIPPED.resolve(file));
            for (int i = 0; i < changes.size(); i += 2) {
                if (!text.contains(changes.get(i))) {
                    throw new AssertionError(file + " has no `" + changes.get(i) + "`");
                }
                text = text.replace(changes.get(i), changes.get(i + 1));
            }
            config = Files.createTempFile("sluicegate-gateway", ".yaml");
            Files.writeString(config, text);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        config.toFile().deleteOnExit();
        List<String> all = new ArrayList<>(List.of("--spring.config.location=file:" + config, "--server.port=0",
                "--server.address=127.0.0.1", "--server.shutdown=immediate", "--spring.main.banner-mode=off",
                "--logging.level.root=warn",
                // They tell of each connection that breaks, which is what these tests are about.
                "--logging.level.reactor.netty=off", "--logging.level.org.springframework.web.server.adapter=off"));
        all.addAll(List.of(settings));
        context = new SpringApplicationBuilder(App.class).logStartupInfo(false).run(all.toArray(String[]::new));
    }

    int port() {
        return ((WebServerApplicationContext) context).getWebServer().getPort();
    }

    RawClient connect() throws IOException {
        return new RawClient(port());
    }

    <T> boolean has(Class<T> kind) {
        return context.getBeanNamesForType(kind).length > 0;
    }

    /** Of the client that asks. */
    ClientStats stats() {
        return context.getBean(SluicegateClient.class).stats();
    }

    @Override
    public void close() {
        context.close();
    }
}
