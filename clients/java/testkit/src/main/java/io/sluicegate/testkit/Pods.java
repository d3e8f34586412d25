package io.sluicegate.testkit;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;

/** Sample pods of the real program, which count what they bear and say so. They weigh requests by the rules. */
public final class Pods implements AutoCloseable {
    private final Path folder;
    private final List<Integer> ports;
    private final List<Child> children = new ArrayList<>();
    private final String rules;

    /**
     * Starts them.
     *
     * @param count how many: named {@code a}, {@code b}, ...
     * @param pod what the rules say of each beside name and url
     * @param rules the rest of the rules, without listeners
     * @param options of {@code sluicegate pod}; with {@code --count-only} they never refuse, so that an overshoot shows
     */
    public Pods(int count, String pod, String rules, String... options) {
        ports = IntStream.range(0, count).mapToObj(i -> Ports.free()).toList();
        StringBuilder text = new StringBuilder("pool: shop\npods:\n");
        for (int i = 0; i < count; i++) {
            text.append("  - {name: ").append(name(i)).append(", url: \"http://127.0.0.1:").append(ports.get(i))
                    .append("\", ").append(pod).append("}\n");
        }
        this.rules = text.append(rules).append('\n').toString();
        try {
            folder = Files.createTempDirectory("sluicegate-pods");
            Files.writeString(config(), this.rules);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        for (int i = 0; i < count; i++) {
            List<String> command = new ArrayList<>(
                    List.of(Sluice.binary(), "pod", "-c", config().toString(), "--name", name(i)));
            command.addAll(List.of(options));
            children.add(new Child(command));
        }
        children.forEach(child -> child.line("a pod", line -> line.contains("listening") ? line : null));
    }

    /** For a service over these pods. */
    public String rules() {
        return rules;
    }

    /** Where a pod listens on loopback. */
    public int port(int pod) {
        return ports.get(pod);
    }

    /** As by kill -9. */
    public void kill(int pod) {
        children.get(pod).kill();
    }

    /** Units in use on all of them, by their own word. */
    public long inUse() {
        return gauges("in_use").stream().mapToLong(Long::longValue).sum();
    }

    /** The most units that were ever in use at once, on each. */
    public List<Long> peaks() {
        return gauges("peak");
    }

    /** Requests that all of them answered to the end. */
    public long served() {
        return gauges("served").stream().mapToLong(Long::longValue).sum();
    }

    /** Forgets peaks and counts. */
    public void reset() {
        ports.forEach(port -> call(port, "POST", "/gauge/reset"));
    }

    @Override
    public void close() {
        children.forEach(Child::close);
        try {
            Files.deleteIfExists(config());
            Files.deleteIfExists(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private List<Long> gauges(String name) {
        Pattern number = Pattern.compile("\"" + name + "\":(\\d+)");
        return ports.stream().map(port -> {
            String gauge = call(port, "GET", "/gauge");
            Matcher found = number.matcher(gauge);
            if (!found.find()) {
                throw new AssertionError("no " + name + " in " + gauge);
            }
            return Long.parseLong(found.group(1));
        }).toList();
    }

    private static String call(int port, String method, String path) {
        try (RawClient client = new RawClient(port)) {
            return client.call(method, path).body();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private Path config() {
        return folder.resolve("sluicegate.yaml");
    }

    private static String name(int pod) {
        return String.valueOf((char) ('a' + pod));
    }
}
