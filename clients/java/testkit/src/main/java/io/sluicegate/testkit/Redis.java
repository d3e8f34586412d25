package io.sluicegate.testkit;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** A Redis server of a test's own. */
public final class Redis implements AutoCloseable {
    private final Path folder;
    private final Child child;
    private final int port = Ports.free();

    /** Starts one, empty and without persistence. */
    public Redis() {
        try {
            folder = Files.createTempDirectory("sluicegate-redis");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        child = new Child(List.of("redis-server", "--port", "" + port, "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--dir", folder.toString()));
        child.line("Redis is ready", line -> line.contains("Ready to accept connections") ? line : null);
    }

    /** Where it listens on loopback. */
    public int port() {
        return port;
    }

    @Override
    public void close() {
        child.close();
        try {
            Files.deleteIfExists(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
