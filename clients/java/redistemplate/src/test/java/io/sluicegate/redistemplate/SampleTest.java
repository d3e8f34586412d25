package io.sluicegate.redistemplate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.WhenAway;
import io.sluicegate.testkit.Redis;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.data.redis.connection.RedisStandaloneConfiguration;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.core.StringRedisTemplate;

/**
 * Each leak of the sample, run against a real Redis by a real RedisTemplate, and the same story with a lease. The page
 * docs/java-from-redistemplate.md tells them in the same order.
 */
class SampleTest {
    private static final int CAPACITY = 4;
    private static final Duration LONG = Duration.ofSeconds(60);
    private static final Ask TWO = Ask.request("POST", "/orders").weight(2);

    private final Redis server = new Redis();
    private final LettuceConnectionFactory connections =
            new LettuceConnectionFactory(new RedisStandaloneConfiguration("127.0.0.1", server.port()));
    private final StringRedisTemplate redis = template();
    private final Sluice sluice = new Sluice("pool: shop\npods:\n  - {name: a, url: \"http://127.0.0.1:9\", capacity: "
            + CAPACITY + "}\nadmission: {wait: 0ms}", false);
    private final SluicegateClient client = client(Duration.ofSeconds(15));

    @AfterEach
    void close() {
        client.close();
        sluice.close();
        connections.destroy();
        server.close();
    }

    /** 1. A refused DECR is never put back. */
    @Test
    void refusalsTakeUnitsForEver() throws Exception {
        Sample sample = new Sample(redis, "a", CAPACITY, LONG);
        assertTrue(sample.enter(2));
        assertTrue(sample.enter(2));
        for (int i = 0; i < 10; i++) {
            assertFalse(sample.enter(2), "full");
        }
        sample.leave(2);
        sample.leave(2);
        assertEquals(CAPACITY - 20, sample.free(), "nothing runs, and the number says -16");
        assertFalse(sample.enter(2), "the pod stands empty and refuses");

        List<Lease> held = List.of(client.acquire(TWO), client.acquire(TWO));
        for (int i = 0; i < 10; i++) {
            assertEquals(Optional.empty(), client.tryAcquire(TWO), "full");
        }
        held.forEach(Lease::close);
        Wait.until("all of it is free again", () -> sluice.inUse() == 0);
        client.acquire(TWO.weight(CAPACITY)).close();
    }

    /** 2. INCR twice: a finally and an error handler, or a retry after a time-out that was none. */
    @Test
    void aSecondReturnMakesUnitsThatNobodyHas() throws Exception {
        Sample sample = new Sample(redis, "a", CAPACITY, LONG);
        assertTrue(sample.enter(2));
        sample.leave(2);
        sample.leave(2);
        assertEquals(CAPACITY + 2, sample.free());
        int running = 0;
        while (sample.enter(1)) {
            running++;
        }
        assertEquals(CAPACITY + 2, running, "the pod bears more than it declared");

        Lease lease = client.acquire(TWO);
        lease.close();
        lease.close();
        Wait.until("given back", () -> sluice.inUse() == 0);
        assertEquals(CAPACITY, admitted(Ask.request("GET", "/").weight(1)));
    }

    /** 3. EXPIRE forgets who runs: a request longer than the ttl, and all start again from full. */
    @Test
    void expiryDropsTheNumberWithRequestsStillRunning() throws Exception {
        Sample sample = new Sample(redis, "a", CAPACITY, Duration.ofMillis(50));
        assertTrue(sample.enter(4), "one long request, alone on the pod");
        Wait.until("expired", sample::isMissing);
        assertTrue(sample.enter(4), "a second one beside it: 8 units on a pod of 4");
        sample.leave(4);
        sample.leave(4);
        assertTrue(sample.free() >= CAPACITY, "and afterwards the number is too high: " + sample.free());

        try (SluicegateClient brief = client(Duration.ofSeconds(1))) {
            Lease lease = brief.acquire(TWO.weight(4));
            // Longer than twice the hold, at which the service would write it off: it is renewed while it is open.
            long lived = System.nanoTime() + Duration.ofSeconds(3).toNanos();
            Wait.until("far beyond its hold", () -> {
                assertEquals(Optional.empty(), client.tryAcquire(TWO), "never a second one beside it");
                return System.nanoTime() - lived >= 0;
            });
            assertFalse(lease.isLost());
            lease.close();
        }
    }

    /** 4. A pod that dies keeps its units: each request of the others renews the EXPIRE that was to free them. */
    @Test
    void aCrashKeepsUnitsWhileThereIsTraffic() throws Exception {
        Duration ttl = Duration.ofSeconds(2);
        Sample sample = new Sample(redis, "a", CAPACITY, ttl);
        assertTrue(sample.enter(3), "the one that crashes: it never leaves");
        long later = System.nanoTime() + ttl.multipliedBy(2).toNanos();
        Wait.until("twice the ttl has passed", () -> {
            if (sample.enter(1)) {
                sample.leave(1);
            }
            assertFalse(sample.isMissing());
            return System.nanoTime() - later >= 0;
        });
        assertEquals(1, sample.free(), "still without the three");

        crash();
        Wait.until("its units came back by themselves, under traffic", () -> {
            client.tryAcquire(TWO.weight(1)).ifPresent(Lease::close);
            Optional<Lease> lease = client.tryAcquire(TWO.weight(CAPACITY));
            lease.ifPresent(Lease::close);
            return lease.isPresent();
        });
    }

    /** 5. GET and then SET is two steps: a pod that starts forgets what another entered in between. */
    @Test
    void twoThatStartTogetherForgetEachOther() throws Exception {
        Sample first = new Sample(redis, "a", CAPACITY, LONG);
        Sample second = new Sample(redis, "a", CAPACITY, LONG);
        boolean sees = second.isMissing();
        assertTrue(first.enter(4), "the pod is full");
        if (sees) {
            second.fill();
        }
        assertTrue(second.enter(4), "8 units on a pod of 4");

        CountDownLatch together = new CountDownLatch(1);
        List<Lease> admitted = new CopyOnWriteArrayList<>();
        List<Thread> starters = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            Thread starter = new Thread(() -> {
                try {
                    together.await();
                    client.tryAcquire(TWO.weight(4)).ifPresent(admitted::add);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            });
            starters.add(starter);
            starter.start();
        }
        together.countDown();
        for (Thread starter : starters) {
            starter.join();
        }
        assertEquals(1, admitted.size());
        assertEquals(4, sluice.inUse());
    }

    private int admitted(Ask ask) throws InterruptedException {
        int count = 0;
        while (client.tryAcquire(ask).isPresent()) {
            count++;
        }
        return count;
    }

    /** A process that takes three units and is killed. */
    private void crash() throws Exception {
        Process process = new ProcessBuilder(System.getProperty("java.home") + "/bin/java", "-cp",
                System.getProperty("java.class.path"), Crashing.class.getName(), sluice.decisions().toString())
                .redirectErrorStream(true).start();
        try {
            Wait.until("it holds", () -> sluice.inUse() == 3);
        } finally {
            process.destroyForcibly().waitFor();
        }
    }

    private SluicegateClient client(Duration hold) {
        return SluicegateClient.of(sluice.decisions()).pod("a").whenAway(WhenAway.CLOSED).hold(hold).build();
    }

    private StringRedisTemplate template() {
        connections.afterPropertiesSet();
        connections.start();
        return new StringRedisTemplate(connections);
    }
}
