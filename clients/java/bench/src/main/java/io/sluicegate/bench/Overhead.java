package io.sluicegate.bench;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Lease;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.WhenAway;
import io.sluicegate.servlet.AskResolver;
import io.sluicegate.servlet.SluicegateFilter;
import io.sluicegate.testkit.Child;
import io.sluicegate.testkit.Ports;
import io.sluicegate.testkit.Redis;
import io.sluicegate.testkit.Sluice;
import io.sluicegate.testkit.Wait;
import jakarta.servlet.Filter;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.redisson.api.RedissonClient;

/**
 * What a filter adds to a tiny answer, ours beside others', in turns within one run: median latency with one connection,
 * throughput with eight. Each has its own Tomcat in this process; wrk is another process.
 */
final class Overhead {
    private static final int CAPACITY = 1000;
    private static final Pattern LATENCY = Pattern.compile("50%\\s+([0-9.]+)(us|ms|s)");
    private static final Pattern RATE = Pattern.compile("Requests/sec:\\s+([0-9.]+)");

    /** wrk calls a request that takes 2 s a time-out. */
    private static final Pattern HUNG = Pattern.compile("timeout ([0-9]+)");

    private final Map<String, Integer> overdue = new LinkedHashMap<>();
    private final Map<String, Server> servers = new LinkedHashMap<>();
    private final Map<String, List<Double>> latencies = new LinkedHashMap<>();
    private final Map<String, List<Double>> rates = new LinkedHashMap<>();
    private final int rounds;
    private final int seconds;

    private Overhead(int rounds, int seconds) {
        this.rounds = rounds;
        this.seconds = seconds;
    }

    static void measure(Section section, int rounds, int seconds) throws Exception {
        new Overhead(rounds, seconds).run(section);
    }

    private void run(Section section) throws Exception {
        Path logs = Files.createTempDirectory("sentinel-logs");
        System.setProperty("csp.sentinel.log.dir", logs.toString());
        System.setProperty("project.name", "bench");
        int tokenPort = Ports.free();
        AskResolver ask = request -> Optional.of(Ask.api("default").weight(1));
        String rules = "pool: shop\npods:\n  - {name: a, url: \"http://127.0.0.1:9\", capacity: " + CAPACITY + "}\n";
        Path socket = Files.createTempDirectory("sluicegate-bench").resolve("decisions.sock");
        try (Sluice sluice = new Sluice(rules, false);
                Sluice unix = new Sluice(rules, "{http: \"unix:" + socket + "\"}");
                Redis redis = new Redis();
                Child tokens = new Child(List.of(System.getProperty("java.home") + "/bin/java",
                        "-Dcsp.sentinel.log.dir=" + logs, "-Dproject.name=bench", "-cp",
                        System.getProperty("java.class.path"), SentinelServer.class.getName(), "" + tokenPort, "bench"));
                SluicegateClient alone = SluicegateClient.localOnly(new LocalUnits(CAPACITY)).build();
                SluicegateClient asking = asking(sluice.decisions());
                SluicegateClient beside = asking(URI.create("unix:" + socket));
                SluicegateClient later = asking(sluice.decisions())) {
            tokens.line("the token server", line -> line.contains("token server listening") ? line : null);
            RedissonClient redisson = Rivals.redisson(redis.port());
            serve("no filter", null);
            serve("pod's own lock", new SluicegateFilter(alone, ask));
            serve("asks the decision service", new SluicegateFilter(asking, ask));
            serve("asks it by a Unix socket", new SluicegateFilter(beside, ask));
            serve("asks it without blocking, and waits", awaiting(later));
            serve("Redisson RPermitExpirableSemaphore", Rivals.permits(redisson, CAPACITY));
            serve("Sentinel cluster flow rule", Rivals.tokens(tokenPort));
            measure();
            Wait.until("all units are back", () -> sluice.inUse() == 0 && unix.inUse() == 0);
            report(section);
            section.note("Refused or failed by the service's client: " + asking.stats() + ".");
            section.note("The decision service: " + Binary.described() + ".");
            servers.values().forEach(Server::close);
            redisson.shutdown();
        }
    }

