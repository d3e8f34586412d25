package io.sluicegate.testkit;

import java.time.Duration;
import java.util.concurrent.Callable;

/** Waits for states, not for times. */
public final class Wait {
    /** Longer than anything takes on a busy machine; nothing waits this long when all is well. */
    public static final Duration LONGEST = Duration.ofSeconds(60);

    private Wait() {}

    /** Until it is true; fails by name after {@link #LONGEST}. */
    public static void until(String what, Callable<Boolean> state) {
        long end = System.nanoTime() + LONGEST.toNanos();
        Exception last = null;
        while (System.nanoTime() - end < 0) {
            try {
                if (state.call()) {
                    return;
                }
            } catch (Exception e) {
                // Not yet reachable is a state too.
                last = e;
            }
            try {
                Thread.sleep(5);
            } catch (InterruptedException e) {
                throw new AssertionError("interrupted while waiting: " + what, e);
            }
        }
        throw new AssertionError("not within " + LONGEST.toSeconds() + " s: " + what, last);
    }
}
