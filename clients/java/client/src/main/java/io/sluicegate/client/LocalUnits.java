package io.sluicegate.client;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The pod's own lock: capacity in units, taken by weight.
 *
 * <p>Fair: who waits is served in the order of arrival, and while somebody waits nobody slips past, so that light
 * requests cannot starve a heavy one. Units come back exactly once, whatever happens: {@link Held#close()} a second
 * time changes nothing, and units granted to a caller who has given up go to the next one.
 *
 * <p><b>Invariant:</b> units in use are the sum over what is held. They exceed the capacity only after it was lowered,
 * or by {@link #force(int)}.
 */
public final class LocalUnits {
    private final Object lock = new Object();
    private final ArrayDeque<Waiter> line = new ArrayDeque<>();
    private int capacity;
    private int inUse;
    private int peak;

    /**
     * All units free.
     *
     * @param capacity units, 1 or more
     */
    public LocalUnits(int capacity) {
        this.capacity = checked(capacity);
    }

    /**
     * Takes units if they are free now and nobody waits.
     *
     * @param weight units, 1 or more
     * @return what is held, or nothing
     */
    public Optional<Held> tryTake(int weight) {
        checked(weight);
        synchronized (lock) {
            return line.isEmpty() && fits(weight) ? Optional.of(take(weight)) : Optional.empty();
        }
    }

    /**
     * Takes units, and waits for them if need be. Cancelling the future leaves the line.
     *
     * @param weight units, 1 or more
     * @param longest how long to wait
     * @return completes with what is held, or with {@link RefusedException}
     */
    public CompletableFuture<Held> take(int weight, Duration longest) {
        checked(weight);
        Waiter waiter;
        synchronized (lock) {
            if (weight > capacity) {
                return CompletableFuture.failedFuture(new RefusedException(503, "too_heavy",
                        "A weight of " + weight + " is above the pod's capacity of " + capacity + ".", null, null));
            }
            if (line.isEmpty() && fits(weight)) {
                return CompletableFuture.completedFuture(take(weight));
            }
            if (longest.isZero()) {
                return CompletableFuture.failedFuture(full("no_room"));
            }
            waiter = new Waiter(weight);
            line.addLast(waiter);
        }
        Future<?> alarm = Alarms.after(longest, () -> waiter.completeExceptionally(full("wait_exceeded")));
        // Also when it was cancelled: who stands behind may fit then.
        waiter.whenComplete((held, error) -> {
            alarm.cancel(false);
            if (error != null) {
                leave(waiter);
            }
        });
        return waiter;
    }

    /**
     * Takes units whether they are free or not: for work that runs already, or that a policy lets in.
     *
     * @param weight units, 1 or more
     * @return what is held
     */
    public Held force(int weight) {
        checked(weight);
        synchronized (lock) {
            return take(weight);
        }
    }

    /**
     * Changes the capacity. What is held above a lower one stays held; nothing is granted until enough came back.
     *
     * @param units 1 or more
     */
    public void capacity(int units) {
        checked(units);
        List<Grant> grants;
        synchronized (lock) {
            capacity = units;
            grants = serve();
        }
        hand(grants);
    }

    /**
     * The capacity.
     *
     * @return units
     */
    public int capacity() {
        synchronized (lock) {
            return capacity;
        }
    }

    /**
     * What is held.
     *
     * @return units
     */
    public int inUse() {
        synchronized (lock) {
            return inUse;
        }
    }

    /**
     * The most that was ever held at once.
     *
     * @return units
     */
    public int peak() {
        synchronized (lock) {
            return peak;
        }
    }

    /**
     * How many wait.
     *
     * @return waiters
     */
    public int waiting() {
        synchronized (lock) {
            return line.size();
        }
    }

    private static int checked(int units) {
        if (units < 1) {
            throw new IllegalArgumentException(units + " units: 1 or more are needed");
        }
        return units;
    }

    private static RefusedException full(String reason) {
        return new RefusedException(429, reason, "The pod's own units are in use.", Duration.ofSeconds(1), null);
    }

    /** With the lock. In long, because a forced weight may be any. */
    private boolean fits(int weight) {
        return (long) inUse + weight <= capacity;
    }

    /** With the lock. */
    private Held take(int weight) {
        inUse = Math.addExact(inUse, weight);
        peak = Math.max(peak, inUse);
        return new Held(weight);
    }

    private void giveBack(int weight) {
        List<Grant> grants;
        synchronized (lock) {
            inUse -= weight;
            grants = serve();
        }
        hand(grants);
    }

    private void leave(Waiter waiter) {
        List<Grant> grants;
        synchronized (lock) {
            line.remove(waiter);
            grants = serve();
        }
        hand(grants);
    }

    /** With the lock: takes units for those at the head whom they suffice for. */
    private List<Grant> serve() {
        List<Grant> grants = new ArrayList<>(2);
        for (Iterator<Waiter> waiters = line.iterator(); waiters.hasNext();) {
            Waiter waiter = waiters.next();
            // A lower capacity can make a waiter too heavy for ever; it must not hold up the line until its time is over.
            boolean never = waiter.weight > capacity;
            if (!never && !fits(waiter.weight)) {
                break;
            }
            waiters.remove();
            grants.add(new Grant(waiter, never ? null : take(waiter.weight)));
        }
        return grants;
    }

    /** Without the lock: a waiter's continuation may take or give back units itself. */
    private static void hand(List<Grant> grants) {
        for (Grant grant : grants) {
            if (grant.held == null) {
                grant.waiter.completeExceptionally(full("no_room"));
            } else if (!grant.waiter.complete(grant.held)) {
                grant.held.close();
            }
        }
    }

    private record Grant(Waiter waiter, Held held) {}

    private static final class Waiter extends CompletableFuture<Held> {
        private final int weight;

        private Waiter(int weight) {
            this.weight = weight;
        }
    }

    /** Units that one request holds. */
    public final class Held implements AutoCloseable {
        private final int weight;
        private final AtomicBoolean open = new AtomicBoolean(true);

        private Held(int weight) {
            this.weight = weight;
        }

        /**
         * How many.
         *
         * @return units
         */
        public int weight() {
            return weight;
        }

        /** Gives them back; a second time it does nothing. */
        @Override
        public void close() {
            if (open.compareAndSet(true, false)) {
                giveBack(weight);
            }
        }
    }
}
