package io.sluicegate.bench;

import io.sluicegate.client.Ask;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.WhenAway;
import io.sluicegate.servlet.Problem;
import io.sluicegate.servlet.SluicegateFilter;
import io.sluicegate.testkit.Redis;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.Phaser;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/**
 * The same arrivals by each road to ten pods: which of them pools? Weights 1, 2 and 3 in equal Erlangs, Poisson arrivals,
 * exponential work. The pods' own gauges tell whether one bore more than it declared.
 */
final class Roads {
    private static final int PODS = 10;
    private static final int UNITS = 20;
    private static final int MEAN_MS = 300;
    private static final Duration WAIT = Duration.ofMillis(50);
    /** Not counted: the pool fills. */
    private static final double RAMP_S = 2;

    private final double load;
    private final int seconds;
    private final ScheduledExecutorService workers = Executors.newScheduledThreadPool(2);
    private final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private Roads(double load, int seconds) {
        this.load = load;
        this.seconds = seconds;
    }

    static void measure(Section section, double load, int seconds) throws Exception {
        new Roads(load, seconds).run(section);
    }

    /** One request to come. */
    private record Arrival(double at, int weight, int pod, long workMs) {}

    /** How the ten pods decide. */
    private enum Manner {
        ALONE, ALONE_WAITING, PINNED
    }

    private void run(Section section) throws Exception {
        section.table("road, load " + load, "answered 429", "pools", "greatest use of a pod, of " + UNITS, "lag, ms");
        by(section, Manner.ALONE, false, "random balancer, pod alone", "no");
        by(section, Manner.ALONE_WAITING, false, "random balancer, pod alone that lets wait 50 ms", "no");
        by(section, Manner.PINNED, false, "random balancer, pinned asks, wait 50 ms", "limits only");
        by(section, Manner.PINNED, true, "the same, balancer goes `elsewhere` once", "room too, one hop late");
        gateway(section);
        sidecars(section);
        section.note(PODS + " pods of " + UNITS + " units, mean work " + MEAN_MS + " ms, " + seconds
                + " s after a start of 2 s, the same arrivals for each road. Lag: the latest start of a request; beyond 50 ms a "
                + "row would be void.");
        workers.shutdownNow();
    }

    private void by(Section section, Manner manner, boolean elsewhere, String name, String pools) throws Exception {
        List<LocalUnits> locks = new ArrayList<>();
        List<Server> pods = new ArrayList<>();
        List<SluicegateClient> clients = new ArrayList<>();
        try (Sluice sluice = new Sluice(rules(placeholders()), false)) {
            for (int pod = 0; pod < PODS; pod++) {
                LocalUnits lock = new LocalUnits(UNITS);
                locks.add(lock);
                clients.add(manner != Manner.PINNED ? SluicegateClient.localOnly(lock).build()
                        : SluicegateClient.of(sluice.decisions()).pod("p" + pod).local(lock)
                                .whenAway(WhenAway.CLOSED).build());
                pods.add(pod(clients.get(pod), manner == Manner.ALONE ? Duration.ZERO : WAIT));
            }
            List<String> urls = pods.stream().map(Server::url).toList();
            row(section, name, pools, locks, send(urls, elsewhere));
        } finally {
            clients.forEach(SluicegateClient::close);
            pods.forEach(Server::close);
        }
    }

    private void gateway(Section section) throws Exception {
        List<LocalUnits> locks = new ArrayList<>();
        List<Server> pods = locked(locks);
        try (Sluice sluice = new Sluice(rules(pods.stream().map(Server::url).toList()), true)) {
            List<String> urls = Collections.nCopies(PODS, sluice.gateway().toString());
            row(section, "gateway in front, wait 50 ms; the pods have their own lock", "yes", locks, send(urls, false));
        } finally {
            pods.forEach(Server::close);
        }
    }

    /** A gateway beside each pod, all on one ledger: the balancer's draw is where the request waits, not where it works. */
    private void sidecars(Section section) throws Exception {
        List<LocalUnits> locks = new ArrayList<>();
        List<Server> pods = locked(locks);
        List<Sluice> sidecars = new ArrayList<>();
        try (Redis redis = new Redis()) {
            String rules = rules(pods.stream().map(Server::url).toList()) + "ledger: {redis: \"redis://127.0.0.1:"
                    + redis.port() + "\"}\n";
            for (int pod = 0; pod < PODS; pod++) {
                sidecars.add(Sluice.sidecar(rules, "p" + pod));
            }
            // A new ledger lends nothing in its first seconds: it cannot know who ran before.
            for (Sluice sidecar : sidecars) {
                Wait.until("all sidecars on one ledger that lends", () -> {
                    String state = sidecar.state().replace(" ", "");
                    return state.contains("\"recovering\":false") && state.contains("\"gates_known\":" + PODS);
                });
            }
            List<String> urls = sidecars.stream().map(sidecar -> sidecar.gateway().toString()).toList();
            row(section, "a sidecar beside each pod, which it prefers, wait 50 ms, ledger in Redis", "yes", locks,
                    send(urls, false));
        } finally {
            sidecars.forEach(Sluice::close);
            pods.forEach(Server::close);
        }
    }

