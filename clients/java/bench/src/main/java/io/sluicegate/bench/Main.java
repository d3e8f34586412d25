package io.sluicegate.bench;

import java.nio.file.Path;

/** {@code Main overhead|roads COMMIT [PAGE]}: see the script beside this module. */
final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        String kind = args[0];
        Binary.check();
        Path page = args.length > 2 ? Path.of(args[2]) : null;
        boolean brief = System.getenv("SLUICEGATE_BENCH_BRIEF") != null;
        Section section = new Section((brief ? "SLUICEGATE_BENCH_BRIEF=1 " : "") + "clients/java/bench/run " + kind, args[1]);
        switch (kind) {
            case "overhead" -> Overhead.measure(section, brief ? 3 : 5, brief ? 1 : 2);
            case "roads" -> Roads.measure(section, 0.9, brief ? 8 : 25);
            default -> throw new IllegalArgumentException("overhead or roads, not " + kind);
        }
        section.end("java-" + kind, page);
        // Rivals leave threads that nobody can stop.
        System.exit(0);
    }
}
