package io.sluicegate.client;

/** What an ask comes to while the service cannot be asked. */
public enum WhenAway {
    /** Granted without a limit. Where the pod has local units they are counted, beyond their capacity if need be. */
    OPEN,
    /** Refused with {@link UnavailableException}. */
    CLOSED,
    /** Granted within the pod's own units ({@link LocalUnits}). */
    LOCAL
}
