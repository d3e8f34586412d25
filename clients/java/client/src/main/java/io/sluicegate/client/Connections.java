package io.sluicegate.client;

import java.io.IOException;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import javax.net.ssl.SSLSocketFactory;

/** Kept connections for calls that block their thread. The one used last is used next, so that the others can go. */
final class Connections {
    /** Below the 30 s after which the service closes a connection without calls. */
    private static final long IDLE_MAX = TimeUnit.SECONDS.toNanos(15);
    /** How late an overdue call may be ended. */
    private static final Duration LOOK = Duration.ofMillis(50);

    private final Target target;
    private final SSLSocketFactory tls;
    private final Duration connectTimeout;
    private final ConcurrentLinkedDeque<Connection> idle = new ConcurrentLinkedDeque<>();
    private final Set<Connection> all = ConcurrentHashMap.newKeySet();
    private final AtomicBoolean looking = new AtomicBoolean();
    private volatile boolean closed;

    /** {@code tls} is null where the target has none. */
    Connections(Target target, SSLSocketFactory tls, Duration connectTimeout) {
        this.target = target;
        this.tls = tls;
        this.connectTimeout = connectTimeout;
    }

    /**
     * Makes a call. Every call of ours may be sent twice (an ask bears its id, a return changes nothing the second time), so
     * one that met a kept connection whose other end had left goes out again on a new one.
     *
     * @throws java.net.ConnectException nothing was sent
     * @throws java.net.SocketTimeoutException the deadline passed
     */
    Answer call(byte[] call, Duration deadline) throws IOException, InterruptedException {
        if (Thread.interrupted()) {
            throw new InterruptedException();
        }
        long dueAt = Connection.in(deadline);
        Connection kept = kept();
        if (kept != null) {
            try {
                return exchange(kept, call, dueAt);
            } catch (Connection.StaleException e) {
                // The service went or was restarted: so the others are stale too.
                closeIdle();
            }
        }
        return exchange(opened(dueAt), call, dueAt);
    }

    void close() {
        closed = true;
        closeIdle();
    }

    private Answer exchange(Connection connection, byte[] call, long dueAt) throws IOException, InterruptedException {
        boolean answered = false;
        try {
            Answer answer = connection.exchange(call, dueAt);
            answered = connection.isOpen();
            return answer;
        } finally {
            if (!answered) {
                all.remove(connection);
            } else if (closed) {
                end(connection);
            } else {
                idle.addFirst(connection);
            }
        }
    }

    private Connection kept() {
        long now = Connection.now();
        for (Connection next = idle.pollFirst(); next != null; next = idle.pollFirst()) {
            if (next.isOpen() && !next.isIdleLongerThan(IDLE_MAX, now)) {
                return next;
            }
            end(next);
        }
        return null;
    }

    private Connection opened(long dueAt) throws IOException, InterruptedException {
        Connection connection = new Connection(target.open());
        all.add(connection);
        look();
        boolean connected = false;
        try {
            connection.connect(target, tls, Math.min(dueAt, Connection.in(connectTimeout)), dueAt);
            connected = true;
            return connection;
        } finally {
            if (!connected) {
                end(connection);
            }
        }
    }

    private void closeIdle() {
        for (Connection next = idle.pollFirst(); next != null; next = idle.pollFirst()) {
            end(next);
        }
    }

    private void end(Connection connection) {
        all.remove(connection);
        connection.close();
    }

    /** Looks for overdue calls and idle connections for as long as there are connections. */
    private void look() {
        if (!looking.get() && looking.compareAndSet(false, true)) {
            Alarms.after(LOOK, this::looked);
        }
    }

    private void looked() {
        long now = Connection.now();
        for (Connection connection : all) {
            connection.closeIfOverdue(now);
            if (connection.isIdleLongerThan(IDLE_MAX, now) && idle.remove(connection)) {
                end(connection);
            }
        }
        if (!all.isEmpty()) {
            Alarms.after(LOOK, this::looked);
            return;
        }
        looking.set(false);
        // One may have come between the two lines above.
        if (!all.isEmpty()) {
            look();
        }
    }
}
