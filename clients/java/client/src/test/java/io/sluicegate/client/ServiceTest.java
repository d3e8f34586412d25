package io.sluicegate.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.net.URI;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** The client against the real decision service. */
class ServiceTest {
    private static final String RULES = """
            pool: shop
            pods:
              - {name: a, url: "http://127.0.0.1:9", capacity: 4}
              - {name: b, url: "http://127.0.0.1:10", capacity: 4}
            apis:
              - {name: health, match: "GET /health", exempt: true}
              - {name: order, match: "POST /orders", weight: 2}
              - {name: report, match: "GET /reports/**", weight: 3}
            admission: {wait: 0ms}
            """;
    private static final Duration LONG = Duration.ofSeconds(50);

    private final Sluice sluice = new Sluice(RULES, false);
    private final List<SluicegateClient> clients = new ArrayList<>();

    @AfterEach
    void close() {
        clients.forEach(SluicegateClient::close);
        sluice.close();
    }

    @Test
    void unitsAreHeldWhileALeaseIsOpenAndComeBackOnce() throws Exception {
        SluicegateClient client = client("a");
        Lease order = client.acquire(Ask.request("POST", "/orders?x=1"));
        assertEquals(2, order.weight());
        assertEquals("a", order.pod());
        assertEquals(Lease.Origin.SERVICE, order.origin());
        assertEquals(2, sluice.inUse());
        order.close();
        order.close();
        Wait.until("given back", () -> sluice.inUse() == 0);
        assertEquals(0, client.acquire(Ask.request("GET", "/health")).weight());
        assertEquals(1, client.acquire(Ask.api("report").weight(1)).weight());
    }

    @Test
    void aPinnedRefusalNamesAPodWithRoom() throws Exception {
        SluicegateClient client = client("a");
        client.acquire(Ask.api("report"));
        RefusedException refused = assertThrows(RefusedException.class, () -> client.acquire(Ask.api("report")));
        assertEquals(429, refused.status());
        assertEquals(Optional.of("b"), refused.elsewhere());
        assertTrue(refused.retryAfter().orElseThrow().toSeconds() >= 1);
        assertEquals(Optional.empty(), client.tryAcquire(Ask.api("report")));
        Lease preferred = client.acquire(Ask.api("report").prefer("a"));
        assertEquals("b", preferred.pod());
        RefusedException heavy = assertThrows(RefusedException.class, () -> client.acquire(Ask.api("order").weight(5)));
        assertEquals("too_heavy", heavy.reason());
        assertEquals(503, heavy.status());
        assertEquals(Optional.empty(), heavy.retryAfter());
    }

    @Test
    void aWaiterIsServedWhenUnitsComeBack() throws Exception {
        SluicegateClient client = client("a");
        Lease first = client.acquire(Ask.api("report"));
        CompletableFuture<Lease> waiting = client.acquireAsync(Ask.api("order").waitAtMost(LONG));
        Wait.until("it waits", () -> waits(1));
        assertFalse(waiting.isDone());
        first.close();
        assertEquals(2, waiting.get(60, TimeUnit.SECONDS).weight());
    }

    @Test
    void cancellingWithdrawsTheAskThatWaits() throws Exception {
        SluicegateClient client = client("a");
        Lease first = client.acquire(Ask.api("report"));
        CompletableFuture<Lease> waiting = client.acquireAsync(Ask.api("order").waitAtMost(LONG));
        Wait.until("it waits", () -> waits(1));
        waiting.cancel(true);
        Wait.until("it was withdrawn", () -> waits(0));
        first.close();
        Wait.until("nothing is left", () -> sluice.inUse() == 0 && client.stats().returning() == 0);
        assertEquals(1, client.stats().cancelled());
    }

    @Test
    void aThousandCallersWhoLeaveAtAnyMomentLeaveNothingBehind() throws Exception {
        SluicegateClient client = client(null);
        for (int round = 0; round < 1000; round++) {
            CompletableFuture<Lease> asked = client.acquireAsync(Ask.api("order").waitAtMost(LONG));
            for (int spin = 0; spin < round % 50 * 20; spin++) {
                Thread.yield();
            }
            if (!asked.cancel(true)) {
                asked.get().close();
            }
        }
        Wait.until("nothing is left", () -> sluice.inUse() == 0 && waits(0) && client.stats().returning() == 0);
        assertTrue(client.stats().cancelled() > 0, client.stats().toString());
        assertTrue(client.stats().granted() > 0, client.stats().toString());
        assertEquals(0, client.stats().open());
    }

