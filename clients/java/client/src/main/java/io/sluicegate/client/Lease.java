package io.sluicegate.client;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * Units that one request holds while it runs. {@link #close()} gives them back, once; more calls change nothing.
 *
 * <pre>{@code
 * try (Lease lease = client.acquire(Ask.api("report"))) {
 *     work();
 * }
 * }</pre>
 */
public final class Lease implements AutoCloseable {
    /** Who granted a lease. */
    public enum Origin {
        /** The decision service. */
        SERVICE,
        /** The pod's own units. */
        LOCAL,
        /** Nobody: the service was away and the policy is {@link WhenAway#OPEN}. */
        OPEN
    }

    private static final int OPEN = 0;
    private static final int LOST = 1;
    private static final int CLOSED = 2;

    private final SluicegateClient client;
    private final Origin origin;
    private final String id;
    private final String pod;
    private final String url;
    private final int weight;
    /** How long the service keeps it without a renewal, ms; changed by a renewal only. */
    private volatile long holdMillis;
    /** When it was granted or renewed last, of {@link System#nanoTime()}. */
    private volatile long renewedAt;
    /** The pod's own units, if it has any. */
    private volatile LocalUnits.Held local;
    private final AtomicInteger stage = new AtomicInteger(OPEN);

    Lease(SluicegateClient client, Origin origin, String id, String pod, String url, int weight, long holdMillis) {
        this.client = client;
        this.origin = origin;
        this.id = id;
        this.pod = pod;
        this.url = url;
        this.weight = weight;
        this.holdMillis = holdMillis;
        this.renewedAt = System.nanoTime();
    }

    /**
     * Who granted it.
     *
     * @return the origin
     */
    public Origin origin() {
        return origin;
    }

    /**
     * Its id at the service.
     *
     * @return null where the service did not grant it
     */
    public String id() {
        return id;
    }

    /**
     * The pod where the work may run.
     *
     * @return its name, or null where the service did not grant it and no pod was asked for
     */
    public String pod() {
        return pod;
    }

    /**
     * Where that pod is.
     *
     * @return its base URL, or null where the service did not grant it
     */
    public String url() {
        return url;
    }

    /**
     * Units held.
     *
     * @return 0 for an exempt api
     */
    public int weight() {
        return weight;
    }

    /**
     * Whether the service forgot it while the work went on.
     *
     * @return true once a renewal was answered so
     */
    public boolean isLost() {
        return stage.get() == LOST;
    }

    /**
     * Whether it was given back.
     *
     * @return true after {@link #close()}
     */
    public boolean isClosed() {
        return stage.get() == CLOSED;
    }

    /**
     * Gives the pod's own units back ahead of {@link #close()}: before the last byte of the answer goes out, because
     * whoever reads that byte may hand the pod its next request at once.
     */
    public void releaseLocal() {
        LocalUnits.Held held = local;
        if (held != null) {
            held.close();
        }
    }

    /** Gives everything back. Never blocks: the service is told by a thread of the client. */
    @Override
    public void close() {
        releaseLocal();
        int before = stage.getAndSet(CLOSED);
        if (before != CLOSED && origin == Origin.SERVICE) {
            client.ended(this, before == LOST);
        }
    }

    /**
     * Neither renews it any more nor gives it back: for work that goes on where nobody sees its end. The service keeps
     * the units to the end of the hold.
     */
    public void leave() {
        releaseLocal();
        if (stage.getAndSet(CLOSED) == OPEN && origin == Origin.SERVICE) {
            client.left(this);
        }
    }

    /** True if it was open at the service until now; the caller gives it back. */
    boolean take() {
        releaseLocal();
        return stage.getAndSet(CLOSED) == OPEN && origin == Origin.SERVICE;
    }

    void holdLocal(LocalUnits.Held held) {
        local = held;
    }

    long holdMillis() {
        return holdMillis;
    }

    long renewedAt() {
        return renewedAt;
    }

    void renewed(long atNanos, long millis) {
        renewedAt = atNanos;
        holdMillis = millis;
    }

    /** True if it was open until now. */
    boolean lose() {
        return stage.compareAndSet(OPEN, LOST);
    }

    boolean isOpen() {
        return stage.get() == OPEN;
    }
}
