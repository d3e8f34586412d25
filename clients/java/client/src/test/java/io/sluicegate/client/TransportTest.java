package io.sluicegate.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.testkit.Ports;
import io.sluicegate.testkit.Wait;
import java.io.IOException;
import java.net.ConnectException;
import java.net.ProtocolException;
import java.net.SocketTimeoutException;
import java.net.URI;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Connections that end, hang and lie, by both ways of calling. */
class TransportTest {
    private static final Duration LONG = Duration.ofSeconds(50);
    private static final Duration SHORT = Duration.ofMillis(100);

    /** The two ways. */
    enum Way {
        BLOCKING {
            @Override
            Answer call(Transport transport, Duration deadline) throws Exception {
                return transport.call("POST", "/v1/leases", "{}", deadline);
            }
        },
        ASYNC {
            @Override
            Answer call(Transport transport, Duration deadline) throws Exception {
                try {
                    return transport.send("POST", "/v1/leases", "{}", deadline).get();
                } catch (ExecutionException e) {
                    throw assertInstanceOf(IOException.class, e.getCause());
                }
            }
        };

        abstract Answer call(Transport transport, Duration deadline) throws Exception;
    }

    @ParameterizedTest
    @EnumSource
    void aConnectionIsKeptAndItsCallsAreWhole(Way way) throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> FakeService.ok(socket))) {
            Transport transport = new Transport(URI.create(service.url() + "/base/"), "secret", null, LONG);
            for (int i = 0; i < 20; i++) {
                assertEquals("{}", way.call(transport, LONG).body());
            }
            assertEquals(1, service.connections());
            String host = service.url().getAuthority();
            assertEquals("POST /base/v1/leases HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer secret\r\n"
                    + "Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}", service.calls.get(19));
            transport.close();
            service.untilLeft(1);
        }
    }

    /** Which end of the kept connection is seen first, the reset or the end, is up to the kernel; each is stale. */
    @ParameterizedTest
    @EnumSource
    void aKeptConnectionWhoseOtherEndLeftCostsNothing(Way way) throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> FakeService.ok(socket))) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            for (int round = 1; round <= 50; round++) {
                assertEquals(200, way.call(transport, LONG).status());
                assertEquals(round, service.calls.size());
                service.hangUp();
            }
            assertEquals(50, service.connections());
            transport.close();
        }
    }

    /** The call arrived, and its connection ended without an answer. */
    @ParameterizedTest
    @EnumSource
    void aCallThatMetTheEndOfAKeptConnectionIsSentOnceMoreAndNoOftener(Way way) throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> {
            if (call == 1) {
                FakeService.ok(socket);
            } else {
                socket.close();
            }
        })) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            assertEquals(200, way.call(transport, LONG).status());
            IOException ended = assertThrows(IOException.class, () -> way.call(transport, LONG));
            assertFalse(ended instanceof ConnectException, ended.toString());
            assertEquals(3, service.calls.size());
            transport.close();
        }
    }

    @ParameterizedTest
    @EnumSource
    void anAnswerThatBreaksOffIsNotAskedForAgain(Way way) throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> {
            if (call == 1) {
                FakeService.ok(socket);
            } else {
                FakeService.send(socket, "HTTP/1.1 200 OK\r\nContent-Le");
                socket.close();
            }
        })) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            way.call(transport, LONG);
            assertThrows(IOException.class, () -> way.call(transport, LONG));
            assertEquals(2, service.calls.size());
            transport.close();
        }
    }

    @ParameterizedTest
    @EnumSource
    void theDeadlineEndsACallWithoutAnswerOrWithHalfOfOne(Way way) throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> {
            if (call == 2) {
                FakeService.send(socket, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{");
            }
        })) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            assertThrows(SocketTimeoutException.class, () -> way.call(transport, SHORT));
            service.untilLeft(1);
            assertThrows(SocketTimeoutException.class, () -> way.call(transport, SHORT));
            service.untilLeft(2);
            transport.close();
        }
    }

    @ParameterizedTest
    @EnumSource
    void bytesThatAreNoAnswerEndTheirConnection(Way way) throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> {
            if (call == 1) {
                FakeService.send(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}");
            } else {
                FakeService.send(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
            }
        })) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            assertThrows(ProtocolException.class, () -> way.call(transport, LONG));
            service.untilLeft(1);
            way.call(transport, LONG);
            service.untilLeft(2);
            way.call(transport, LONG);
            assertEquals(3, service.connections());
            transport.close();
        }
    }

    @ParameterizedTest
    @EnumSource
    void nothingWasSentWhereNobodyListens(Way way) {
        Transport transport = new Transport(URI.create("http://127.0.0.1:" + Ports.free()), null, null, LONG);
        assertThrows(ConnectException.class, () -> way.call(transport, LONG));
        Transport unix = new Transport(URI.create("unix:/nobody/listens/here"), null, null, LONG);
        assertThrows(ConnectException.class, () -> way.call(unix, LONG));
        Transport nameless = new Transport(URI.create("http://nobody.invalid"), null, null, LONG);
        assertThrows(ConnectException.class, () -> way.call(nameless, LONG));
        for (Transport one : new Transport[] {transport, unix, nameless}) {
            one.close();
        }
    }

    @ParameterizedTest
    @EnumSource
    void aLongAnswerComesWhole(Way way) throws Exception {
        String body = "\"" + "x".repeat(300_000) + "\"";
        try (FakeService service = new FakeService((call, connection, socket) -> FakeService.send(socket,
                "HTTP/1.1 200 OK\r\nContent-Length: " + body.length() + "\r\n\r\n" + body))) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            assertEquals(body, way.call(transport, LONG).body());
            assertEquals(body, way.call(transport, LONG).body());
            assertEquals(1, service.connections());
            transport.close();
        }
    }

    @org.junit.jupiter.api.Test
    void anInterruptEndsTheCallAndItsConnection() throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> { })) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            CompletableFuture<Boolean> clear = new CompletableFuture<>();
            Thread caller = new Thread(() -> {
                assertThrows(InterruptedException.class, () -> transport.call("POST", "/v1/leases", "{}", LONG));
                clear.complete(!Thread.currentThread().isInterrupted());
            });
            caller.start();
            Wait.until("it asked", () -> service.calls.size() == 1);
            caller.interrupt();
            service.untilLeft(1);
            assertTrue(clear.get(), "the exception takes the interrupt's place");
            Thread.currentThread().interrupt();
            assertThrows(InterruptedException.class, () -> transport.call("POST", "/v1/leases", "{}", LONG));
            assertEquals(1, service.calls.size(), "nothing is asked for a thread that is to stop");
            transport.close();
        }
    }

    @org.junit.jupiter.api.Test
    void cancellingClosesTheConnectionAndClosingEndsWhatIsUnderWay() throws Exception {
        try (FakeService service = new FakeService((call, connection, socket) -> { })) {
            Transport transport = new Transport(service.url(), null, null, LONG);
            CompletableFuture<Answer> first = transport.send("POST", "/v1/leases", "{}", LONG);
            Wait.until("it asked", () -> service.calls.size() == 1);
            first.cancel(true);
            service.untilLeft(1);
            CompletableFuture<Answer> second = transport.send("POST", "/v1/leases", "{}", LONG);
            Wait.until("it asked", () -> service.calls.size() == 2);
            transport.close();
            assertThrows(ExecutionException.class, second::get);
            service.untilLeft(2);
            assertThrows(ExecutionException.class, () -> transport.send("GET", "/", null, LONG).get());
        }
    }

    @org.junit.jupiter.api.Test
    void whatWouldBeAnotherHeaderIsNotSent() {
        URI url = URI.create("http://127.0.0.1:9");
        assertThrows(IllegalArgumentException.class, () -> new Transport(url, "a\r\nb: c", null, LONG));
        assertThrows(IllegalArgumentException.class, () -> new Transport(URI.create("ftp://x"), null, null, LONG));
        assertThrows(IllegalArgumentException.class, () -> new Transport(URI.create("unix:x"), null, null, LONG));
        Transport transport = new Transport(url, null, null, LONG);
        assertThrows(IllegalArgumentException.class, () -> transport.call("PUT", "/v1/pods/a b", "{}", LONG));
        assertThrows(IllegalArgumentException.class, () -> transport.send("PUT", "/v1/pods/a\n", "{}", LONG));
    }
}