    @Test
    void anInterruptWithdrawsTheAsk() throws Exception {
        SluicegateClient client = client("a");
        client.acquire(Ask.api("report"));
        Thread waiter = new Thread(
                () -> assertThrows(InterruptedException.class, () -> client.acquire(Ask.api("order").waitAtMost(LONG))));
        waiter.start();
        Wait.until("it waits", () -> waits(1));
        waiter.interrupt();
        waiter.join();
        Wait.until("it was withdrawn", () -> waits(0));
    }

    @Test
    void aLongRequestKeepsItsLeaseByRenewals() throws Exception {
        SluicegateClient client = keep(builder("a").hold(Duration.ofSeconds(1)).build());
        Lease lease = client.acquire(Ask.api("order"));
        // The service writes off at twice the hold: six renewals, each after a third of it at the earliest.
        for (int renewals = 0; renewals < 7; renewals++) {
            long before = lease.renewedAt();
            Wait.until("a renewal", () -> lease.renewedAt() != before);
        }
        assertEquals(2, sluice.inUse());
        assertFalse(lease.isLost());
        assertTrue(client.renew(lease, Duration.ofSeconds(30)));
        assertEquals(30_000, lease.holdMillis());
    }

    @Test
    void theUnitsOfACrashedProcessComeBack() throws Exception {
        // A lease that nobody renews is what a crash leaves.
        SluicegateClient client = keep(builder("a").hold(Duration.ofMillis(100)).build());
        client.renewals.close();
        client.acquire(Ask.api("order"));
        Wait.until("written off", () -> sluice.inUse() == 0);
    }

    @Test
    void aRestartedServiceForgetsLeasesAndTheClientSaysSo() throws Exception {
        SluicegateClient client = keep(builder("a").hold(Duration.ofMillis(600)).build());
        Lease lease = client.acquire(Ask.api("order"));
        sluice.kill();
        sluice.start();
        Wait.until("lost", lease::isLost);
        lease.close();
        assertEquals(1, client.stats().lost());
        assertEquals(0, client.stats().open());
        assertEquals(0, client.stats().returning(), "nothing to give back");
    }

    @Test
    void whatWasGivenBackDuringAnOutageIsToldAfterwards() throws Exception {
        SluicegateClient client = keep(builder("a").deadline(Duration.ofSeconds(1)).build());
        Lease lease = client.acquire(Ask.api("order"));
        sluice.pause();
        lease.close();
        Wait.until("it is on its way", () -> client.stats().returning() == 1);
        sluice.goOn();
        Wait.until("told", () -> client.stats().returning() == 0 && sluice.inUse() == 0);
    }

    @Test
    void aServiceThatHangsCountsAsAway() throws Exception {
        SluicegateClient client = keep(builder("a").deadline(Duration.ofMillis(200)).waitAtMost(Duration.ZERO)
                .retryAfterFailure(LONG).whenAway(WhenAway.CLOSED).build());
        sluice.pause();
        assertThrows(UnavailableException.class, () -> client.acquire(Ask.api("order")));
        assertTrue(client.stats().away());
        sluice.goOn();
        // The service reads the ask when it wakes; it was withdrawn, so it may hold it for a moment at most.
        Wait.until("nothing is left", () -> client.stats().returning() == 0 && sluice.inUse() == 0);
    }

