package io.sluicegate.client;

import java.time.Duration;
import java.util.Optional;

/** The ask was heard and refused. To be passed on to the client as it is: {@link #status()} and {@link #retryAfter()}. */
public final class RefusedException extends SluicegateException {
    private static final long serialVersionUID = 1L;

    /** The status to answer: 429, or 503. */
    private final int status;
    /** One word: why. */
    private final String reason;
    /** When to come again, or null for never. */
    private final Duration retryAfter;
    /** A pod with room, or null. */
    private final String elsewhere;

    RefusedException(int status, String reason, String detail, Duration retryAfter, String elsewhere) {
        super(detail, null);
        this.status = status;
        this.reason = reason;
        this.retryAfter = retryAfter;
        this.elsewhere = elsewhere;
    }

    /**
     * The HTTP status to answer.
     *
     * @return 429, or 503 where no pod is ready or the weight is above every pod
     */
    public int status() {
        return status;
    }

    /**
     * Why, in one word: {@code no_room}, {@code queue_full}, {@code wait_exceeded}, {@code api_max}, {@code pod_full},
     * {@code too_heavy} or another of the service.
     *
     * @return the word
     */
    public String reason() {
        return reason;
    }

    /**
     * When it is worth to come again.
     *
     * @return empty if it never will be
     */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    /**
     * A pod that has room now, for an ask that was pinned to another.
     *
     * @return its name, if there is one
     */
    public Optional<String> elsewhere() {
        return Optional.ofNullable(elsewhere);
    }
}
