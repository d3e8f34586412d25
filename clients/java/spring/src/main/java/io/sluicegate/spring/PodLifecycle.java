package io.sluicegate.spring;

import io.sluicegate.client.PodRegistration;
import io.sluicegate.client.SluicegateClient;
import java.net.InetAddress;
import java.net.URI;
import java.net.UnknownHostException;
import org.springframework.boot.web.context.WebServerApplicationContext;
import org.springframework.context.SmartLifecycle;

/**
 * Registers the pod once its server listens, and drains it before the server stops: the last phase to start and the
 * first to stop.
 */
final class PodLifecycle implements SmartLifecycle {
    private final SluicegateClient client;
    private final SluicegateProperties.Pod pod;
    private final WebServerApplicationContext server;
    private volatile PodRegistration registration;

    PodLifecycle(SluicegateClient client, SluicegateProperties.Pod pod, WebServerApplicationContext server) {
        if (pod.getName() == null || pod.getCapacity() == null) {
            throw new IllegalStateException("sluicegate.pod.register needs sluicegate.pod.name and sluicegate.pod.capacity");
        }
        this.client = client;
        this.pod = pod;
        this.server = server;
    }

    @Override
    public void start() {
        URI url = pod.getUrl() != null ? pod.getUrl() : here();
        registration = client.register(pod.getName(), url, pod.getCapacity(), pod.getTtl());
    }

    @Override
    public void stop() {
        PodRegistration open = registration;
        registration = null;
        if (open != null) {
            open.close();
        }
    }

    @Override
    public boolean isRunning() {
        return registration != null;
    }

    @Override
    public int getPhase() {
        return SmartLifecycle.DEFAULT_PHASE;
    }

    private URI here() {
        try {
            String host = InetAddress.getLocalHost().getHostAddress();
            return URI.create("http://" + host + ":" + server.getWebServer().getPort());
        } catch (UnknownHostException e) {
            throw new IllegalStateException("this host has no address: set sluicegate.pod.url", e);
        }
    }
}