    @Test
    void eachPolicyForAnAbsentService() throws Exception {
        LocalUnits units = new LocalUnits(4);
        SluicegateClient open = keep(builder("a").whenAway(WhenAway.OPEN).build());
        SluicegateClient shut = keep(builder("a").whenAway(WhenAway.CLOSED).build());
        SluicegateClient local = keep(builder("a").whenAway(WhenAway.LOCAL).local(units).build());
        Lease before = local.acquire(Ask.api("report"));
        assertEquals(3, units.inUse(), "a lease of the service holds the pod's own units too");
        sluice.kill();
        for (int i = 0; i < 10; i++) {
            assertEquals(Lease.Origin.OPEN, open.acquire(Ask.api("order")).origin());
        }
        assertThrows(UnavailableException.class, () -> shut.acquire(Ask.api("order")));
        RefusedException full = assertThrows(RefusedException.class, () -> local.acquire(Ask.api("report")));
        assertEquals("no_room", full.reason(), "the weight is remembered");
        Lease fits = local.acquire(Ask.api("order"));
        assertEquals(Lease.Origin.LOCAL, fits.origin());
        assertEquals(4, units.inUse());
        sluice.start();
        fits.close();
        Wait.until("asked again", () -> {
            Optional<Lease> lease = local.tryAcquire(Ask.api("order").weight(1));
            boolean back = lease.isPresent() && lease.get().origin() == Lease.Origin.SERVICE;
            lease.ifPresent(Lease::close);
            return back;
        });
        // The restarted service knows nothing of the report that still runs here; the pod's own lock does.
        assertThrows(RefusedException.class, () -> local.acquire(Ask.api("report")));
        before.close();
        // What was asked for above goes back by a batch, a moment later.
        Wait.until("all is back", () -> sluice.inUse() == 0);
        local.acquire(Ask.api("report")).close();
        assertEquals(0, units.inUse());
    }

    @Test
    void anAskThatTheServiceDoesNotTakeFollowsThePolicy() throws Exception {
        SluicegateClient shut = keep(builder("a").whenAway(WhenAway.CLOSED).build());
        UnavailableException fault = assertThrows(UnavailableException.class, () -> shut.acquire(Ask.api("nothing")));
        assertTrue(fault.getMessage().contains("nothing"), fault.getMessage());
        assertFalse(shut.stats().away(), "it is there all the same");
        assertNull(fault.getCause());
    }

    @Test
    void closingTellsTheServiceWhatWasGivenBackLast() throws Exception {
        SluicegateClient client = client("a");
        Lease lease = client.acquire(Ask.api("order"));
        lease.close();
        client.close();
        assertEquals(0, sluice.inUse());
    }

    @Test
    void aPodRegistersAndDrains() throws Exception {
        try (Sluice registered = new Sluice("pool: shop\npods: {registered: true}\nadmission: {wait: 0ms}", false)) {
            SluicegateClient client = keep(SluicegateClient.of(registered.decisions()).pod("x")
                    .whenAway(WhenAway.CLOSED).build());
            PodRegistration pod = client.register("x", URI.create("http://127.0.0.1:9"), 2, Duration.ofSeconds(30));
            Wait.until("registered", pod::isRegistered);
            client.acquire(Ask.request("GET", "/").weight(2)).close();
            registered.kill();
            registered.start();
            // The service knows no pod now. The first ask says so, and the pod registers at once, not a third of its
            // ttl later.
            Wait.until("known again", () -> {
                try (Lease lease = client.acquire(Ask.request("GET", "/").weight(2))) {
                    return lease.origin() == Lease.Origin.SERVICE;
                } catch (SluicegateException e) {
                    return false;
                }
            });
            pod.close();
            assertThrows(SluicegateException.class, () -> client.acquire(Ask.request("GET", "/")));
        }
    }

    @Test
    void cancelledBeforeItsAnswerTheFutureSaysSo() {
        SluicegateClient client = client("a");
        CompletableFuture<Lease> asked = client.acquireAsync(Ask.api("order").waitAtMost(LONG));
        asked.orTimeout(0, TimeUnit.NANOSECONDS);
        try {
            asked.get().close();
        } catch (ExecutionException | InterruptedException e) {
            assertTrue(asked.isCompletedExceptionally());
        }
        Wait.until("nothing is left", () -> sluice.inUse() == 0 && client.stats().returning() == 0);
    }

    private boolean waits(int count) {
        return sluice.state().replace(" ", "").contains("\"waiting\":" + count + ",\"mode\"");
    }

    private SluicegateClient.Builder builder(String pod) {
        return SluicegateClient.of(sluice.decisions()).pod(pod).retryAfterFailure(Duration.ofMillis(20));
    }

    private SluicegateClient client(String pod) {
        return keep(builder(pod).whenAway(WhenAway.CLOSED).build());
    }

    private SluicegateClient keep(SluicegateClient client) {
        clients.add(client);
        return client;
    }
}
