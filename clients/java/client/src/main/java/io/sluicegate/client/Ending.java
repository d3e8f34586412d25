package io.sluicegate.client;

import java.util.Locale;

/** How the run ended that a lease was for, in words of the service. */
public enum Ending {
    /** The pod answered. */
    DONE,
    /** The pod broke off, or never answered. The service counts it. */
    FAILED,
    /** The pod's own lock refused: less is used there for a moment. An ask with {@link Ask#after(String)} is to follow. */
    POD_FULL,
    /** It surely never reached the pod, which gets nothing until it can be reached. An ask is to follow likewise. */
    NOT_STARTED,
    /** As before, and no ask follows. */
    UNREACHABLE;

    String word() {
        return name().toLowerCase(Locale.ROOT);
    }
}
