package io.sluicegate.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpMethod;
import org.springframework.web.client.HttpClientErrorException;
import org.springframework.web.client.RestClient;
import org.springframework.web.reactive.function.client.WebClient;
import org.springframework.web.reactive.function.client.WebClientResponseException;

class RetryAfterTest {
    private final RetryAfter rules = new RetryAfter(3, Duration.ofSeconds(4));
    private final AtomicInteger calls = new AtomicInteger();
    /** How many calls are refused before one is served. */
    private volatile int refusals;
    private HttpServer server;

    @BeforeEach
    void start() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            boolean refused = calls.incrementAndGet() <= refusals;
            if (refused) {
                exchange.getResponseHeaders().set("Retry-After", "0");
            }
            byte[] body = (refused ? "no" : "yes").getBytes();
            exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(refused ? 429 : 200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }

    @AfterEach
    void stop() {
        server.stop(0);
    }

    @Test
    void whatIsWaitedForAndHowLong() {
        assertBetween(2000, 3000, rules.pause(1, HttpMethod.POST, 429, after("2")));
        assertBetween(0, 0, rules.pause(2, HttpMethod.GET, 503, after("0")));
        assertBetween(1000, 1500, rules.pause(1, HttpMethod.PUT, 503, after("1")));
        HttpHeaders ours = after("1");
        ours.set("x-sluicegate-reason", "no_ready_pod");
        assertBetween(1000, 1500, rules.pause(1, HttpMethod.POST, 503, ours));
    }

    @Test
    void whatIsNot() {
        Optional<Duration> no = Optional.empty();
        assertEquals(no, rules.pause(3, HttpMethod.GET, 429, after("1")), "the calls are used up");
        assertEquals(no, rules.pause(1, HttpMethod.GET, 429, after("5")), "longer than allowed");
        assertEquals(no, rules.pause(1, HttpMethod.GET, 429, new HttpHeaders()), "no Retry-After");
        assertEquals(no, rules.pause(1, HttpMethod.GET, 429, after("Wed, 21 Oct 2026 07:28:00 GMT")), "a date");
        assertEquals(no, rules.pause(1, HttpMethod.POST, 503, after("1")), "it may have been executed");
        assertEquals(no, rules.pause(1, HttpMethod.GET, 500, after("1")), "not a refusal");
        assertThrows(IllegalArgumentException.class, () -> new RetryAfter(0, Duration.ZERO));
    }

    @Test
    void restClientCallsAgainAndGivesUpInTheEnd() {
        RestClient client = RestClient.builder().baseUrl(base()).requestInterceptor(new RetryAfterInterceptor(rules))
                .build();
        refusals = 2;
        assertEquals("yes", client.post().uri("/").body("x").retrieve().body(String.class));
        assertEquals(3, calls.getAndSet(0));
        refusals = 3;
        assertThrows(HttpClientErrorException.TooManyRequests.class,
                () -> client.get().uri("/").retrieve().body(String.class));
        assertEquals(3, calls.get());
    }

    @Test
    void webClientToo() {
        WebClient client = WebClient.builder().baseUrl(base()).filter(new RetryAfterFunction(rules)).build();
        refusals = 2;
        assertEquals("yes", client.post().uri("/").bodyValue("x").retrieve().bodyToMono(String.class).block());
        assertEquals(3, calls.getAndSet(0));
        refusals = 3;
        assertThrows(WebClientResponseException.TooManyRequests.class,
                () -> client.get().uri("/").retrieve().bodyToMono(String.class).block());
        assertEquals(3, calls.get());
    }

    private String base() {
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    private static HttpHeaders after(String value) {
        HttpHeaders headers = new HttpHeaders();
        headers.set("Retry-After", value);
        return headers;
    }

    private static void assertBetween(long least, long most, Optional<Duration> pause) {
        long millis = pause.orElseThrow().toMillis();
        assertTrue(least <= millis && millis <= most, millis + " ms");
    }
}
