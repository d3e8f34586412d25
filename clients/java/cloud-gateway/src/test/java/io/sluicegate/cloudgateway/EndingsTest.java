package io.sluicegate.cloudgateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.cloudgateway.Load.Errand;
import io.sluicegate.cloudgateway.Load.Manner;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Wait;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * The gateway beside Sluicegate: some hundred requests that end in one way, among others that end well. Afterwards nothing
 * is in use and nobody waits, each request was counted once, and no pod, none of which ever refuses, bore more than its
 * capacity.
 */
class EndingsTest {
    private static final int REQUESTS = 240;
    /** Starting one takes seconds. None is closed before the last test: gateways of one process share their threads. */
    private static final Map<String, Ground> GROUNDS = new HashMap<>();

    private static Ground ground(OnDisconnect manners) {
        return ground(manners, manners);
    }

    private static Ground ground(OnDisconnect manners, OnDisconnect believed, String... settings) {
        return GROUNDS.computeIfAbsent(manners + " " + believed + " " + String.join(" ", settings),
                key -> new Ground(manners, believed, settings)).anew();
    }

    @AfterAll
    static void close() {
        GROUNDS.values().forEach(Ground::close);
        GROUNDS.clear();
    }

    @ParameterizedTest
    @EnumSource
    void normal(OnDisconnect manners) throws Exception {
        Ground ground = ground(manners);
        Load load = ground.run(REQUESTS, number -> null);
        assertEquals(REQUESTS, load.count("200"), load.toString());
        ground.settled(load);
        ground.counted(REQUESTS);
        assertEquals(REQUESTS, ground.pods.served());
    }

    @ParameterizedTest
    @EnumSource
    void refused(OnDisconnect manners) throws Exception {
        Ground ground = ground(manners);
        long before = ground.sluice.count("refused");
        int whileFull = REQUESTS / 4;
        try (SluicegateClient other = SluicegateClient.of(ground.sluice.decisions()).build();
                Lease one = other.acquire(Ask.api("all"));
                Lease two = other.acquire(Ask.api("all"))) {
            assertEquals(2 * Ground.CAPACITY, one.weight() + two.weight());
            Load full = Load.run(ground.gateway.port(), 20, whileFull, number -> Errand.whole("/now/"));
            assertEquals(whileFull, full.count("429"), full.toString());
        }
        Load load = ground.run(2 * REQUESTS, number -> Errand.whole("/now/?ms=20"));
        assertEquals(2 * REQUESTS, load.count("429") + load.count("200"), load.toString());
        ground.settled(load);
        ground.counted(2 + whileFull + 2 * REQUESTS);
        assertEquals(whileFull + load.count("429"), ground.sluice.count("refused") - before);
        assertEquals(load.count("200"), ground.pods.served());
    }

    @ParameterizedTest
    @EnumSource
    void leavesWhileWaiting(OnDisconnect manners) throws Exception {
        Ground ground = ground(manners);
        int waiting = 200;
        long before = ground.sluice.count("cancelled");
        List<RawClient> clients = new ArrayList<>();
        try (SluicegateClient other = SluicegateClient.of(ground.sluice.decisions()).build()) {
            Lease[] all = {other.acquire(Ask.api("all")), other.acquire(Ask.api("all"))};
            for (int i = 0; i < waiting; i++) {
                clients.add(ground.gateway.connect());
                clients.get(i).send("GET", "/w/" + (1 + i % 3) + "/");
            }
            Wait.until("all wait", () -> ground.sluice.waiting() == waiting);
            for (int i = 0; i < waiting; i++) {
                if (i % 4 != 0) {
                    clients.get(i).abort();
                }
            }
            Wait.until("a quarter is left", () -> ground.sluice.waiting() == waiting / 4);
            assertEquals(2 * Ground.CAPACITY, ground.sluice.inUse());
            for (Lease lease : all) {
                lease.close();
            }
        }
        for (int i = 0; i < waiting; i += 4) {
            assertEquals(200, clients.get(i).head(new TreeMap<>()));
            clients.get(i).close();
        }
        ground.settled(waiting + " waited");
        ground.counted(waiting + 2);
        assertEquals(waiting / 4, ground.pods.served());
        assertEquals(waiting * 3 / 4, ground.sluice.count("cancelled") - before);
    }

    /** Also between the grant and the pod's head. */
    @ParameterizedTest
    @EnumSource
    void leavesAtAnyMoment(OnDisconnect manners) throws Exception {
        Ground ground = ground(manners);
        long before = ground.gateway.stats().granted();
        Load load = ground.run(REQUESTS, number -> new Errand("/w/2/?ms=30", Manner.LEAVES_AT_ONCE));
        assertEquals(REQUESTS / 4, load.count("left"), load.toString());
        assertEquals(REQUESTS * 3 / 4, load.count("200"), load.toString());
        ground.settled(load);
        // A request that is reset before it was read was none, so nobody knows how many asked.
        // Nor whether a pod got what was granted to one who left just then.
        assertTrue(ground.pods.served() <= ground.gateway.stats().granted() - before, load.toString());
    }

