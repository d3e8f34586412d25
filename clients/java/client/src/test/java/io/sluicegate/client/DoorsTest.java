package io.sluicegate.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.sluicegate.testkit.Certificates;
import io.sluicegate.testkit.Ports;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The doors of the real service: a Unix socket, the token, mutual TLS. */
class DoorsTest {
    private static final String RULES = """
            pool: shop
            pods:
              - {name: a, url: "http://127.0.0.1:9", capacity: 4}
            admission: {wait: 0ms}
            """;
    private static final Duration LONG = Duration.ofSeconds(50);

    @TempDir
    private Path folder;

    @Test
    void byAUnixSocket() throws Exception {
        Path socket = folder.resolve("decisions.sock");
        try (Sluice sluice = new Sluice(RULES, "{http: \"unix:" + socket + "\"}");
                SluicegateClient client = closed(SluicegateClient.of(URI.create("unix:" + socket))).build()) {
            story(sluice, client);
        }
    }

    @Test
    void byTheToken() throws Exception {
        int port = Ports.free();
        URI url = URI.create("http://127.0.0.1:" + port);
        try (Sluice sluice = new Sluice(RULES, "{http: \"127.0.0.1:" + port + "\", token: long-enough-secret}");
                SluicegateClient client = closed(SluicegateClient.of(url).token("long-enough-secret")).build();
                SluicegateClient stranger = closed(SluicegateClient.of(url).token("long-enough-guesses")).build()) {
            story(sluice, client);
            assertThrows(UnavailableException.class, () -> stranger.acquire(ask()));
        }
    }

    @Test
    void byMutualTls() throws Exception {
        Certificates certificates = new Certificates(folder);
        int port = Ports.free();
        URI url = URI.create("https://127.0.0.1:" + port);
        try (Sluice sluice = new Sluice(RULES, certificates.door(port));
                SluicegateClient client = closed(SluicegateClient.of(url).tls(certificates.caller())).build();
                SluicegateClient stranger = closed(SluicegateClient.of(url).tls(certificates.stranger())).build();
                SluicegateClient unbelieving = closed(SluicegateClient.of(url)).build()) {
            story(sluice, client);
            assertThrows(UnavailableException.class, () -> stranger.acquire(ask()));
            assertThrows(UnavailableException.class, () -> unbelieving.acquire(ask()));
            assertEquals(0, sluice.inUse());
        }
    }

    /** Both ways of asking, a waiter that is served, one that is cancelled and one that is interrupted. */
    private static void story(Sluice sluice, SluicegateClient client) throws Exception {
        Lease first = client.acquire(ask().weight(3));
        assertEquals(3, sluice.inUse());
        try (Lease second = client.acquireAsync(ask()).get(60, TimeUnit.SECONDS)) {
            assertEquals(1, second.weight());
            assertEquals(4, sluice.inUse());
        }
        CompletableFuture<Lease> cancelled = client.acquireAsync(ask().weight(2).waitAtMost(LONG));
        Wait.until("it waits", () -> waits(sluice, 1));
        cancelled.cancel(true);
        Wait.until("it was withdrawn", () -> waits(sluice, 0));
        Thread interrupted = new Thread(() -> assertThrows(InterruptedException.class,
                () -> client.acquire(ask().weight(2).waitAtMost(LONG))));
        interrupted.start();
        Wait.until("it waits", () -> waits(sluice, 1));
        interrupted.interrupt();
        interrupted.join();
        Wait.until("it was withdrawn", () -> waits(sluice, 0));
        CompletableFuture<Lease> served = client.acquireAsync(ask().weight(2).waitAtMost(LONG));
        Wait.until("it waits", () -> waits(sluice, 1));
        first.close();
        served.get(60, TimeUnit.SECONDS).close();
        Wait.until("nothing is left", () -> sluice.inUse() == 0 && client.stats().returning() == 0);
    }

    private static Ask ask() {
        return Ask.api("default").weight(1);
    }

    private static SluicegateClient.Builder closed(SluicegateClient.Builder builder) {
        return builder.whenAway(WhenAway.CLOSED);
    }

    private static boolean waits(Sluice sluice, int count) {
        return sluice.state().replace(" ", "").contains("\"waiting\":" + count + ",\"mode\"");
    }
}
