package io.sluicegate.cloudgateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import io.sluicegate.cloudgateway.Load.Errand;
import io.sluicegate.spring.SluicegateWebFilter;
import io.sluicegate.testkit.Pods;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** The gateway beside Sluicegate: where requests go, what they bear, and what becomes of those that no pod took up. */
class BesideTest {
    private static final int CAPACITY = 20;
    private static final String RULES = """
            apis:
              - {name: all, match: "GET /all/**", weight: 20}
              - {name: inner, match: "GET /inner", weight: 3}
              - {name: five, weight: 5}
            admission: {wait: 30s}
            """;
    /** Closed after the last test: gateways of one process share their threads. */
    private static final List<Gateway> GATEWAYS = new ArrayList<>();

    private Pods pods;
    private Sluice sluice;

    private Gateway start(String route, String... settings) {
        return start(new Pods(2, "capacity: " + CAPACITY, RULES), route, settings);
    }

    /** {@code route}: lines that go before the shipped route, or nothing. */
    private Gateway start(Pods theirs, String route, String... settings) {
        pods = theirs;
        sluice = new Sluice(pods.rules(), false);
        List<String> all = new ArrayList<>(List.of("--sluicegate.url=" + sluice.decisions(), "--sluicegate.deadline=31s"));
        all.addAll(List.of(settings));
        Gateway gateway = new Gateway("beside.yaml", List.of("  routes:\n", "  routes:\n" + route.replace("POD_A", "" + pods.port(0)).indent(4),
                "http://127.0.0.1:9000", "http://127.0.0.1:" + pods.port(0)), all.toArray(String[]::new));
        GATEWAYS.add(gateway);
        return gateway;
    }

    @AfterEach
    void close() {
        if (sluice != null) {
            sluice.close();
            pods.close();
        }
    }

    @AfterAll
    static void closeAll() {
        GATEWAYS.forEach(Gateway::close);
    }

    /** Somebody else uses pod a too, so that its own lock refuses what Sluicegate sends there. */
    @Test
    void aPodThatRefusesIsGivenUpForAnother() throws Exception {
        Gateway gateway = start("");
        try (RawClient other = new RawClient(pods.port(0)); RawClient client = gateway.connect()) {
            other.send("GET", "/all/?hang");
            Wait.until("a is full", () -> pods.inUse() == CAPACITY);
            for (int i = 0; i < 100; i++) {
                RawClient.Answer answer = client.call("GET", "/all/");
                assertEquals(200, answer.status(), answer.body());
                assertEquals("b", answer.header("x-trial-pod"));
            }
            assertTrue(sluice.podRefusals() > 0, "a was never tried");
        }
        settledWithout(gateway);
    }

    @Test
    void aPodThatIsGoneIsGivenUpForAnother() throws Exception {
        Gateway gateway = start("");
        pods.kill(0);
        Load load = Load.run(gateway.port(), 10, 100, number -> Errand.whole("/one?ms=5"));
        assertEquals(100, load.count("200"), load.toString());
        settledWithout(gateway);
    }

    @Test
    void withoutAnyPodItIsRefused() throws Exception {
        Gateway gateway = start("", "--sluicegate.wait-at-most=100ms");
        pods.kill(0);
        pods.kill(1);
        try (RawClient client = gateway.connect()) {
            RawClient.Answer refused = client.call("GET", "/one");
            assertEquals(503, refused.status());
            assertEquals("no_ready_pod", refused.header("x-sluicegate-reason"));
        }
        settledWithout(gateway);
    }

    /** What was sent of a body is gone: the pod's own refusal is the answer. */
    @Test
    void aRefusedBodyIsNotSentAgain() throws Exception {
        Gateway gateway = start("");
        try (RawClient client = gateway.connect()) {
            assertEquals(429, client.call("GET", "/one?refuse").status(), "no pod takes it");
            assertEquals(2, sluice.podRefusals(), "it was tried twice more");
            client.send("POST", "/one?refuse", "hello");
            TreeMap<String, String> headers = new TreeMap<>();
            assertEquals(429, client.head(headers));
            client.body(headers);
            assertEquals(2, sluice.podRefusals());
        }
        settled(gateway);
    }

    @Test
    void refusalsAreProblems() throws Exception {
        Gateway gateway = start("", "--sluicegate.wait-at-most=0ms");
        try (RawClient one = gateway.connect(); RawClient two = gateway.connect(); RawClient client = gateway.connect()) {
            one.send("GET", "/all/?ms=600000");
            two.send("GET", "/all/?ms=600000");
            Wait.until("the pool is full", () -> pods.inUse() == 2 * CAPACITY);
            RawClient.Answer refused = client.call("GET", "/one");
            assertEquals(429, refused.status());
            assertEquals("no_room", refused.header("x-sluicegate-reason"));
            assertEquals("application/problem+json", refused.header("content-type"));
            assertTrue(Integer.parseInt(refused.header("retry-after")) >= 1);
            assertTrue(refused.body().contains("\"reason\":\"no_room\""), refused.body());
        }
    }

