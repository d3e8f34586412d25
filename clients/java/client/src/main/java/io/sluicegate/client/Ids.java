package io.sluicegate.client;

import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.concurrent.atomic.AtomicLong;

/** Ids of asks, chosen here so that one can be withdrawn before its answer has come. No two clients draw the same. */
final class Ids {
    private final String prefix;
    private final AtomicLong next = new AtomicLong();

    Ids() {
        byte[] random = new byte[12];
        new SecureRandom().nextBytes(random);
        prefix = "j" + HexFormat.of().formatHex(random) + "-";
    }

    String next() {
        return prefix + Long.toString(next.getAndIncrement(), 36);
    }
}
