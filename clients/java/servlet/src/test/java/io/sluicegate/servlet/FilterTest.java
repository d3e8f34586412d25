package io.sluicegate.servlet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.Ask;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Wait;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.DispatcherType;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** What is held from where to where, and what a refused client reads. */
class FilterTest {
    private final LocalUnits units = new LocalUnits(2);
    private final SluicegateClient client = SluicegateClient.localOnly(units).build();
    private final TestServer server = new TestServer(client, request -> request.getRequestURI().equals("/free")
            ? Optional.empty() : Optional.of(Ask.api("a").weight(request.getRequestURI().equals("/heavy") ? 3 : 2)));

    @AfterEach
    void close() throws Exception {
        server.close();
        client.close();
    }

    @Test
    void aRefusalIsAProblemWithRetryAfter() throws Exception {
        server.on("/a", (request, response) -> {});
        LocalUnits.Held all = units.force(2);
        try (RawClient one = server.connect()) {
            RawClient.Answer refused = one.call("GET", "/a");
            assertEquals(429, refused.status());
            assertEquals("application/problem+json", refused.header("Content-Type"));
            assertEquals("1", refused.header("Retry-After"));
            assertEquals("no_room", refused.header("x-sluicegate-reason"));
            assertTrue(refused.body().contains("\"reason\":\"no_room\""), refused.body());
            all.close();
            assertEquals(200, one.call("GET", "/a").status(), "the connection is as good as before");
        }
    }

    @Test
    void whatNeverFitsIsToldSoWithoutRetryAfter() throws Exception {
        try (RawClient one = server.connect()) {
            RawClient.Answer refused = one.call("GET", "/heavy");
            assertEquals(503, refused.status());
            assertEquals(null, refused.header("Retry-After"));
            assertEquals("too_heavy", refused.header("x-sluicegate-reason"));
        }
    }

    @Test
    void whatAsksForNothingHoldsNothing() throws Exception {
        int[] seen = {-1};
        server.on("/free", (request, response) -> seen[0] = units.inUse());
        try (RawClient one = server.connect()) {
            assertEquals(200, one.call("GET", "/free").status());
        }
        assertEquals(0, seen[0]);
    }

    @Test
    void aHandlerThatThrowsHoldsNothingAfterwards() throws Exception {
        server.on("/a", (request, response) -> {
            throw new IllegalStateException("on purpose");
        });
        try (RawClient one = server.connect()) {
            assertEquals(500, one.call("GET", "/a").status());
            assertEquals(0, units.inUse());
        }
    }

    @Test
    void asynchronousWorkHoldsUntilItsCompletionAlsoThroughADispatch() throws Exception {
        AtomicReference<AsyncContext> started = new AtomicReference<>();
        int[] within = {-1};
        server.on("/a", (request, response) -> {
            if (request.getDispatcherType() == DispatcherType.REQUEST) {
                started.set(request.startAsync());
            } else {
                within[0] = units.inUse();
                response.getOutputStream().print("done");
            }
        });
        try (RawClient one = server.connect()) {
            one.send("GET", "/a");
            Wait.until("the work began", () -> started.get() != null);
            assertEquals(2, units.inUse());
            started.get().dispatch();
            assertEquals(200, one.head(new java.util.TreeMap<>()));
            assertEquals(2, within[0], "the second dispatch takes nothing more");
            one.read(4);
            assertEquals(0, units.inUse());
        }
    }

    @Test
    void asynchronousWorkThatTimesOutHoldsNothingAfterwards() throws Exception {
        server.on("/a", (request, response) -> request.startAsync().setTimeout(1));
        try (RawClient one = server.connect()) {
            assertEquals(500, one.call("GET", "/a").status());
            Wait.until("given back", () -> units.inUse() == 0);
        }
    }

    @Test
    void aClientThatLeavesEndsAStreamThatWrites() throws Exception {
        CountDownLatch failed = new CountDownLatch(1);
        server.on("/a", (request, response) -> {
            try {
                while (true) {
                    response.getOutputStream().print("data: x\n\n");
                    response.flushBuffer();
                }
            } finally {
                failed.countDown();
            }
        });
        RawClient one = server.connect();
        one.send("GET", "/a");
        one.head(new java.util.TreeMap<>());
        one.read(100);
        assertEquals(2, units.inUse());
        one.abort();
        failed.await();
        Wait.until("given back", () -> units.inUse() == 0);
    }

    @Test
    void aClientThatLeavesWithinTheDispatchThatBeganAsynchronousWorkIsNotWaitedFor() throws Exception {
        for (boolean chars : new boolean[] {false, true}) {
            CountDownLatch failed = new CountDownLatch(1);
            server.on("/a", (request, response) -> {
                request.startAsync().setTimeout(0);
                try {
                    while (chars ? !response.getWriter().append("data: x\n\n").checkError() : true) {
                        if (!chars) {
                            response.getOutputStream().print("data: x\n\n");
                            response.flushBuffer();
                        }
                    }
                } catch (java.io.IOException e) {
                    // Swallowed, as frameworks do that expect the container to tell them.
                    assertTrue(response.isCommitted());
                } finally {
                    failed.countDown();
                }
            });
            RawClient one = server.connect();
            one.send("GET", "/a");
            one.head(new java.util.TreeMap<>());
            one.read(100);
            one.abort();
            failed.await();
            Wait.until("given back, chars: " + chars, () -> units.inUse() == 0);
        }
    }

    @Test
    void asynchronousWorkBehindTheFiltersBackIsSeenToo() throws Exception {
        AtomicReference<AsyncContext> started = new AtomicReference<>();
        server.on("/a", (request, response) -> {
            var unwrapped = (jakarta.servlet.http.HttpServletRequestWrapper) request;
            started.set(unwrapped.getRequest().startAsync());
        });
        try (RawClient one = server.connect()) {
            one.send("GET", "/a");
            Wait.until("the work began", () -> started.get() != null);
            assertEquals(2, units.inUse());
            started.get().complete();
            assertEquals(200, one.head(new java.util.TreeMap<>()));
            Wait.until("given back", () -> units.inUse() == 0);
        }
    }
}
