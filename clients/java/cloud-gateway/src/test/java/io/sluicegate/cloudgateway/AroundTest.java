package io.sluicegate.cloudgateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.sluicegate.client.SluicegateClient;
import io.sluicegate.spring.SluicegateAutoConfiguration;
import io.sluicegate.testkit.Pods;
import io.sluicegate.testkit.RawClient;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.WebSocket;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.springframework.boot.autoconfigure.AutoConfigurations;
import org.springframework.boot.test.context.runner.ReactiveWebApplicationContextRunner;
import reactor.netty.DisposableServer;
import reactor.netty.http.server.HttpServer;

/** The gateway beside Sluicegate, and what else of Spring is around: filters of a route, WebSockets, a client of one's own. */
class AroundTest {
    private static final String ROUTES = """
            - {id: cut, uri: "sluicegate:http://127.0.0.1:9", predicates: [Path=/cut], filters: [Cut]}
            - {id: spoilt, uri: "sluicegate:http://127.0.0.1:9", predicates: [Path=/spoilt], filters: [Cut]}
            - id: bare
              uri: "sluicegate:http://127.0.0.1:9"
              predicates: [Path=/bare]
              filters: [{name: Retry, args: {retries: 1, exceptions: java.util.concurrent.TimeoutException}}, Cut]
            - {id: fallback, uri: "http://127.0.0.1:POD_A", predicates: [Path=/fallback]}
            - id: again
              uri: "sluicegate:http://127.0.0.1:9"
              predicates: [Path=/again]
              filters: [{name: Retry, args: {retries: 1, series: [], statuses: TOO_MANY_REQUESTS}}]
            """;
    private static final String DECISIONS = "http://127.0.0.1:9";

    private static Pods pods;
    private static Sluice sluice;
    private static Gateway gateway;

    @BeforeAll
    static void start() {
        pods = new Pods(2, "capacity: 5", "admission: {wait: 30s}");
        sluice = new Sluice(pods.rules(), false);
        gateway = gateway(sluice, ROUTES.replace("POD_A", "" + pods.port(0)));
    }

    private static Gateway gateway(Sluice decisions, String routes) {
        return new Gateway("beside.yaml", List.of("  routes:\n", "  routes:\n" + routes.indent(4)),
                "--sluicegate.url=" + decisions.decisions(), "--sluicegate.deadline=31s", "--sluicegate.hold=6s");
    }

    @AfterAll
    static void close() {
        gateway.close();
        sluice.close();
        pods.close();
    }

    /** And the fallback's route, which does not ask, takes nothing more. */
    @Test
    void aPodThatAFilterGaveUpOnHoldsItsUnitsToItsEnd() throws Exception {
        long before = sluice.count("admitted");
        long abandoned = sluice.abandoned();
        try (RawClient client = gateway.connect()) {
            RawClient.Answer answer = client.call("GET", "/cut?ms=1000&chunks=3&every=1000");
            assertEquals(200, answer.status(), answer.body());
            assertEquals("a", answer.header("x-trial-pod"), "the fallback's");
            assertNull(answer.header("server-timing"), "nothing was asked for the fallback");
        }
        heldToThePodsEnd();
        assertEquals(before + 1, sluice.count("admitted"));
        assertEquals(0, sluice.count("failed"));
        assertEquals(abandoned, sluice.abandoned());
    }

    @Test
    void whatAFilterGaveUpOnIsNotSentAgain() throws Exception {
        long before = sluice.count("admitted");
        long abandoned = sluice.abandoned();
        try (RawClient client = gateway.connect()) {
            assertEquals(500, client.call("GET", "/bare?ms=2000").status());
        }
        heldToThePodsEnd();
        assertEquals(before + 1, sluice.count("admitted"));
        assertEquals(abandoned, sluice.abandoned());
    }

