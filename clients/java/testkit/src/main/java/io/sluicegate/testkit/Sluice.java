package io.sluicegate.testkit;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The real program: decision service and admin listener, and a gateway where the rules have one. */
public final class Sluice implements AutoCloseable {
    private static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private final Path folder;
    /** 0 where the caller says where it listens. */
    private final int decisions;
    private final int admin;
    private final int gateway;
    private Child child;

    /**
     * Starts it with these rules: everything but the listeners.
     *
     * @param gateway whether it shall proxy too
     */
    public Sluice(String rules, boolean gateway) {
        this(rules, gateway ? "" : null, Ports.free(), null);
    }

    /**
     * Starts it with these rules and a decision service of the caller's own settings.
     *
     * @param door the section {@code decisions}
     */
    public Sluice(String rules, String door) {
        this(rules, null, 0, door);
    }

    /**
     * Starts a gateway beside a pod, which it prefers.
     *
     * @param pod the pod's name
     */
    public static Sluice sidecar(String rules, String pod) {
        return new Sluice(rules, ", prefer: " + pod, Ports.free(), null);
    }

    /** {@code gateway}: what else its section says, or null for none. */
    private Sluice(String rules, String gateway, int decisions, String door) {
        this.decisions = decisions;
        this.admin = Ports.free();
        this.gateway = gateway != null ? Ports.free() : 0;
        try {
            folder = Files.createTempDirectory("sluicegate-java");
            String listeners = "decisions: " + (door != null ? door : "{http: \"127.0.0.1:" + decisions + "\"}")
                    + "\nadmin: {listen: \"127.0.0.1:" + admin + "\"}\n"
                    + (gateway != null ? "gateway: {listen: \"127.0.0.1:" + this.gateway + "\"" + gateway + "}\n" : "");
            Files.writeString(config(), rules + "\n" + listeners);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        start();
    }

    /** Starts it again, on the same ports. */
    public void start() {
        child = new Child(List.of(binary(), "run", "-c", config().toString()));
        child.line("the admin listener", line -> line.contains("admin listening") ? line : null);
        Wait.until("ready", () -> get("/readyz").statusCode() == 200);
    }

    /** As by kill -9. */
    public void kill() {
        child.kill();
    }

    /** It hangs: connections stay, and nothing is answered. */
    public void pause() {
        child.signal("STOP");
        // The signal is only sent: for a moment it may still answer.
        Wait.until("stopped", () -> {
            String stat = Files.readString(Path.of("/proc/" + child.pid() + "/stat"));
            return stat.substring(stat.lastIndexOf(')') + 2).startsWith("T");
        });
    }

    /** It wakes from {@link #pause()}. */
    public void goOn() {
        child.signal("CONT");
    }

    /** The base URL of the decision service. */
    public URI decisions() {
        return URI.create("http://127.0.0.1:" + decisions);
    }

    /** The base URL of the gateway. */
    public URI gateway() {
        return URI.create("http://127.0.0.1:" + gateway);
    }

    /** {@code GET /v1/state}, as text. */
    public String state() {
        return get("/v1/state").body();
    }

    /** Units of the whole pool in use. */
    public long inUse() {
        return pool("in_use");
    }

    /** How many asks wait. */
    public long waiting() {
        return pool("waiting");
    }

    /** Units so far that leases held to their end by time, unreturned. */
    public long abandoned() {
        return pool("abandoned_units");
    }

    /** Requests of all apis so far that came to this: {@code admitted}, {@code refused}, {@code cancelled}, {@code failed}. */
    public long count(String outcome) {
        return sum("sluicegate_requests_total", "outcome=\"" + outcome + "\"");
    }

    /** Runs that a pod's own lock refused, by what callers said. */
    public long podRefusals() {
        return sum("sluicegate_pod_refusals_total", "");
    }

    /** What it printed. */
    public String output() {
        return child.output();
    }

    /** For measurements. */
    public long pid() {
        return child.pid();
    }

    @Override
    public void close() {
        child.close();
        try {
            Files.deleteIfExists(config());
            Files.deleteIfExists(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** The program's path, given by the build. */
    public static String binary() {
        String path = System.getProperty("sluicegate.binary", "");
        if (!Files.isExecutable(Path.of(path))) {
            throw new AssertionError("no program at `" + path + "`: run `cargo build -p sluicegate-cli` first, or name one "
                    + "by -Dsluicegate.binary=PATH");
        }
        return path;
    }

    /** Of a metric's lines with this label. */
    private long sum(String metric, String label) {
        return get("/metrics").body().lines().filter(line -> line.startsWith(metric + "{") && line.contains(label))
                .mapToLong(line -> Long.parseLong(line.substring(line.lastIndexOf(' ') + 1))).sum();
    }

    private long pool(String name) {
        // The pool's own figures stand before those of its pods and apis.
        String state = state().replace(" ", "");
        Matcher found = Pattern.compile("\"" + name + "\":(\\d+)").matcher(state);
        if (!found.find()) {
            throw new AssertionError("no " + name + " in " + state);
        }
        return Long.parseLong(found.group(1));
    }

    private Path config() {
        return folder.resolve("sluicegate.yaml");
    }

    private HttpResponse<String> get(String path) {
        try {
            HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + admin + path)).build();
            return HTTP.send(request, HttpResponse.BodyHandlers.ofString());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new AssertionError("interrupted", e);
        }
    }
}