    private static SluicegateClient asking(URI service) {
        return SluicegateClient.of(service).pod("a").local(new LocalUnits(CAPACITY)).whenAway(WhenAway.CLOSED).build();
    }

    /** What WebFlux does, without WebFlux. */
    private static Filter awaiting(SluicegateClient client) {
        Ask ask = Ask.api("default").weight(1);
        return (request, response, chain) -> {
            Lease lease;
            try {
                lease = client.acquireAsync(ask).get();
            } catch (InterruptedException | ExecutionException e) {
                throw new IOException(e);
            }
            try {
                chain.doFilter(request, response);
            } finally {
                lease.close();
            }
        };
    }

    private void serve(String name, Filter filter) {
        servers.put(name, new Server(32, filter, (request, response) -> {
            response.setContentLength(5);
            response.getOutputStream().print("hello");
        }));
        latencies.put(name, new ArrayList<>());
        rates.put(name, new ArrayList<>());
    }

    private void measure() throws IOException {
        for (String name : servers.keySet()) {
            // Compiles the path; a first round would measure the compiler.
            wrk(name, 8);
        }
        for (int round = 0; round < rounds; round++) {
            for (String name : servers.keySet()) {
                latencies.get(name).add(micros(wrk(name, 1)));
                rates.get(name).add(number(RATE, wrk(name, 8)));
            }
        }
    }

    private void report(Section section) {
        section.table("filter", "p50, µs, 1 connection", "added p50, µs", "requests/s, 8 connections", "of no filter",
                "over 2 s");
        double none = Section.median(latencies.get("no filter"));
        double most = Section.median(rates.get("no filter"));
        for (String name : servers.keySet()) {
            List<Double> latency = latencies.get(name);
            section.row(name, Section.spread(latency, "%.0f"),
                    String.format(Locale.ROOT, "%.0f", Section.median(latency) - none),
                    Section.spread(rates.get(name), "%.0f"),
                    String.format(Locale.ROOT, "%.0f %%", 100 * Section.median(rates.get(name)) / most),
                    overdue.getOrDefault(name, 0));
        }
        section.note("Sentinel: a token of its cluster's flow rule for each request, at its default time-out of 20 ms, after which it "
                + "lets pass; nothing is given back (its client has no call for the concurrent mode). Redisson: `tryAcquire` before, "
                + "`releaseAsync` after. Ours: one call before, the return by a batch.");
        section.note("Medians of " + rounds + " rounds of " + seconds + " s, least and greatest in brackets; all in turns in "
                + "each round. Tomcat, wrk and the servers share the cores.");
    }

    private String wrk(String name, int connections) throws IOException {
        Server server = servers.get(name);
        Process wrk = new ProcessBuilder("wrk", "-t1", "-c" + connections, "-d" + seconds + "s", "--latency",
                server.url() + "/").redirectErrorStream(true).start();
        String said = new String(wrk.getInputStream().readAllBytes());
        if (said.contains("Non-2xx")) {
            throw new IllegalStateException(name + ", " + connections + " connections: not all were served:\n" + said);
        }
        Matcher hung = HUNG.matcher(said);
        if (hung.find()) {
            overdue.merge(name, Integer.valueOf(hung.group(1)), Integer::sum);
        }
        return said;
    }

    private static double micros(String said) {
        Matcher found = LATENCY.matcher(said);
        if (!found.find()) {
            throw new IllegalStateException("no latency in:\n" + said);
        }
        double value = Double.parseDouble(found.group(1));
        return switch (found.group(2)) {
            case "us" -> value;
            case "ms" -> value * 1e3;
            default -> value * 1e6;
        };
    }

    private static double number(Pattern pattern, String said) {
        Matcher found = pattern.matcher(said);
        if (!found.find()) {
            throw new IllegalStateException("no figure in:\n" + said);
        }
        return Double.parseDouble(found.group(1));
    }
}
