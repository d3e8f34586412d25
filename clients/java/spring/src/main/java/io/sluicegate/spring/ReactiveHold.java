package io.sluicegate.spring;

import io.sluicegate.client.Lease;
import java.util.concurrent.atomic.AtomicReference;

/** The lease of one exchange. Whoever comes last, the lease or the exchange's end, gives it back. */
final class ReactiveHold {
    /** Stands for an exchange that has ended. */
    private static final Object ENDED = new Object();

    private final AtomicReference<Object> state = new AtomicReference<>();

    void put(Lease lease) {
        if (!state.compareAndSet(null, lease)) {
            lease.close();
        }
    }

    /** The last byte is about to go: whoever reads it may send the next request at once. */
    void lastByte() {
        if (state.get() instanceof Lease lease) {
            lease.releaseLocal();
        }
    }

    void end() {
        if (state.getAndSet(ENDED) instanceof Lease lease) {
            lease.close();
        }
    }
}
