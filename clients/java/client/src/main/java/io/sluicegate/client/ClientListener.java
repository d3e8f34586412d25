package io.sluicegate.client;

/** Told what becomes of asks, for metrics. Called on whatever thread it happens; must be quick and not throw. */
public interface ClientListener {
    /** How an ask ended. */
    enum Outcome {
        /** A lease of the service. */
        GRANTED,
        /** Refused, by the service or by the pod's own units. */
        REFUSED,
        /** Granted without a limit, the service being away. */
        AWAY_OPEN,
        /** Granted by the pod's own units: the service being away, or there being none. */
        LOCAL,
        /** Refused, the service being away. */
        AWAY_CLOSED,
        /** The caller gave up. */
        CANCELLED
    }

    /**
     * An ask ended.
     *
     * @param outcome how
     * @param tookNanos from the ask to its end
     */
    default void asked(Outcome outcome, long tookNanos) {}

    /**
     * The service does not know a lease any more whose work still goes on: it was restarted, or the renewals came too
     * late.
     *
     * @param lease the lease
     */
    default void lost(Lease lease) {}
}
