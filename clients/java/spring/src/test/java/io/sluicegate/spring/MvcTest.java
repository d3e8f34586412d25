package io.sluicegate.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Wait;
import java.io.IOException;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.boot.web.context.WebServerApplicationContext;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.context.request.async.DeferredResult;
import org.springframework.web.servlet.mvc.method.annotation.SseEmitter;

/** The starter in a real Spring MVC application with the pod's own lock. */
class MvcTest {
    private final ConfigurableApplicationContext application = new SpringApplicationBuilder(App.class)
            .web(WebApplicationType.SERVLET).logStartupInfo(false)
            .run("--server.port=0", "--server.address=127.0.0.1", "--spring.main.banner-mode=off",
                    "--logging.level.root=off", "--sluicegate.pod.capacity=3",
                    "--sluicegate.exclude=/actuator/**,/free",
                    "--management.endpoints.web.exposure.include=health,metrics",
                    "--management.endpoint.health.show-details=always");
    private final LocalUnits units = application.getBean(SluicegateClient.class).local().orElseThrow();
    private final Shop shop = application.getBean(Shop.class);

    @AfterEach
    void close() {
        application.close();
    }

    @Test
    void theAnnotationIsTheWeightAndOthersWeighTheDefault() throws Exception {
        try (RawClient one = connect()) {
            assertEquals("1 unit", one.call("GET", "/quote").body());
            assertEquals("2 units", one.call("POST", "/order").body());
            assertEquals("3 units", one.call("GET", "/deferred").body());
            assertEquals("0 units", one.call("GET", "/free").body());
            assertEquals(404, one.call("GET", "/nowhere").status());
            assertEquals(405, one.call("GET", "/order").status());
            assertEquals(500, one.call("GET", "/throws").status());
            Wait.until("given back", () -> units.inUse() == 0);
        }
    }

    @Test
    void aRefusalIsAProblem() throws Exception {
        try (LocalUnits.Held most = units.force(2); RawClient one = connect()) {
            assertEquals(200, one.call("GET", "/quote").status());
            RawClient.Answer refused = one.call("POST", "/order");
            assertEquals(429, refused.status());
            assertEquals("application/problem+json", refused.header("Content-Type"));
            assertEquals("1", refused.header("Retry-After"));
            assertEquals(2, most.weight());
        }
    }

    @Test
    void aStreamOfEventsHoldsUntilItsEnd() throws Exception {
        try (RawClient one = connect()) {
            one.send("GET", "/events");
            one.head(new TreeMap<>());
            assertEquals(1, units.inUse());
            shop.emitter.get().send("x");
            assertEquals(1, units.inUse());
            shop.emitter.get().complete();
            Wait.until("given back", () -> units.inUse() == 0);
        }
    }

    @Test
    void aStreamWhoseClientLeftEndsAtItsNextEvent() throws Exception {
        RawClient one = connect();
        one.send("GET", "/events");
        one.head(new TreeMap<>());
        one.abort();
        SseEmitter emitter = shop.emitter.get();
        Wait.until("given back", () -> {
            try {
                emitter.send("x");
            } catch (IOException | IllegalStateException e) {
                return units.inUse() == 0;
            }
            return units.inUse() == 0;
        });
    }

    @Test
    void workInAnotherThreadHolds() throws Exception {
        try (RawClient one = connect()) {
            one.send("GET", "/callable");
            shop.begun.await();
            assertEquals(1, units.inUse());
            shop.goOn.countDown();
            assertEquals(200, one.head(new TreeMap<>()));
            Wait.until("given back", () -> units.inUse() == 0);
        }
    }

    @Test
    void healthAndMetricsTellOfIt() throws Exception {
        try (LocalUnits.Held two = units.force(2); RawClient one = connect()) {
            one.call("GET", "/quote");
            one.call("POST", "/order");
            String health = one.call("GET", "/actuator/health").body();
            assertTrue(health.contains("\"units\":\"2 of 3\""), health);
            assertTrue(health.contains("\"service\":\"none\""), health);
            String asks = one.call("GET", "/actuator/metrics/sluicegate.asks?tag=outcome:local").body();
            assertTrue(asks.contains("\"statistic\":\"COUNT\",\"value\":1.0"), asks);
            String refused = one.call("GET", "/actuator/metrics/sluicegate.asks?tag=outcome:refused").body();
            assertTrue(refused.contains("\"statistic\":\"COUNT\",\"value\":1.0"), refused);
            String used = one.call("GET", "/actuator/metrics/sluicegate.units.in.use").body();
            assertTrue(used.contains("\"value\":2.0"), used);
            assertEquals(2, two.weight());
        }
    }

    private RawClient connect() throws IOException {
        return new RawClient(((WebServerApplicationContext) application).getWebServer().getPort());
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class App {
        @Bean
        Shop shop(SluicegateClient client) {
            return new Shop(client);
        }
    }

    @RestController
    static class Shop {
        private final LocalUnits units;
        final AtomicReference<SseEmitter> emitter = new AtomicReference<>();
        final CountDownLatch begun = new CountDownLatch(1);
        final CountDownLatch goOn = new CountDownLatch(1);

        Shop(SluicegateClient client) {
            units = client.local().orElseThrow();
        }

        @GetMapping("/quote")
        String quote() {
            return units.inUse() + " unit";
        }

        @GetMapping("/free")
        String free() {
            return units.inUse() + " units";
        }

        @Weight(2)
        @PostMapping("/order")
        String order() {
            return units.inUse() + " units";
        }

        @Weight(3)
        @GetMapping("/deferred")
        DeferredResult<String> deferred() {
            DeferredResult<String> result = new DeferredResult<>();
            result.setResult(units.inUse() + " units");
            return result;
        }

        @GetMapping("/throws")
        String fails() {
            throw new IllegalStateException("on purpose");
        }

        @GetMapping("/callable")
        Callable<String> callable() {
            return () -> {
                begun.countDown();
                goOn.await();
                return "done";
            };
        }

        @GetMapping("/events")
        SseEmitter events() throws IOException {
            SseEmitter started = new SseEmitter(0L);
            started.send("first");
            emitter.set(started);
            return started;
        }
    }
}
