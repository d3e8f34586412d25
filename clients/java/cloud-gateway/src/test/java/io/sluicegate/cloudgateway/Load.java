package io.sluicegate.cloudgateway;

import io.sluicegate.testkit.RawClient;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntFunction;

/** Callers, each with a connection of its own, who send requests one after the other and count what they saw. */
final class Load {
    /** A request, and how far its caller stays. */
    record Errand(String path, Manner manner) {
        static Errand whole(String path) {
            return new Errand(path, Manner.READS);
        }
    }

    enum Manner {
        READS,
        /** Resets its connection as soon as the request is sent. */
        LEAVES_AT_ONCE,
        /** The same when the answer's head and some of its body were there. */
        LEAVES_STREAMING
    }

    /** By status, and {@code broken} for an answer that broke off, {@code left} for a caller that did. */
    private final Map<String, AtomicInteger> seen = new ConcurrentSkipListMap<>();

    private Load() {}

    /** Runs to its end. */
    static Load run(int port, int callers, int requests, IntFunction<Errand> errands) throws Exception {
        Load load = new Load();
        ExecutorService threads = Executors.newFixedThreadPool(callers);
        AtomicInteger next = new AtomicInteger();
        List<Future<?>> all = new ArrayList<>();
        for (int caller = 0; caller < callers; caller++) {
            all.add(threads.submit(() -> {
                RawClient connection = new RawClient(port);
                for (int number = next.getAndIncrement(); number < requests; number = next.getAndIncrement()) {
                    if (!load.one(connection, errands.apply(number))) {
                        connection.close();
                        connection = new RawClient(port);
                    }
                }
                connection.close();
                return null;
            }));
        }
        threads.shutdown();
        for (Future<?> one : all) {
            one.get();
        }
        return load;
    }

    int count(String what) {
        AtomicInteger count = seen.get(what);
        return count == null ? 0 : count.get();
    }

    @Override
    public String toString() {
        return seen.toString();
    }

    /** True if the connection may go on. */
    private boolean one(RawClient connection, Errand errand) throws IOException {
        try {
            connection.send("GET", errand.path());
            if (errand.manner() == Manner.LEAVES_AT_ONCE) {
                return leaves(connection);
            }
            Map<String, String> headers = new TreeMap<>();
            int status = connection.head(headers);
            if (errand.manner() == Manner.LEAVES_STREAMING && status == 200) {
                connection.read(10);
                return leaves(connection);
            }
            connection.body(headers);
            saw(Integer.toString(status));
            return true;
        } catch (IOException | NumberFormatException e) {
            saw("broken");
            return false;
        }
    }

    private boolean leaves(RawClient connection) throws IOException {
        connection.abort();
        saw("left");
        return false;
    }

    private void saw(String what) {
        seen.computeIfAbsent(what, key -> new AtomicInteger()).incrementAndGet();
    }
}
