package io.sluicegate.cloudgateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.cloudgateway.Load.Errand;
import io.sluicegate.cloudgateway.Load.Manner;
import io.sluicegate.testkit.Pods;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The gateway in front of Sluicegate's: plain, as it comes, with the configuration that is shipped. */
class BehindTest {
    private static final int CAPACITY = 20;
    /** Closed after the last test: gateways of one process share their threads. */
    private static final List<Gateway> GATEWAYS = new ArrayList<>();

    private Pods pods;
    private Sluice sluice;

    private Gateway start(OnDisconnect manners, String wait, String... settings) {
        String pod = "capacity: " + CAPACITY + (manners == OnDisconnect.STOPS ? ", on_disconnect: stops, settle: 20ms" : "");
        pods = new Pods(2, pod, "apis: [{name: all, match: \"GET /all/**\", weight: 20}]\nadmission: {wait: " + wait + "}",
                "--count-only");
        sluice = new Sluice(pods.rules(), true);
        List<String> all = new ArrayList<>(List.of(settings));
        // What the module brings is of no use here.
        all.add("--sluicegate.enabled=false");
        Gateway gateway = new Gateway("behind.yaml", List.of("http://127.0.0.1:8080", sluice.gateway().toString()),
                all.toArray(String[]::new));
        GATEWAYS.add(gateway);
        return gateway;
    }

    @AfterEach
    void close() {
        sluice.close();
        pods.close();
    }

    @AfterAll
    static void closeAll() {
        GATEWAYS.forEach(Gateway::close);
    }

    @Test
    void answersAndRefusalsComeThroughWhole() throws Exception {
        Gateway gateway = start(OnDisconnect.STOPS, "0s");
        List<RawClient> full = fill(gateway);
        try (RawClient client = gateway.connect()) {
            RawClient.Answer refused = client.call("GET", "/one");
            assertEquals(429, refused.status());
            assertEquals("no_room", refused.header("x-sluicegate-reason"));
            assertEquals("application/problem+json", refused.header("content-type"));
            assertTrue(Integer.parseInt(refused.header("retry-after")) >= 1);
            assertTrue(refused.body().contains("\"reason\":\"no_room\""), refused.body());
            for (RawClient one : full) {
                one.abort();
            }
            // What a pod that stops has freed is used after `settle`.
            Wait.until("served", () -> client.call("GET", "/one").status() == 200);
            assertTrue(client.call("GET", "/one").header("server-timing").startsWith("admission;dur="));
            sluice.kill();
            assertEquals(500, client.call("GET", "/one").status());
        }
    }

    @Test
    void whoLeavesWhileWaitingLeavesTheQueue() throws Exception {
        Gateway gateway = start(OnDisconnect.STOPS, "120s");
        List<RawClient> full = fill(gateway);
        List<RawClient> waiting = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            waiting.add(gateway.connect());
            waiting.get(i).send("GET", "/one");
        }
        Wait.until("all wait", () -> sluice.waiting() == 100);
        for (RawClient one : waiting.subList(1, 100)) {
            one.abort();
        }
        Wait.until("one is left", () -> sluice.waiting() == 1);
        for (RawClient one : full) {
            one.abort();
        }
        assertEquals(200, waiting.get(0).head(new TreeMap<>()));
        waiting.get(0).close();
        settled();
    }

    /** What is shipped allows the longest wait and hold; a gateway that allows less gives up on who has a place in the line. */
    @Test
    void aShorterResponseTimeoutCutsOffWhoWaits() throws Exception {
        Gateway gateway = start(OnDisconnect.STOPS, "120s",
                "--spring.cloud.gateway.server.webflux.httpclient.response-timeout=2s");
        List<RawClient> full = fill(sluice.gateway().getPort());
        try (RawClient late = gateway.connect()) {
            late.send("GET", "/one");
            Wait.until("it waits", () -> sluice.waiting() == 1);
            assertEquals(504, late.head(new TreeMap<>()));
            Wait.until("it has left the line", () -> sluice.waiting() == 0);
            assertEquals(2 * CAPACITY, pods.inUse());
        }
        for (RawClient one : full) {
            one.abort();
        }
        settled();
        assertEquals(1, sluice.count("cancelled"), "it never reached a pod");
    }

    @ParameterizedTest
    @EnumSource
    void unitsAreHeldToThePodsEndAndNothingIsSentTwice(OnDisconnect manners) throws Exception {
        Gateway gateway = start(manners, "60s");
        int requests = 400;
        Load load = Load.run(gateway.port(), 60, requests, number -> switch (number % 4) {
            case 0 -> new Errand("/one?chunks=20&every=20", Manner.LEAVES_STREAMING);
            case 1 -> new Errand("/one?ms=30", Manner.LEAVES_AT_ONCE);
            // A pod that resets and works on is nobody's to see.
            case 2 -> Errand.whole(manners == OnDisconnect.STOPS ? "/one?ms=10&reset=head" : "/one?ms=20");
            default -> Errand.whole("/one?ms=20");
        });
        assertEquals(requests / 2, load.count("left"), load.toString());
        assertTrue(load.count("502") > requests / 5 || manners == OnDisconnect.CONTINUES, load.toString());
        settled();
        // One who leaves at once may have been granted units and no pod.
        assertTrue(pods.served() >= requests * 3 / 4 - load.count("500"), pods.served() + " served: " + load);
        assertTrue(pods.served() <= Math.min(requests, sluice.count("admitted")), pods.served() + " served: " + load);
        System.out.println("behind: " + load + ", peaks " + pods.peaks() + " of " + CAPACITY);
    }

    private List<RawClient> fill(Gateway gateway) throws Exception {
        return fill(gateway.port());
    }

    private List<RawClient> fill(int port) throws Exception {
        List<RawClient> full = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            full.add(new RawClient(port));
            full.get(i).send("GET", "/all/?hang");
        }
        Wait.until("the pool is full", () -> pods.inUse() == 2 * CAPACITY);
        return full;
    }

    private void settled() {
        Wait.until("nothing is held", () -> sluice.inUse() == 0 && sluice.waiting() == 0 && pods.inUse() == 0);
        for (long peak : pods.peaks()) {
            assertTrue(peak <= CAPACITY, "a pod bore " + peak);
        }
    }
}
