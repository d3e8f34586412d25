package io.sluicegate.servlet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.Ask;
import io.sluicegate.client.ClientStats;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.WhenAway;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/**
 * Requests that end in every way, at once, against the real service: at the end nobody holds anything, at the service and
 * in the pod, and the handlers' own gauge never saw more than the capacity. 10^5 requests with SLUICEGATE_FULL, else
 * a tenth.
 */
class DriftTest {
    private static final int CAPACITY = 12;
    private static final int CALLERS = 16;
    private static final int REQUESTS = System.getenv("SLUICEGATE_FULL") != null ? 100_000 : 10_000;
    private static final List<String> PATHS = List.of("/plain", "/throws", "/late-throw", "/async", "/dispatch",
            "/timeout", "/stream", "/events", "/error-after-async");

    private final Sluice sluice = new Sluice("pool: shop\npods:\n  - {name: a, url: \"http://127.0.0.1:9\", capacity: "
            + CAPACITY + "}\nadmission: {wait: 20ms}", false);
    private final LocalUnits units = new LocalUnits(CAPACITY);
    private final SluicegateClient client = SluicegateClient.of(sluice.decisions()).pod("a").local(units)
            .whenAway(WhenAway.LOCAL).retryAfterFailure(Duration.ofMillis(50)).build();
    private final TestServer server = new TestServer(client, request -> Optional.of(
            Ask.request("GET", request.getRequestURI()).weight(weight(request)).waitAtMost(Duration.ofMillis(20))));
    private final ScheduledExecutorService workers = Executors.newScheduledThreadPool(4);
    /** Units in handlers now, and the most ever: what the pod really bears. */
    private final AtomicInteger gauge = new AtomicInteger();
    private final AtomicInteger worst = new AtomicInteger();
    /** Answers by status / 100; 0: the caller left. */
    private final AtomicLongArray answers = new AtomicLongArray(6);

    @AfterEach
    void close() throws IOException {
        server.close();
        client.close();
        sluice.close();
        workers.shutdownNow();
    }

    @Test
    void nothingDriftsWhateverTheEnding() throws Exception {
        handlers();
        run(REQUESTS, new AtomicBoolean());
        settled();
        ClientStats stats = client.stats();
        assertEquals(0, stats.awayOpen() + stats.local() + stats.awayClosed(), stats + "\n" + sluice.output());
        assertTrue(worst.get() <= CAPACITY, "the handlers held " + worst.get() + " units of " + CAPACITY);
        assertTrue(units.peak() > CAPACITY / 2, "the load was too small to prove anything: " + units.peak());
        // Not 4: how many are refused is up to the machine's speed.
        for (int kind : new int[] {0, 2, 5}) {
            assertTrue(answers.get(kind) > REQUESTS / 200, "endings: " + answers);
        }
        System.out.println(REQUESTS + " requests, drift 0, peak " + worst + " of " + CAPACITY
                + ", endings (left, -, 2xx, -, 4xx, 5xx): " + answers + ", " + stats);
    }

    /** Killed and restarted under load: requests go on within the pod's own units, and nothing is left behind. */
    @Test
    void theServiceIsKilledAndRestartedUnderLoad() throws Exception {
        handlers();
        AtomicBoolean enough = new AtomicBoolean();
        Future<?> load = workers.submit(() -> {
            run(Integer.MAX_VALUE, enough);
            return null;
        });
        for (int round = 0; round < 3; round++) {
            long granted = client.stats().granted();
            Wait.until("the service grants", () -> client.stats().granted() > granted + 200);
            sluice.kill();
            long local = client.stats().local();
            Wait.until("the pod's own units grant", () -> client.stats().local() > local + 200);
            sluice.start();
        }
        long granted = client.stats().granted();
        Wait.until("the service grants again", () -> client.stats().granted() > granted + 200);
        enough.set(true);
        load.get(60, TimeUnit.SECONDS);
        settled();
        assertTrue(worst.get() <= CAPACITY, "the handlers held " + worst.get() + " units of " + CAPACITY);
        assertEquals(0, client.stats().awayOpen());
    }

    private void settled() {
        try {
            Wait.until("nothing is held", () -> units.inUse() == 0 && units.waiting() == 0 && sluice.inUse() == 0
                    && client.stats().returning() == 0 && client.stats().open() == 0 && gauge.get() == 0);
        } catch (AssertionError e) {
            throw new AssertionError("units " + units.inUse() + ", waiting " + units.waiting() + ", handlers " + gauge
                    + ", service " + sluice.inUse() + ", endings " + answers + ", " + client.stats(), e);
        }
    }