    @Test
    void routesSayWhatIsAskedForAndWhoAsks() throws Exception {
        Gateway gateway = start("""
                - {id: named, uri: "sluicegate:http://127.0.0.1:9", predicates: [Path=/named], metadata: {sluicegate-api: five}}
                - {id: inner, uri: "sluicegate:http://127.0.0.1:9", predicates: [Path=/outer/**], filters: [StripPrefix=1]}
                - {id: plain, uri: "http://127.0.0.1:POD_A", predicates: [Path=/plain]}
                - id: again
                  uri: "sluicegate:http://127.0.0.1:9"
                  predicates: [Path=/again]
                  filters: [{name: Retry, args: {retries: 1, series: [], exceptions: java.io.IOException}}]
                """);
        assertFalse(gateway.has(SluicegateWebFilter.class), "a gateway asks for its routes, not for itself");
        try (RawClient client = gateway.connect()) {
            try (RawClient named = gateway.connect()) {
                named.send("GET", "/named?chunks=2&every=600000");
                named.head(new TreeMap<>());
                assertEquals(5, sluice.inUse());
            }
            try (RawClient inner = gateway.connect()) {
                inner.send("GET", "/outer/inner?chunks=2&every=600000");
                inner.head(new TreeMap<>());
                assertEquals(5 + 3, sluice.inUse(), "asked by the path that the pod sees");
                assertEquals(1 + 3, pods.inUse());
            }
            long before = sluice.count("admitted");
            assertEquals("a", client.call("GET", "/plain").header("x-trial-pod"));
            assertEquals(before, sluice.count("admitted"), "a route without the prefix does not ask");
            assertEquals(502, client.call("GET", "/again?reset=head").status());
            assertEquals(before + 2, sluice.count("admitted"), "each run has a lease of its own");
        }
    }

    @Test
    void headersThatAreOursAreNobodyElses() throws Exception {
        HttpServer pod = echoingHeaders();
        String rules = "pool: shop\npods: [{name: e, url: \"http://127.0.0.1:" + pod.getAddress().getPort()
                + "\", capacity: 5}]";
        try (Sluice service = new Sluice(rules, false)) {
            Gateway gateway = new Gateway("beside.yaml", List.of(), "--sluicegate.url=" + service.decisions());
            GATEWAYS.add(gateway);
            try (RawClient client = gateway.connect()) {
                RawClient.Answer answer =
                        client.call("GET", "/one", "X-Sluicegate-In-Use: 9", "x-sluicegate-reason: no", "x-mine: 1");
                String seen = answer.body().toLowerCase(Locale.ROOT);
                assertTrue(seen.contains("x-mine"), seen);
                assertFalse(seen.contains("x-sluicegate"), seen);
                assertNull(answer.header("x-sluicegate-in-use"), "the pod's word is for who asks");
                assertTrue(answer.header("server-timing").startsWith("admission;dur="));
            }
        } finally {
            pod.stop(0);
        }
    }

    @Test
    void withoutADecisionOpenGoesWhereTheRouteSays() throws Exception {
        Gateway gateway = start("", "--sluicegate.when-away=open");
        sluice.kill();
        try (RawClient client = gateway.connect()) {
            RawClient.Answer answer = client.call("GET", "/one");
            assertEquals(200, answer.status());
            assertEquals("a", answer.header("x-trial-pod"));
        }
        assertEquals(1, gateway.stats().awayOpen());
    }

    @Test
    void switchedOffTheRouteGoesThereToo() throws Exception {
        Gateway gateway = start("", "--sluicegate.enabled=false");
        try (RawClient client = gateway.connect()) {
            assertEquals("a", client.call("GET", "/one").header("x-trial-pod"));
        }
        assertEquals(0, sluice.count("admitted"));
    }

    /** The gateway's pods work on, those of this route stop: it hangs up, and their endless answer ends. */
    @Test
    void aRouteMaySayWhatItsPodsDoWithoutTheirClient() throws Exception {
        Pods stopping = new Pods(1, "capacity: " + CAPACITY + ", on_disconnect: stops", RULES);
        Gateway gateway = start(stopping, """
                - id: stops
                  uri: "sluicegate:http://127.0.0.1:9"
                  predicates: [Path=/endless]
                  metadata: {sluicegate-on-disconnect: stops}
                """);
        for (String target : List.of("/endless?hang", "/endless?chunks=2&every=600000")) {
            RawClient client = gateway.connect();
            client.send("GET", target);
            Wait.until("it runs", () -> pods.inUse() == 1);
            client.abort();
            settled(gateway);
        }
    }

    @Test
    void settingsOfAPodAreRefused() {
        RuntimeException failure = assertThrows(RuntimeException.class, () -> new Gateway("beside.yaml", List.of(),
                "--sluicegate.pod.capacity=5", "--logging.level.org.springframework=off"));
        Throwable cause = failure;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        assertTrue(cause.getMessage().contains("nothing of sluicegate.pod"), cause.getMessage());
    }

    private static HttpServer echoingHeaders() throws IOException {
        HttpServer pod = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        pod.createContext("/", exchange -> {
            byte[] body = exchange.getRequestHeaders().keySet().toString().getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("x-sluicegate-in-use", "7");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        pod.start();
        return pod;
    }

    private void settled(Gateway gateway) {
        Wait.until("pods are idle", () -> pods.inUse() == 0);
        settledWithout(gateway);
    }

    /** Pods that are gone say nothing. */
    private void settledWithout(Gateway gateway) {
        Wait.until("nothing is held", () -> sluice.inUse() == 0 && sluice.waiting() == 0 && gateway.stats().open() == 0
                && gateway.stats().returning() == 0);
    }
}
