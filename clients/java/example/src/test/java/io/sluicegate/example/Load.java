package io.sluicegate.example;

import io.sluicegate.testkit.RawClient;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/** Callers that send the three kinds of requests in turn, each to the next port. */
final class Load {
    private static final String[][] KINDS = {{"GET", "/quotes/7"}, {"POST", "/orders"}, {"GET", "/reports/7"}};

    private final Map<Integer, AtomicInteger> byStatus = new ConcurrentHashMap<>();
    private final List<RawClient.Answer> refusals = new ArrayList<>();

    /** Runs to its end. */
    Load run(int callers, int requests, int... ports) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(callers);
        AtomicInteger next = new AtomicInteger();
        List<Future<?>> all = new ArrayList<>();
        for (int caller = 0; caller < callers; caller++) {
            all.add(threads.submit(() -> {
                RawClient[] connections = new RawClient[ports.length];
                for (int i = 0; i < ports.length; i++) {
                    connections[i] = new RawClient(ports[i]);
                }
                for (int number = next.getAndIncrement(); number < requests; number = next.getAndIncrement()) {
                    one(connections[number % ports.length], KINDS[number / ports.length % KINDS.length]);
                }
                for (RawClient connection : connections) {
                    connection.close();
                }
                return null;
            }));
        }
        threads.shutdown();
        for (Future<?> one : all) {
            one.get();
        }
        return this;
    }

    private void one(RawClient connection, String[] kind) throws IOException {
        RawClient.Answer answer = connection.call(kind[0], kind[1]);
        byStatus.computeIfAbsent(answer.status(), status -> new AtomicInteger()).incrementAndGet();
        if (answer.status() == 429) {
            synchronized (refusals) {
                refusals.add(answer);
            }
        }
    }

    int count(int status) {
        AtomicInteger count = byStatus.get(status);
        return count == null ? 0 : count.get();
    }

    List<RawClient.Answer> refusals() {
        return refusals;
    }

    @Override
    public String toString() {
        return new TreeMap<>(byStatus).toString();
    }
}
