package io.sluicegate.cloudgateway;

/** What pods do with a request whose client is gone; as {@code on_disconnect} in the service's configuration. */
public enum OnDisconnect {
    /** They work on, as servlets do: the gateway reads on, and the units come back at the pod's end. */
    CONTINUES,
    /** They stop: the gateway hangs up on them, and the units come back at once. */
    STOPS
}