    @ParameterizedTest
    @EnumSource
    void leavesWhileStreaming(OnDisconnect manners) throws Exception {
        streams(ground(manners));
    }

    /** The same where the gateway flushes each part, as it does with server-sent events. */
    @Test
    void leavesWhileEventsStream() throws Exception {
        streams(ground(OnDisconnect.CONTINUES, OnDisconnect.CONTINUES,
                "--spring.cloud.gateway.server.webflux.streaming-media-types=*/*"));
    }

    private static void streams(Ground ground) throws Exception {
        Load load = ground.run(REQUESTS, number -> new Errand("/w/1/?chunks=20&every=20", Manner.LEAVES_STREAMING));
        assertEquals(REQUESTS / 4, load.count("left"), load.toString());
        assertEquals(REQUESTS * 3 / 4, load.count("200"), load.toString());
        ground.settled(load);
        ground.counted(REQUESTS);
        assertEquals(REQUESTS, ground.pods.served());
    }

    /** The pods are those that stop: one that resets and works on is nobody's to see. */
    @ParameterizedTest
    @EnumSource
    void podResets(OnDisconnect believed) throws Exception {
        Ground ground = ground(OnDisconnect.STOPS, believed);
        long failed = ground.sluice.count("failed");
        Load load = ground.run(REQUESTS, number -> Errand.whole(
                number % 8 == 0 ? "/w/2/?ms=10&reset=head" : "/w/2/?ms=10&reset=body&chunks=4&every=5"));
        assertEquals(REQUESTS / 8, load.count("502"), load.toString());
        assertEquals(REQUESTS / 8, load.count("broken"), load.toString());
        assertEquals(REQUESTS * 3 / 4, load.count("200"), load.toString());
        ground.settled(load);
        // Nothing is sent twice.
        ground.counted(REQUESTS);
        assertEquals(REQUESTS, ground.pods.served());
        assertEquals(REQUESTS / 8, ground.sluice.count("failed") - failed);
    }

    @ParameterizedTest
    @EnumSource
    void podIsTooLate(OnDisconnect manners) throws Exception {
        Ground ground = ground(manners);
        Load load = ground.run(REQUESTS, number -> Errand.whole("/w/1/late?ms=" + 3 * Ground.LATE));
        assertEquals(REQUESTS / 4, load.count("504"), load.toString());
        assertEquals(REQUESTS * 3 / 4, load.count("200"), load.toString());
        // Where pods work on, nobody sees their end.
        ground.settled(load, manners == OnDisconnect.CONTINUES ? REQUESTS / 4 : 0);
        ground.counted(REQUESTS);
    }

    @ParameterizedTest
    @EnumSource
    void theServiceIsKilled(OnDisconnect manners) throws Exception {
        Ground ground = ground(manners);
        // More than one pod's.
        int runs = Ground.CAPACITY * 3 / 2;
        int waiting = 50;
        List<RawClient> running = new ArrayList<>();
        List<RawClient> waiters = new ArrayList<>();
        try (SluicegateClient other = SluicegateClient.of(ground.sluice.decisions()).build()) {
            send(ground, running, runs, "/w/1/?ms=8000");
            Wait.until("pods are at work", () -> ground.pods.inUse() == runs);
            for (int i = runs; i < 2 * Ground.CAPACITY; i++) {
                // Never given back: the service is gone before.
                assertEquals(1, other.acquire(Ask.api("w1")).weight());
            }
            send(ground, waiters, waiting, "/w/1/");
            Wait.until("all others wait", () -> ground.sluice.waiting() == waiting);
            assertEquals(runs, ground.pods.inUse());
            ground.sluice.kill();
            statuses(waiters, 503);
            statuses(running, 200);
        }
        assertEquals(runs, ground.pods.served(), "what ran goes on, what waited never began");
        // What runs on without the service's knowledge would count against the next one.
        Wait.until("pods are through", () -> ground.pods.inUse() == 0);
        ground.restart();
        Wait.until("served again", () -> {
            try (RawClient client = ground.gateway.connect()) {
                return client.call("GET", "/w/1/").status() == 200;
            }
        });
        ground.settled(runs + " ran, " + waiting + " waited");
        ground.anew();
        Load after = ground.run(REQUESTS / 2, number -> null);
        assertEquals(REQUESTS / 2, after.count("200"), after.toString());
        ground.settled(after);
        ground.counted(REQUESTS / 2);
    }

    private static void send(Ground ground, List<RawClient> clients, int count, String path) throws Exception {
        for (int i = 0; i < count; i++) {
            RawClient client = ground.gateway.connect();
            client.send("GET", path);
            clients.add(client);
        }
    }

    private static void statuses(List<RawClient> clients, int status) throws Exception {
        for (RawClient client : clients) {
            TreeMap<String, String> headers = new TreeMap<>();
            assertEquals(status, client.head(headers));
            client.body(headers);
            client.close();
        }
    }
}
