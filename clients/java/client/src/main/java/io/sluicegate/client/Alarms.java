package io.sluicegate.client;

import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/** One thread for all alarms of this process: they are few and quick, and never wait. */
final class Alarms {
    private static final ScheduledThreadPoolExecutor THREAD = thread();

    private Alarms() {}

    static Future<?> after(Duration delay, Runnable work) {
        return THREAD.schedule(work, delay.toNanos(), TimeUnit.NANOSECONDS);
    }

    private static ScheduledThreadPoolExecutor thread() {
        var thread = new ScheduledThreadPoolExecutor(1, Threads.named("sluicegate-alarms"));
        // Most alarms are put off before they ring; they must not stay in the queue until then.
        thread.setRemoveOnCancelPolicy(true);
        return thread;
    }
}
