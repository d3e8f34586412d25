package io.sluicegate.client;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Leases on their way back, off the path of requests.
 *
 * <p>One thread, one batch in flight: what ends while a batch is under way goes with the next one. So a lease is back
 * after at most two round trips, and a fast pod costs the service one call per round trip instead of one per request.
 * What the service cannot be told is tried again until it has surely ended by itself.
 */
final class Releases {
    /** The service takes 2000; half of it keeps a batch quick. */
    private static final int BATCH_MAX = 1000;
    /** The longest pause between tries. */
    private static final long PAUSE_MAX_MS = 500;

    private final Transport transport;
    private final Reachability reachability;
    private final Duration deadline;
    private final LinkedBlockingQueue<Id> queue = new LinkedBlockingQueue<>();
    /** Queued, or in a batch that was not confirmed yet. */
    private final AtomicInteger pending = new AtomicInteger();
    private final Thread thread;
    private volatile boolean closing;
    private volatile long giveUpAt;

    /** An id, and when the service will have ended it by itself. */
    private record Id(String id, long endsAt) {}

    Releases(Transport transport, Reachability reachability, Duration deadline) {
        this.transport = transport;
        this.reachability = reachability;
        this.deadline = deadline;
        this.thread = Threads.named("sluicegate-releases").newThread(this::run);
        thread.start();
    }

    /** To be given back, or withdrawn. {@code holdMillis}: how long the service keeps it unasked. */
    void add(String id, long holdMillis) {
        // The service writes a lease off at twice its hold.
        long endsAt = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(2 * holdMillis);
        pending.incrementAndGet();
        queue.add(new Id(id, endsAt));
    }

    int pending() {
        return pending.get();
    }

    /** Tells the service what is left, for at most this long. */
    void close(Duration longest) {
        giveUpAt = System.nanoTime() + longest.toNanos();
        closing = true;
        // Wakes the thread if it waits for work; the entry itself is dropped.
        queue.add(new Id(null, 0));
        try {
            thread.join(longest.toMillis() + deadline.toMillis());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        thread.interrupt();
    }

    private void run() {
        List<Id> batch = new ArrayList<>();
        long pause = 0;
        try {
            while (!(closing && queue.isEmpty() && batch.isEmpty())) {
                if (batch.isEmpty()) {
                    batch.add(queue.take());
                }
                queue.drainTo(batch, BATCH_MAX - batch.size());
                dropEnded(batch);
                if (batch.isEmpty()) {
                    continue;
                }
                if (send(batch)) {
                    pending.addAndGet(-batch.size());
                    batch.clear();
                    pause = 0;
                } else if (closing && System.nanoTime() - giveUpAt >= 0) {
                    return;
                } else {
                    pause = Math.min(PAUSE_MAX_MS, 10 + 2 * pause);
                    Thread.sleep(pause);
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void dropEnded(List<Id> batch) {
        long now = System.nanoTime();
        int before = batch.size();
        batch.removeIf(id -> id.id != null && now - id.endsAt >= 0);
        pending.addAndGet(batch.size() - before);
        batch.removeIf(id -> id.id == null);
    }

    /** True if these need no more telling. */
    private boolean send(List<Id> batch) throws InterruptedException {
        String body = Json.write(Map.of("ids", batch.stream().map(Id::id).toList()));
        try {
            Answer answer = transport.call("POST", "/v1/leases/release", body, deadline);
            // A refusal of the words would be one of the next try too; a fault of the service may pass.
            boolean done = answer.status() < 500;
            if (done) {
                reachability.answered();
            }
            return done;
        } catch (IOException e) {
            return false;
        }
    }
}