    private List<Server> locked(List<LocalUnits> locks) {
        List<Server> pods = new ArrayList<>();
        for (int pod = 0; pod < PODS; pod++) {
            LocalUnits lock = new LocalUnits(UNITS);
            locks.add(lock);
            pods.add(pod(SluicegateClient.localOnly(lock).build(), Duration.ZERO));
        }
        return pods;
    }

    private void row(Section section, String name, String pools, List<LocalUnits> locks, Sent sent) {
        int peak = locks.stream().mapToInt(LocalUnits::peak).max().orElseThrow();
        if (sent.other.get() > 0) {
            throw new IllegalStateException(sent.other + " answers were neither 200 nor 429: " + name);
        }
        section.row(name, String.format(Locale.ROOT, "%.2f %% of %d", 100.0 * sent.refused.get() / sent.counted.get(),
                sent.counted.get()), pools, peak, sent.lagMs.get());
    }

    private Server pod(SluicegateClient client, Duration wait) {
        return new Server(64, new SluicegateFilter(client, request -> Optional.of(
                Ask.api("w" + weight(request)).weight(weight(request)).waitAtMost(wait))), this::work);
    }

    private static int weight(HttpServletRequest request) {
        return request.getRequestURI().charAt(2) - '0';
    }

    private void work(HttpServletRequest request, HttpServletResponse response) {
        AsyncContext context = request.startAsync();
        context.setTimeout(0);
        workers.schedule(context::complete, Long.parseLong(request.getParameter("ms")), TimeUnit.MILLISECONDS);
    }

    private static final class Sent {
        private final AtomicInteger counted = new AtomicInteger();
        private final AtomicInteger refused = new AtomicInteger();
        private final AtomicInteger other = new AtomicInteger();
        private final AtomicLong lagMs = new AtomicLong();
    }

    private Sent send(List<String> urls, boolean elsewhere) {
        Sent sent = new Sent();
        Phaser open = new Phaser(1);
        long start = System.nanoTime();
        for (Arrival arrival : arrivals()) {
            long due = start + (long) (arrival.at * 1e9);
            while (System.nanoTime() - due < 0) {
                LockSupport.parkNanos(Math.max(1, due - System.nanoTime()));
            }
            sent.lagMs.accumulateAndGet((System.nanoTime() - due) / 1_000_000, Math::max);
            open.register();
            call(urls, arrival, elsewhere).whenComplete((status, error) -> {
                boolean counts = arrival.at >= RAMP_S;
                sent.counted.addAndGet(counts ? 1 : 0);
                sent.refused.addAndGet(counts && error == null && status == 429 ? 1 : 0);
                sent.other.addAndGet(error != null || status != 429 && status != 200 ? 1 : 0);
                open.arriveAndDeregister();
            });
        }
        open.arriveAndAwaitAdvance();
        return sent;
    }

    private CompletableFuture<Integer> call(List<String> urls, Arrival arrival, boolean elsewhere) {
        String path = "/w" + arrival.weight + "?ms=" + arrival.workMs;
        return get(urls.get(arrival.pod) + path).thenCompose(answer -> {
            Optional<String> pod = answer.headers().firstValue(Problem.ELSEWHERE);
            if (!elsewhere || answer.statusCode() != 429 || pod.isEmpty()) {
                return CompletableFuture.completedFuture(answer.statusCode());
            }
            int other = Integer.parseInt(pod.get().substring(1));
            return get(urls.get(other) + path).thenApply(HttpResponse::statusCode);
        });
    }

    private CompletableFuture<HttpResponse<Void>> get(String url) {
        return http.sendAsync(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.discarding());
    }

    /** Weight w arrives at rate E / mean work, with the same E for each. */
    private List<Arrival> arrivals() {
        Random random = new Random(42);
        double erlangs = load * PODS * UNITS / 6;
        double rate = 3 * erlangs / (MEAN_MS / 1000.0);
        List<Arrival> arrivals = new ArrayList<>();
        for (double at = 0; at < RAMP_S + seconds; at += -Math.log(1 - random.nextDouble()) / rate) {
            long work = Math.max(1, Math.round(-Math.log(1 - random.nextDouble()) * MEAN_MS));
            arrivals.add(new Arrival(at, 1 + random.nextInt(3), random.nextInt(PODS), work));
        }
        return arrivals;
    }

    private static List<String> placeholders() {
        List<String> urls = new ArrayList<>();
        for (int pod = 0; pod < PODS; pod++) {
            urls.add("http://127.0.0.1:" + (10 + pod));
        }
        return urls;
    }

    private static String rules(List<String> urls) {
        StringBuilder yaml = new StringBuilder("pool: shop\npods:\n");
        for (int pod = 0; pod < PODS; pod++) {
            yaml.append("  - {name: p").append(pod).append(", url: \"").append(urls.get(pod)).append("\", capacity: ")
                    .append(UNITS).append("}\n");
        }
        yaml.append("apis:\n");
        for (int weight = 1; weight <= 3; weight++) {
            yaml.append("  - {name: w").append(weight).append(", match: \"GET /w").append(weight).append("\", weight: ")
                    .append(weight).append("}\n");
        }
        return yaml.append("admission: {wait: 50ms}\n").toString();
    }
}
