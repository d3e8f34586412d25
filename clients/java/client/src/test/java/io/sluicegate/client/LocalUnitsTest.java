package io.sluicegate.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class LocalUnitsTest {
    private static final Duration LONG = Duration.ofSeconds(60);

    @Test
    void aSecondReturnChangesNothing() {
        LocalUnits units = new LocalUnits(3);
        LocalUnits.Held two = units.tryTake(2).orElseThrow();
        LocalUnits.Held one = units.tryTake(1).orElseThrow();
        assertEquals(Optional.empty(), units.tryTake(1));
        two.close();
        two.close();
        assertEquals(1, units.inUse());
        one.close();
        assertEquals(0, units.inUse());
        assertEquals(3, units.peak());
    }

    @Test
    void aHeavyOneAtTheHeadIsNotPassed() throws Exception {
        LocalUnits units = new LocalUnits(3);
        LocalUnits.Held first = units.tryTake(1).orElseThrow();
        CompletableFuture<LocalUnits.Held> heavy = units.take(3, LONG);
        CompletableFuture<LocalUnits.Held> light = units.take(1, LONG);
        assertEquals(Optional.empty(), units.tryTake(1), "two units are free, and are the heavy one's");
        first.close();
        assertTrue(heavy.isDone());
        assertFalse(light.isDone());
        heavy.get().close();
        assertTrue(light.isDone());
        light.get().close();
        assertEquals(0, units.inUse());
    }

    @Test
    void whoLeavesTheHeadLetsTheNextOneIn() throws Exception {
        LocalUnits units = new LocalUnits(3);
        LocalUnits.Held first = units.tryTake(2).orElseThrow();
        CompletableFuture<LocalUnits.Held> heavy = units.take(2, LONG);
        CompletableFuture<LocalUnits.Held> light = units.take(1, LONG);
        heavy.cancel(true);
        assertTrue(light.isDone());
        light.get().close();
        first.close();
        assertEquals(0, units.inUse());
        assertEquals(0, units.waiting());
    }

    @Test
    void whoWaitedInVainIsToldWhy() {
        LocalUnits units = new LocalUnits(1);
        units.force(1);
        RefusedException late = refusal(units.take(1, Duration.ofMillis(1)));
        assertEquals("wait_exceeded", late.reason());
        assertEquals(429, late.status());
        assertEquals("no_room", refusal(units.take(1, Duration.ZERO)).reason());
        RefusedException never = refusal(units.take(2, LONG));
        assertEquals("too_heavy", never.reason());
        assertEquals(Optional.empty(), never.retryAfter());
        assertEquals(0, units.waiting());
    }

    @Test
    void aLowerCapacityHoldsUntilEnoughCameBackAndRefusesWhatFitsNoMore() throws Exception {
        LocalUnits units = new LocalUnits(4);
        LocalUnits.Held all = units.tryTake(4).orElseThrow();
        CompletableFuture<LocalUnits.Held> heavy = units.take(3, LONG);
        CompletableFuture<LocalUnits.Held> light = units.take(1, LONG);
        units.capacity(2);
        assertEquals("no_room", refusal(heavy).reason());
        assertFalse(light.isDone());
        all.close();
        light.get().close();
        assertEquals(0, units.inUse());
    }

    @Test
    void nonsenseIsRefusedByName() {
        assertThrows(IllegalArgumentException.class, () -> new LocalUnits(0));
        assertThrows(IllegalArgumentException.class, () -> new LocalUnits(1).tryTake(0));
        assertThrows(IllegalArgumentException.class, () -> new LocalUnits(1).force(-1));
    }

    /** Threads that take, wait, give up, cancel and change the capacity; a gauge of their own is the judge. */
    @Test
    void underLoadNothingIsLostAndNothingIsHandedOutTwice() throws Exception {
        int capacity = 7;
        LocalUnits units = new LocalUnits(capacity);
        AtomicInteger gauge = new AtomicInteger();
        AtomicInteger worst = new AtomicInteger();
        AtomicInteger served = new AtomicInteger();
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<?>> all = new ArrayList<>();
        for (int seed = 0; seed < 8; seed++) {
            Random random = new Random(seed);
            all.add(threads.submit(() -> {
                for (int i = 0; i < 5000; i++) {
                    int weight = 1 + random.nextInt(3);
                    CompletableFuture<LocalUnits.Held> asked =
                            units.take(weight, Duration.ofNanos(random.nextInt(200_000)));
                    if (random.nextInt(8) == 0) {
                        asked.cancel(true);
                    }
                    try (LocalUnits.Held held = asked.get(60, TimeUnit.SECONDS)) {
                        worst.accumulateAndGet(gauge.addAndGet(held.weight()), Math::max);
                        served.incrementAndGet();
                        Thread.onSpinWait();
                        gauge.addAndGet(-held.weight());
                    } catch (ExecutionException | java.util.concurrent.CancellationException e) {
                        Thread.onSpinWait();
                    }
                }
                return null;
            }));
        }
        for (Future<?> one : all) {
            one.get(60, TimeUnit.SECONDS);
        }
        threads.shutdown();
        assertEquals(0, units.inUse());
        assertEquals(0, units.waiting());
        assertTrue(worst.get() <= capacity, "handed out " + worst.get());
        assertTrue(served.get() > 1000, "served " + served.get());
        units.take(capacity, Duration.ZERO).get().close();
    }

    private static RefusedException refusal(CompletableFuture<?> asked) {
        ExecutionException failed =
                assertThrows(ExecutionException.class, () -> asked.get(60, TimeUnit.SECONDS));
        return assertInstanceOf(RefusedException.class, failed.getCause());
    }
}