    private static int weight(HttpServletRequest request) {
        return 1 + Math.floorMod(request.getRequestURI().hashCode(), 3);
    }

    private void handlers() {
        server.on("/plain", (request, response) -> working(request, () -> response.getOutputStream().print("hello")));
        server.on("/throws", (request, response) -> working(request, () -> {
            throw new IllegalStateException("on purpose");
        }));
        server.on("/late-throw", (request, response) -> working(request, () -> {
            response.getOutputStream().print("hello");
            response.flushBuffer();
            throw new IllegalStateException("on purpose, with half of the answer out");
        }));
        server.on("/async", (request, response) -> async(request, 3, AsyncContext::complete));
        server.on("/dispatch", (request, response) -> {
            if (request.getDispatcherType() == DispatcherType.REQUEST) {
                async(request, 3, AsyncContext::dispatch);
            } else {
                response.getOutputStream().print("hello");
            }
        });
        // Whoever asks last completes: the container at its timeout, or the work.
        server.on("/timeout", (request, response) -> {
            AsyncContext started = async(request, 6, context -> {
                try {
                    context.complete();
                } catch (IllegalStateException e) {
                    // The container was first.
                    return;
                }
            });
            started.setTimeout(3);
        });
        server.on("/error-after-async", (request, response) -> {
            request.startAsync().setTimeout(50);
            throw new IllegalStateException("on purpose, with asynchronous work begun");
        });
        server.on("/stream", (request, response) -> working(request, () -> {
            for (int i = 0; i < 20; i++) {
                response.getOutputStream().write(new byte[512]);
                response.flushBuffer();
            }
        }));
        server.on("/events", (request, response) -> {
            response.setContentType("text/event-stream");
            AsyncContext context = request.startAsync();
            context.setTimeout(5_000);
            event(context, (HttpServletResponse) context.getResponse(), 5);
        });
    }

    /** One event after another, each by a thread of the pool, until enough or until the client has gone. */
    private void event(AsyncContext context, HttpServletResponse response, int left) {
        workers.schedule(() -> {
            try {
                if (left > 0) {
                    response.getOutputStream().print("data: x\n\n");
                    response.flushBuffer();
                    event(context, response, left - 1);
                    return;
                }
            } catch (IOException | IllegalStateException e) {
                // Gone; what remains is to say so.
                if (context == null) {
                    throw new AssertionError(e);
                }
            }
            try {
                context.complete();
            } catch (IllegalStateException e) {
                // Completed by the container, which saw the client go first.
                return;
            }
        }, 1, TimeUnit.MILLISECONDS);
    }

    private AsyncContext async(HttpServletRequest request, int millis, java.util.function.Consumer<AsyncContext> end) {
        AsyncContext context = request.startAsync();
        workers.schedule(() -> end.accept(context), millis, TimeUnit.MILLISECONDS);
        return context;
    }

    /** Counts what runs in this handler by a gauge of the test's own. */
    private void working(HttpServletRequest request, Work work) throws Exception {
        worst.accumulateAndGet(gauge.addAndGet(weight(request)), Math::max);
        try {
            Thread.sleep(1);
            work.run();
        } finally {
            gauge.addAndGet(-weight(request));
        }
    }

    private interface Work {
        void run() throws Exception;
    }

    private void run(int requests, AtomicBoolean enough) throws Exception {
        ExecutorService callers = Executors.newFixedThreadPool(CALLERS);
        AtomicInteger left = new AtomicInteger(requests);
        List<Future<?>> all = new ArrayList<>();
        for (int i = 0; i < CALLERS; i++) {
            Random random = new Random(i);
            all.add(callers.submit(() -> {
                RawClient connection = server.connect();
                while (left.getAndDecrement() > 0 && !enough.get()) {
                    connection = one(connection, random);
                }
                connection.close();
                return null;
            }));
        }
        callers.shutdown();
        for (Future<?> one : all) {
            one.get();
        }
    }

    /** One request, some of which are broken off: before the answer, or within it. Answers a connection for the next. */
    private RawClient one(RawClient connection, Random random) throws IOException {
        String path = PATHS.get(random.nextInt(PATHS.size()));
        int manner = random.nextInt(10);
        try {
            if (manner < 2) {
                connection.send("GET", path);
                if (manner == 1) {
                    connection.head(new TreeMap<>());
                }
                answers.incrementAndGet(0);
                connection.abort();
                return server.connect();
            }
            int status = connection.call("GET", path).status();
            answers.incrementAndGet(status / 100);
            return connection;
        } catch (IOException | NumberFormatException e) {
            // An answer that broke off within its body: its handler threw.
            answers.incrementAndGet(5);
            connection.close();
            return server.connect();
        }
    }
}
