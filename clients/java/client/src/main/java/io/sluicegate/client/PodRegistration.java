package io.sluicegate.client;

import java.io.IOException;
import java.net.URI;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** This pod in the service's list, kept there by a heartbeat. {@link #close()} drains it. */
public final class PodRegistration implements AutoCloseable {
    /** Heartbeats per ttl: two may be lost. */
    private static final int BEATS = 3;

    private final Transport transport;
    private final Duration deadline;
    private final String path;
    private final String body;
    private final long ttlMillis;
    private final ScheduledExecutorService thread =
            Executors.newSingleThreadScheduledExecutor(Threads.named("sluicegate-registration"));
    private final AtomicBoolean wanted = new AtomicBoolean();
    private volatile boolean registered;
    private volatile boolean closed;

    PodRegistration(Transport transport, Duration deadline, String name, URI url, int capacity, Duration ttl) {
        this.transport = transport;
        this.deadline = deadline;
        this.path = "/v1/pods/" + name;
        this.ttlMillis = ttl.toMillis();
        this.body = Json.write(Map.of("url", url.toString(), "capacity", capacity, "ttl_ms", ttlMillis));
    }

    /**
     * Whether the service took the last heartbeat.
     *
     * @return false before the first and while it is away
     */
    public boolean isRegistered() {
        return registered;
    }

    void start() {
        thread.scheduleWithFixedDelay(this::beat, 0, Math.max(1, ttlMillis / BEATS), TimeUnit.MILLISECONDS);
    }

    /** One more heartbeat at once, unless one is asked for already. */
    void now() {
        if (!closed && wanted.compareAndSet(false, true)) {
            thread.execute(() -> {
                wanted.set(false);
                beat();
            });
        }
    }

    /** Takes the pod out: the service hands it nothing more. What runs there runs on. */
    @Override
    public void close() {
        if (closed) {
            return;
        }
        closed = true;
        thread.shutdown();
        try {
            // A heartbeat after the farewell would bring the pod back.
            thread.awaitTermination(deadline.toMillis(), TimeUnit.MILLISECONDS);
            transport.call("DELETE", path, null, deadline);
        } catch (IOException e) {
            SluicegateClient.LOG.log(System.Logger.Level.WARNING,
                    "the service was not told that this pod goes; it forgets it after the ttl: {0}", e.toString());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        registered = false;
    }

    private void beat() {
        try {
            Answer answer = transport.call("PUT", path, body, deadline);
            boolean taken = answer.status() < 300;
            if (!taken) {
                SluicegateClient.LOG.log(System.Logger.Level.WARNING, "the service does not take this pod: {0} {1}",
                        answer.status(), answer.body());
            }
            registered = taken;
        } catch (IOException e) {
            registered = false;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
