package io.sluicegate.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** A part of BENCHMARKS.md, between its marks. */
final class Section {
    private static final String END = "<!-- /bench -->";

    private final List<String> lines = new ArrayList<>();

    /** Which machine, how busy, which commit: read before the measurement. */
    Section(String command, String commit) throws IOException {
        String model = Files.readAllLines(Path.of("/proc/cpuinfo")).stream().filter(line -> line.startsWith("model name"))
                .findFirst().map(line -> line.split(":")[1].trim()).orElse("unknown");
        String load = Files.readString(Path.of("/proc/loadavg")).split(" ")[0];
        lines.add("`" + command + "` · " + Runtime.getRuntime().availableProcessors() + " × " + model + ", load average "
                + load + " before, Java " + System.getProperty("java.version") + ", commit " + commit);
    }

    void table(String... columns) {
        lines.add("");
        lines.add("| " + String.join(" | ", columns) + " |");
        lines.add("|" + "---|".repeat(columns.length));
    }

    void row(Object... cells) {
        String row = "| " + String.join(" | ", Arrays.stream(cells).map(String::valueOf).toList()) + " |";
        System.err.println(row);
        lines.add(row);
    }

    void note(String text) {
        lines.add("");
        lines.add(text);
    }

    void end(String name, Path page) throws IOException {
        String text = String.join("\n", lines) + "\n";
        System.out.println(text);
        if (page == null) {
            return;
        }
        String old = Files.readString(page);
        String mark = "<!-- bench:" + name + " -->";
        int from = old.indexOf(mark);
        int to = from < 0 ? -1 : old.indexOf(END, from);
        if (to < 0) {
            throw new IllegalStateException(page + ": no `" + mark + "` with an `" + END + "` after it");
        }
        Files.writeString(page, old.substring(0, from) + mark + "\n" + text + old.substring(to));
    }

    static double median(List<Double> values) {
        double[] sorted = values.stream().mapToDouble(Double::doubleValue).sorted().toArray();
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    /** The median, and the least and the greatest. */
    static String spread(List<Double> values, String format) {
        double least = values.stream().min(Double::compare).orElseThrow();
        double most = values.stream().max(Double::compare).orElseThrow();
        return String.format(Locale.ROOT, format + " (" + format + " - " + format + ")", median(values), least, most);
    }
}