    /** Where the gateway hung up on a pod that works on: by the hold. */
    @Test
    void anAnswerThatFailedAfterItsHeadHoldsOn() throws Exception {
        long abandoned = sluice.abandoned();
        try (RawClient client = gateway.connect()) {
            assertEquals(500, client.call("GET", "/spoilt?chunks=2&every=1500").status());
        }
        heldToThePodsEnd();
        assertEquals(abandoned + 1, sluice.abandoned());
    }

    @Test
    void anAnswerThatWasRetriedTellsOfOneAdmission() throws Exception {
        long before = sluice.podRefusals();
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + gateway.port() + "/again?refuse")).build();
        HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        assertEquals(429, answer.statusCode());
        assertEquals(before + 4, sluice.podRefusals(), "two runs, each tried twice more");
        assertEquals(1, answer.headers().allValues("server-timing").size(), answer.headers().toString());
        settled();
    }

    @Test
    void aWebSocketHoldsItsUnitsToItsEnd() throws Exception {
        DisposableServer pod = HttpServer.create().host("127.0.0.1").port(0)
                .handle((request, response) -> response.sendWebsocket((in, out) -> out.sendString(in.receive().asString())))
                .bindNow();
        String rules = "pool: shop\npods: [{name: w, url: \"http://127.0.0.1:" + pod.port() + "\", capacity: 5}]";
        Gateway sockets = null;
        try (Sluice service = new Sluice(rules, false)) {
            sockets = gateway(service, "");
            CompletableFuture<String> heard = new CompletableFuture<>();
            WebSocket socket = HttpClient.newHttpClient().newWebSocketBuilder().buildAsync(
                    URI.create("ws://127.0.0.1:" + sockets.port() + "/talk"), new WebSocket.Listener() {
                        @Override
                        public CompletionStage<?> onText(WebSocket from, CharSequence data, boolean last) {
                            heard.complete(data.toString());
                            return null;
                        }
                    }).get(60, TimeUnit.SECONDS);
            socket.sendText("hello", true).get(60, TimeUnit.SECONDS);
            assertEquals("hello", heard.get(60, TimeUnit.SECONDS));
            assertEquals(1, service.inUse());
            socket.sendClose(WebSocket.NORMAL_CLOSURE, "").get(60, TimeUnit.SECONDS);
            Wait.until("given back", () -> service.inUse() == 0);
            assertEquals(0, service.count("failed"));
            assertEquals(0, service.abandoned());
        } finally {
            if (sockets != null) {
                sockets.close();
            }
            pod.disposeNow();
        }
    }

    @Test
    void aClientOfOnesOwnNeedsNoSettings() {
        runner().withBean(SluicegateClient.class, () -> SluicegateClient.of(URI.create(DECISIONS)).build())
                .run(context -> assertEquals(1, context.getBeansOfType(SluicegateGlobalFilter.class).size()));
        runner().withBean(SluicegateClient.class, () -> SluicegateClient.of(URI.create(DECISIONS)).pod("a").build())
                .run(context -> assertTrue(context.getStartupFailure() != null, "it asks for one pod only"));
    }

    private static ReactiveWebApplicationContextRunner runner() {
        return new ReactiveWebApplicationContextRunner().withConfiguration(AutoConfigurations.of(
                SluicegateAutoConfiguration.class, SluicegateGatewayAutoConfiguration.class));
    }

    private static void heldToThePodsEnd() throws Exception {
        Wait.until("only that pod works on", () -> pods.inUse() == 1);
        while (pods.inUse() == 1) {
            long held = sluice.inUse();
            assertTrue(held == 1 || pods.inUse() == 0, "given back while the pod works");
            Thread.sleep(20);
        }
        settled();
    }

    private static void settled() {
        Wait.until("nothing is held", () -> sluice.inUse() == 0 && sluice.waiting() == 0 && pods.inUse() == 0
                && gateway.stats().open() == 0 && gateway.stats().returning() == 0);
    }
}
