package io.sluicegate.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Wait;
import java.io.IOException;
import java.time.Duration;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.boot.web.embedded.netty.NettyReactiveWebServerFactory;
import org.springframework.boot.web.context.WebServerApplicationContext;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.MediaType;
import org.springframework.test.web.reactive.server.WebTestClient;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The starter in a real Spring WebFlux application on Netty with the pod's own lock. */
class WebFluxTest {
    private static final int ROUNDS = 200;

    private final ConfigurableApplicationContext application = new SpringApplicationBuilder(App.class)
            .web(WebApplicationType.REACTIVE).logStartupInfo(false)
            .run("--server.port=0", "--server.address=127.0.0.1", "--spring.main.banner-mode=off",
                    "--logging.level.root=off", "--sluicegate.pod.capacity=2", "--sluicegate.wait-at-most=60s");
    private final LocalUnits units = application.getBean(SluicegateClient.class).local().orElseThrow();

    @AfterEach
    void close() {
        application.close();
    }

    @Test
    void unitsAreHeldWithinAndFreeWithTheLastByte() throws Exception {
        try (RawClient one = connect()) {
            for (String path : new String[] {"/one", "/many"}) {
                for (int round = 0; round < ROUNDS; round++) {
                    RawClient.Answer answer = one.call("GET", path);
                    assertEquals(0, units.inUse(), path + ", round " + round);
                    assertTrue(answer.body().startsWith("2 units"), answer.body());
                }
            }
            assertEquals(500, one.call("GET", "/throws").status());
            assertEquals(404, one.call("GET", "/nowhere").status());
            Wait.until("given back", () -> units.inUse() == 0);
        }
    }

    @Test
    void waitingTakesNoThreadAndAClientThatLeavesLeavesTheLine() throws Exception {
        LocalUnits.Held all = units.force(2);
        RawClient[] waiting = new RawClient[100];
        for (int i = 0; i < waiting.length; i++) {
            waiting[i] = connect();
            waiting[i].send("GET", "/one");
        }
        Wait.until("all wait", () -> units.waiting() == waiting.length);
        for (int i = 1; i < waiting.length; i++) {
            waiting[i].abort();
        }
        Wait.until("one is left", () -> units.waiting() == 1);
        all.close();
        assertEquals(200, waiting[0].head(new TreeMap<>()));
        waiting[0].close();
        Wait.until("given back", () -> units.inUse() == 0);
    }

    @Test
    void aStreamHoldsUntilItsClientLeaves() throws Exception {
        RawClient one = connect();
        one.send("GET", "/events");
        one.head(new TreeMap<>());
        one.read(20);
        assertEquals(1, units.inUse());
        one.abort();
        Wait.until("given back", () -> units.inUse() == 0);
    }

    @Test
    void aRefusalIsAProblem() throws Exception {
        try (RawClient one = connect()) {
            RawClient.Answer refused = one.call("GET", "/heavy");
            assertEquals(503, refused.status());
            assertEquals("application/problem+json", refused.header("Content-Type"));
            assertEquals("too_heavy", refused.header("x-sluicegate-reason"));
        }
    }

    /** Netty queues a request that comes before the answer of the last one is through, and takes it up in the midst of that. */
    @Test
    void aRefusalOfAQueuedRequestIsNotTheConnectionsLast() throws Exception {
        LocalUnits.Held all = units.force(2);
        try (RawClient one = connect()) {
            one.send("GET", "/one");
            Wait.until("it waits", () -> units.waiting() == 1);
            one.send("GET", "/heavy");
            all.close();
            for (int status : new int[] {200, 503}) {
                TreeMap<String, String> headers = new TreeMap<>();
                assertEquals(status, one.head(headers));
                one.body(headers);
            }
            assertEquals(200, one.call("GET", "/one").status());
        }
    }

    /** Such a request has no server behind it. */
    @Test
    void aRequestOfATestThatIsBoundToTheContextIsAnswered() {
        WebTestClient client = WebTestClient.bindToApplicationContext(application).configureClient()
                .responseTimeout(Wait.LONGEST).build();
        client.get().uri("/one").exchange().expectStatus().isOk().expectBody(String.class).isEqualTo("2 units");
        client.get().uri("/heavy").exchange().expectStatus().isEqualTo(503);
        Wait.until("given back", () -> units.inUse() == 0);
    }

    private RawClient connect() throws IOException {
        return new RawClient(((WebServerApplicationContext) application).getWebServer().getPort());
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class App {
        /** Tomcat is on the class path too, for the other tests, and would be taken first. */
        @Bean
        NettyReactiveWebServerFactory netty() {
            return new NettyReactiveWebServerFactory();
        }

        @Bean
        Shop shop(SluicegateClient client) {
            return new Shop(client);
        }
    }

    @RestController
    static class Shop {
        private final LocalUnits units;

        Shop(SluicegateClient client) {
            units = client.local().orElseThrow();
        }

        @Weight(2)
        @GetMapping("/one")
        Mono<String> one() {
            return Mono.fromSupplier(() -> units.inUse() + " units");
        }

        @Weight(2)
        @GetMapping(path = "/many", produces = MediaType.TEXT_PLAIN_VALUE)
        Flux<String> many() {
            return Flux.defer(() -> Flux.just(units.inUse() + " units", ", ", "and more"));
        }

        @Weight(3)
        @GetMapping("/heavy")
        Mono<String> heavy() {
            return Mono.just("never");
        }

        @GetMapping("/throws")
        Mono<String> fails() {
            return Mono.error(new IllegalStateException("on purpose"));
        }

        @GetMapping(path = "/events", produces = MediaType.TEXT_EVENT_STREAM_VALUE)
        Flux<Long> events() {
            return Flux.interval(Duration.ofMillis(5)).onBackpressureDrop();
        }
    }
}
