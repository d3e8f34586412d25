package io.sluicegate.example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.testkit.Child;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Two real Spring Boot pods: behind the gateway, asking by themselves, and alone. */
class ExampleTest {
    private static final int CAPACITY = 6;
    private static final int REQUESTS = 600;

    /** Each pod alone refuses while the other has room; behind the gateway the same load waits for it and is served. */
    @Test
    void behindTheGateway() throws Exception {
        try (Shop a = new Shop(); Shop b = new Shop()) {
            Load alone = new Load().run(12, REQUESTS, a.port(), b.port());
            assertTrue(alone.count(429) > 0, "pods alone: " + alone);
            String pods = "  - {name: a, url: \"http://127.0.0.1:" + a.port() + "\", capacity: 6}\n"
                    + "  - {name: b, url: \"http://127.0.0.1:" + b.port() + "\", capacity: 6}\n";
            try (Sluice sluice = new Sluice(rules("gateway.yaml").replaceAll("(?m)^  - \\{name: [ab],.*\n", "")
                    .replace("pods:\n", "pods:\n" + pods).replace("wait: 2s", "wait: 60s"), true)) {
                Load pooled = new Load().run(12, REQUESTS, sluice.gateway().getPort());
                assertEquals(REQUESTS, pooled.count(200), "behind the gateway: " + pooled);
                Wait.until("given back", () -> sluice.inUse() == 0);
                assertEquals(0, a.client().stats().refused() + b.client().stats().refused() - alone.count(429),
                        "no pod refused the gateway");
            }
            within(a, b);
        }
    }

    /** The same pods ask the decision service for themselves, and register there. */
    @Test
    void askingByThemselves() throws Exception {
        try (Sluice sluice = new Sluice(rules("asking.yaml").replace("wait: 2s", "wait: 60s"), false)) {
            try (Shop a = asking(sluice, "a"); Shop b = asking(sluice, "b")) {
                Wait.until("both have registered", () -> sluice.state().contains("\"a\"") && sluice.state().contains("\"b\""));
                Load load = new Load().run(12, REQUESTS, a.port(), b.port());
                assertEquals(REQUESTS, load.count(200), "asking: " + load);
                assertEquals(REQUESTS, a.client().stats().granted() + b.client().stats().granted());
                Wait.until("given back", () -> sluice.inUse() == 0);
                within(a, b);
                sluice.kill();
                Load without = new Load().run(2, 60, a.port(), b.port());
                assertEquals(60, without.count(200), "by the pods' own units: " + without);
                sluice.start();
                Wait.until("both have registered again",
                        () -> sluice.state().contains("\"a\"") && sluice.state().contains("\"b\""));
            }
            Wait.until("both have drained", () -> !ready(sluice.state()));
        }
    }

    /** A refused pinned ask tells the balancer in front which pod has room. */
    @Test
    void aRefusalSaysElsewhere() throws Exception {
        try (Sluice sluice = new Sluice(rules("asking.yaml").replace("wait: 2s", "wait: 0ms"), false);
                Shop a = asking(sluice, "a", "--shop.work=60s", "--server.shutdown=immediate"); Shop b = asking(sluice, "b")) {
            Wait.until("both have registered", () -> sluice.state().contains("\"a\"") && sluice.state().contains("\"b\""));
            try (RawClient first = new RawClient(a.port()); RawClient second = new RawClient(a.port());
                    RawClient third = new RawClient(a.port()); RawClient fourth = new RawClient(a.port())) {
                // Not reports: the server does not interrupt work on other threads when it stops.
                first.send("POST", "/orders");
                second.send("POST", "/orders");
                third.send("POST", "/orders");
                Wait.until("a is full", () -> a.gauge().inUse() == CAPACITY);
                RawClient.Answer refused = fourth.call("POST", "/orders");
                assertEquals(429, refused.status());
                assertEquals("b", refused.header("x-sluicegate-elsewhere"));
                assertEquals("application/problem+json", refused.header("content-type"));
                assertTrue(Integer.parseInt(refused.header("retry-after")) >= 1);
                assertTrue(refused.body().contains("\"elsewhere\":\"b\""), refused.body());
                assertEquals(0, b.gauge().inUse());
            }
        }
    }

    /** The files of the example are what a reader starts; their addresses apart they are those of the tests. */
    @Test
    void theExamplesFilesAreValid() {
        for (String file : new String[] {"gateway.yaml", "asking.yaml"}) {
            try (Child check = new Child(List.of(Sluice.binary(), "check", "-c", file))) {
                check.line(file + " is valid", line -> line.contains("shop") ? line : null);
            }
        }
    }

    private static boolean ready(String state) {
        return state.replace(" ", "").contains("\"ready\":true,\"draining\":false");
    }

    private static void within(Shop... pods) {
        for (Shop pod : pods) {
            assertTrue(pod.gauge().peak() <= CAPACITY, "a pod bore " + pod.gauge().peak());
            assertTrue(pod.gauge().peak() >= 3, "a pod bore nothing");
            assertEquals(0, pod.gauge().inUse());
        }
    }

    private static Shop asking(Sluice sluice, String name, String... more) {
        List<String> settings = new java.util.ArrayList<>(List.of("--spring.profiles.active=asking",
                "--sluicegate.url=" + sluice.decisions(), "--sluicegate.pod.name=" + name,
                "--sluicegate.pod.url=http://127.0.0.1:" + (name.equals("a") ? 11 : 12),
                "--sluicegate.retry-after-failure=50ms", "--sluicegate.deadline=70s"));
        settings.addAll(List.of(more));
        return new Shop(settings.toArray(String[]::new));
    }

    /** A file of the example without its listeners: each test has its own. */
    private static String rules(String file) throws IOException {
        return Files.readString(Path.of(file)).replaceAll("(?m)^(gateway|admin|decisions): .*\n", "");
    }
}
