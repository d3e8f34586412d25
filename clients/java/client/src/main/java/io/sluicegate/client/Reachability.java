package io.sluicegate.client;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Whether the service is worth a call. After a failure nobody asks it for a while, because each ask would cost its
 * request the whole deadline; then one ask at a time tries.
 */
final class Reachability {
    private static final long HERE = Long.MIN_VALUE;

    private final long pauseNanos;
    /** {@link #HERE}, or the time of {@link System#nanoTime()} of the next try. */
    private final AtomicLong nextTry = new AtomicLong(HERE);

    Reachability(Duration pause) {
        this.pauseNanos = pause.toNanos();
    }

    boolean isAway() {
        return nextTry.get() != HERE;
    }

    /** True if the caller shall ask: always while the service is here, and for one caller per pause while it is away. */
    boolean mayAsk() {
        long at = nextTry.get();
        if (at == HERE) {
            return true;
        }
        long now = System.nanoTime();
        return now - at >= 0 && nextTry.compareAndSet(at, later(now));
    }

    void answered() {
        // Read first: a store by every answer would move the line between all cores.
        if (nextTry.get() != HERE) {
            nextTry.set(HERE);
        }
    }

    /** True if it was here until now. */
    boolean failed() {
        return nextTry.getAndSet(later(System.nanoTime())) == HERE;
    }

    private long later(long now) {
        long at = now + pauseNanos;
        return at == HERE ? at + 1 : at;
    }
}
