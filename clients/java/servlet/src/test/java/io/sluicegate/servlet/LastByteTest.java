package io.sluicegate.servlet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import io.sluicegate.client.Ask;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Wait;
import jakarta.servlet.AsyncContext;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** The pod's own units are free when the client has the last byte, so that a gateway never finds a pod late. */
class LastByteTest {
    /** Often enough to meet the race in a wrong order of the two. */
    private static final int ROUNDS = 200;

    private final LocalUnits units = new LocalUnits(1);
    private final SluicegateClient client = SluicegateClient.localOnly(units).build();
    private final TestServer server = new TestServer(client, request -> Optional.of(Ask.api("a").weight(1)));
    private final ExecutorService threads = Executors.newCachedThreadPool();

    @AfterEach
    void close() throws Exception {
        server.close();
        client.close();
        threads.shutdownNow();
    }

    @Test
    void ofAnAnswerThatTheContainerEnds() throws Exception {
        server.on("/", (request, response) -> response.getOutputStream().print("hello"));
        alwaysFree();
    }

    @Test
    void ofAnAnswerOfDeclaredLengthWhoseHandlerGoesOn() throws Exception {
        server.on("/", (request, response) -> {
            response.setContentLength(5);
            response.getOutputStream().print("hello");
            response.flushBuffer();
            goOn();
        });
        alwaysFree();
    }

    @Test
    void ofAnAnswerOfDeclaredLengthInChars() throws Exception {
        server.on("/", (request, response) -> {
            response.setCharacterEncoding("UTF-8");
            response.setHeader("content-length", "6");
            response.getWriter().write("h\u00e9llo");
            response.flushBuffer();
            goOn();
        });
        alwaysFree();
    }

    @Test
    void ofAnAnswerWhoseHandlerClosesItAndGoesOn() throws Exception {
        server.on("/", (request, response) -> {
            response.getOutputStream().print("hello");
            response.flushBuffer();
            response.getOutputStream().close();
            goOn();
        });
        alwaysFree();
    }

    @Test
    void ofAnEmptyAnswer() throws Exception {
        server.on("/", (request, response) -> {
            response.setContentLengthLong(0);
            response.flushBuffer();
            goOn();
        });
        alwaysFree();
    }

    @Test
    void ofAnAnswerThatAnotherThreadCompletes() throws Exception {
        server.on("/", (request, response) -> {
            AsyncContext async = request.startAsync();
            threads.execute(() -> {
                try {
                    async.getResponse().getOutputStream().print("hello");
                    async.complete();
                } catch (java.io.IOException e) {
                    throw new java.io.UncheckedIOException(e);
                }
            });
        });
        alwaysFree();
    }

    @Test
    void notBeforeIt() throws Exception {
        CountDownLatch looked = new CountDownLatch(1);
        server.on("/", (request, response) -> {
            response.setContentLength(5);
            response.getOutputStream().print("hell");
            response.flushBuffer();
            looked.await();
            response.getOutputStream().print("o");
        });
        try (RawClient one = server.connect()) {
            one.send("GET", "/");
            one.head(new java.util.TreeMap<>());
            one.read(4);
            assertEquals(1, units.inUse(), "the handler still has work");
            looked.countDown();
            one.read(1);
            assertEquals(0, units.inUse());
        }
    }

    private void alwaysFree() throws Exception {
        try (RawClient one = server.connect()) {
            for (int round = 0; round < ROUNDS; round++) {
                RawClient.Answer answer = one.call("GET", "/");
                assertEquals(0, units.inUse(), "round " + round);
                assertEquals(200, answer.status());
                assertNull(answer.header(Problem.REASON));
            }
        }
        Wait.until("the last handler has returned", () -> units.inUse() == 0);
    }

    /** Work after the answer: the client reads the last byte meanwhile, most of the time. */
    private static void goOn() {
        for (int i = 0; i < 200; i++) {
            Thread.yield();
        }
    }
}
