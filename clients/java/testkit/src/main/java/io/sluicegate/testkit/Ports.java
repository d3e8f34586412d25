package io.sluicegate.testkit;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.util.concurrent.ThreadLocalRandom;

/** Ports for servers that must be told theirs, and keep it over a restart. */
public final class Ports {
    /** Below those that the kernel gives to outgoing connections: none of these takes it while its server is down. */
    private static final int FIRST = 10_000;
    private static final int COUNT = 20_000;

    private Ports() {}

    /** A port of loopback that nobody listens on now. */
    public static int free() {
        for (int i = 0; i < 1000; i++) {
            int port = FIRST + ThreadLocalRandom.current().nextInt(COUNT);
            try (ServerSocket probe = new ServerSocket()) {
                probe.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
                return port;
            } catch (IOException e) {
                Thread.onSpinWait();
            }
        }
        throw new AssertionError("none of a thousand ports is free");
    }
}
