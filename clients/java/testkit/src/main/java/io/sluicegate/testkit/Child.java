package io.sluicegate.testkit;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** A child process that dies with its test, and the lines it printed. */
public final class Child implements AutoCloseable {
    private final Process process;
    private final Thread reader;
    private final List<String> lines = new ArrayList<>();

    /** Starts a command; its output is kept for {@link #line} and for failures. */
    public Child(List<String> command) {
        try {
            process = new ProcessBuilder(command).redirectErrorStream(true).start();
        } catch (IOException e) {
            throw new AssertionError("cannot start " + command, e);
        }
        reader = new Thread(this::read, "child-output");
        reader.setDaemon(true);
        reader.start();
        // A test run that is stopped must leave no servers behind.
        Runtime.getRuntime().addShutdownHook(new Thread(process::destroyForcibly));
    }

    /** The first line that yields something. */
    public <T> T line(String what, Function<String, T> found) {
        Object[] hit = new Object[1];
        Wait.until(what, () -> {
            synchronized (lines) {
                for (String line : lines) {
                    hit[0] = found.apply(line);
                    if (hit[0] != null) {
                        return true;
                    }
                }
            }
            if (!process.isAlive()) {
                throw new AssertionError("ended with " + process.exitValue() + " before: " + what + "\n" + output());
            }
            return false;
        });
        @SuppressWarnings("unchecked")
        T value = (T) hit[0];
        return value;
    }

    /** All it printed. */
    public String output() {
        synchronized (lines) {
            return String.join("\n", lines);
        }
    }

    /** For measurements. */
    public long pid() {
        return process.pid();
    }

    /** Sends it a signal, by its name. */
    public void signal(String name) {
        try {
            new ProcessBuilder("kill", "-" + name, "" + process.pid()).inheritIO().start().waitFor();
        } catch (IOException | InterruptedException e) {
            throw new AssertionError("cannot signal", e);
        }
    }

    /** As by kill -9. */
    public void kill() {
        process.destroyForcibly();
        await();
    }

    /** Waits for its own end, and for all it printed; answers its status. */
    public int end() {
        await();
        try {
            reader.join();
        } catch (InterruptedException e) {
            throw new AssertionError("interrupted", e);
        }
        return process.exitValue();
    }

    /** Tells it to end, and waits. */
    public void stop() {
        process.destroy();
        await();
    }

    @Override
    public void close() {
        kill();
    }

    private void await() {
        try {
            if (!process.waitFor(Wait.LONGEST.toSeconds(), TimeUnit.SECONDS)) {
                throw new AssertionError("did not end: " + process.info());
            }
        } catch (InterruptedException e) {
            throw new AssertionError("interrupted", e);
        }
    }

    private void read() {
        try (BufferedReader reader =
                new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
            for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                synchronized (lines) {
                    lines.add(line);
                }
            }
        } catch (IOException e) {
            synchronized (lines) {
                lines.add("(output cut: " + e + ")");
            }
        }
    }
}
