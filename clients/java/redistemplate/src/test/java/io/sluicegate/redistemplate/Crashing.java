package io.sluicegate.redistemplate;

import io.sluicegate.client.Ask;
import io.sluicegate.client.SluicegateClient;
import java.net.URI;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;

/** Takes three units, and works until it is killed. Its lease is renewed, so only its death ends it. */
final class Crashing {
    private Crashing() {}

    public static void main(String[] args) throws InterruptedException {
        SluicegateClient client = SluicegateClient.of(URI.create(args[0])).pod("a").hold(Duration.ofSeconds(1)).build();
        client.acquire(Ask.request("POST", "/orders").weight(3));
        new CountDownLatch(1).await();
    }
}
