package io.sluicegate.cloudgateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.cloudgateway.Load.Errand;
import io.sluicegate.testkit.Pods;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntFunction;

/** Two pods that never refuse, the decision service, and the gateway beside it. */
final class Ground implements AutoCloseable {
    static final int CAPACITY = 20;
    /** Milliseconds to the answer's head that the path {@code /w/N/late} is given. */
    static final int LATE = 300;
    private static final int CALLERS = 40;
    private static final String RULES = """
            apis:
              - {name: w1, match: "GET /w/1/**", weight: 1}
              - {name: w2, match: "GET /w/2/**", weight: 2}
              - {name: w3, match: "GET /w/3/**", weight: 3}
              - {name: now, match: "GET /now/**", weight: 3, wait: 0s}
              - {name: all, match: "GET /all/**", weight: 20}
            admission: {wait: 30s}
            """;
    private static final String LATE_ROUTE = """
              routes:
                - id: late
                  uri: "sluicegate:http://127.0.0.1:9"
                  predicates: ["Path=/w/*/late"]
                  metadata: {response-timeout: 300}
            """.indent(2).replaceAll("(?m)^  ", "");

    final Pods pods;
    final Sluice sluice;
    final Gateway gateway;
    private long counted;
    private long abandoned;

    /**
     * Starts all.
     *
     * @param manners of the pods
     * @param believed what the gateway is told of them
     */
    Ground(OnDisconnect manners, OnDisconnect believed, String... settings) {
        pods = new Pods(2, "capacity: " + CAPACITY
                + (manners == OnDisconnect.STOPS ? ", on_disconnect: stops, settle: 20ms" : ""), RULES, "--count-only");
        sluice = new Sluice(pods.rules(), false);
        List<String> all = new ArrayList<>(List.of("--sluicegate.url=" + sluice.decisions(), "--sluicegate.deadline=31s",
                "--sluicegate.hold=2s", "--sluicegate.retry-after-failure=20ms",
                "--sluicegate.gateway.on-disconnect=" + believed));
        all.addAll(List.of(settings));
        gateway = new Gateway("beside.yaml", List.of("  routes:\n", LATE_ROUTE), all.toArray(String[]::new));
    }

    /** What was before counts no more. */
    Ground anew() {
        pods.reset();
        counted = counted();
        abandoned = sluice.abandoned();
        return this;
    }

    /** Starts the service again, which has forgotten all. */
    void restart() {
        sluice.start();
        abandoned = 0;
    }

    /** Sends so many; one in four is a victim, if there are any. */
    Load run(int requests, IntFunction<Errand> victims) throws Exception {
        return Load.run(gateway.port(), CALLERS, requests, number -> {
            Errand victim = number % 4 == 0 ? victims.apply(number) : null;
            return victim != null ? victim : Errand.whole("/w/" + (1 + number % 3) + "/?ms=20");
        });
    }

    /** Waits until nothing is held, and all of it was given back; {@code what} is for people. */
    void settled(Object what) {
        settled(what, 0);
    }

    /** The same where the hold ended so many units. Looks whether pods bore too much, too. */
    void settled(Object what, long byHold) {
        try {
            Wait.until("nothing is held", () -> sluice.inUse() == 0 && sluice.waiting() == 0 && pods.inUse() == 0
                    && gateway.stats().open() == 0 && gateway.stats().returning() == 0);
        } catch (AssertionError e) {
            throw new AssertionError(what + ", " + gateway.stats() + ", pods " + pods.inUse() + "\n" + sluice.state(), e);
        }
        assertEquals(byHold, sluice.abandoned() - abandoned, "units that nobody gave back: " + what);
        for (long peak : pods.peaks()) {
            assertTrue(peak <= CAPACITY, "a pod bore " + peak + " of " + CAPACITY + ": " + what);
            assertTrue(peak >= 3, "a pod bore nothing: " + peak);
        }
        System.out.println(what + ", peaks " + pods.peaks() + " of " + CAPACITY);
    }

    /** So many asks came to an end since {@link #anew()}, each to one. */
    void counted(long requests) {
        assertEquals(requests, counted() - counted);
    }

    private long counted() {
        return sluice.count("admitted") + sluice.count("refused") + sluice.count("cancelled");
    }

    @Override
    public void close() {
        gateway.close();
        sluice.close();
        pods.close();
    }
}
