package io.sluicegate.client;

import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * Keeps the leases of long requests alive. A lease is renewed when a third of its hold has passed, so that two
 * renewals may be lost before it is overdue; most requests end before the first.
 *
 * <p>A short hold with renewals is what brings the units of a crashed pod back soon.
 */
final class Renewals {
    /** Renewals in flight; the others come with the next look. */
    private static final int FLIGHT_MAX = 64;
    /** Looks per hold. */
    private static final int LOOKS = 6;

    private final Transport transport;
    private final Duration deadline;
    private final Consumer<Lease> lost;
    private final Set<Lease> leases = ConcurrentHashMap.newKeySet();
    private final Semaphore flight = new Semaphore(FLIGHT_MAX);
    private final long lookMillis;
    private volatile Future<?> next;
    private volatile boolean closed;

    Renewals(Transport transport, Duration deadline, Duration hold, Consumer<Lease> lost) {
        this.transport = transport;
        this.deadline = deadline;
        this.lost = lost;
        this.lookMillis = Math.max(1, Math.min(hold.toMillis() / LOOKS, 1000));
        schedule();
    }

    void add(Lease lease) {
        leases.add(lease);
    }

    void remove(Lease lease) {
        leases.remove(lease);
    }

    int open() {
        return leases.size();
    }

    void close() {
        closed = true;
        next.cancel(false);
    }

    private void schedule() {
        if (!closed) {
            next = Alarms.after(Duration.ofMillis(lookMillis), this::look);
        }
    }

    private void look() {
        long now = System.nanoTime();
        for (Lease lease : leases) {
            long age = TimeUnit.NANOSECONDS.toMillis(now - lease.renewedAt());
            if (age * 3 >= lease.holdMillis() && flight.tryAcquire()) {
                renew(lease);
            }
        }
        schedule();
    }

    private void renew(Lease lease) {
        // The service counts from when it hears of it, which is later.
        long sentAt = System.nanoTime();
        long hold = lease.holdMillis();
        String body = Json.write(Map.of("hold_ms", hold));
        transport.send("PUT", "/v1/leases/" + lease.id(), body, deadline).whenComplete((answer, error) -> {
            flight.release();
            if (error == null) {
                settle(lease, answer, sentAt, hold);
            }
        });
    }

    private void settle(Lease lease, Answer answer, long sentAt, long hold) {
        if (answer.status() == 200) {
            lease.renewed(sentAt, hold);
        } else if (answer.status() == 404) {
            leases.remove(lease);
            if (lease.lose()) {
                lost.accept(lease);
            }
        }
    }
}
