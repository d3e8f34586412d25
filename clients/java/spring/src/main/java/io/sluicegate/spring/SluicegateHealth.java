package io.sluicegate.spring;

import io.sluicegate.client.ClientStats;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.WhenAway;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.actuate.health.Health;
import org.springframework.boot.actuate.health.HealthIndicator;

/**
 * Up while the pod can admit requests: also with the service away, where the policy lets it go on. A pod that was
 * taken out of the balancer for that would make an outage of the service one of the application.
 */
final class SluicegateHealth implements HealthIndicator {
    private final ObjectProvider<SluicegateClient> provider;

    SluicegateHealth(ObjectProvider<SluicegateClient> provider) {
        this.provider = provider;
    }

    @Override
    public Health health() {
        SluicegateClient client = provider.getIfAvailable();
        if (client == null) {
            return Health.unknown().withDetail("enabled", false).build();
        }
        ClientStats stats = client.stats();
        boolean shut = stats.away() && client.whenAway() == WhenAway.CLOSED;
        Health.Builder health = shut ? Health.outOfService() : Health.up();
        health.withDetail("service", !client.hasService() ? "none" : stats.away() ? "away" : "up")
                .withDetail("whenAway", client.whenAway()).withDetail("leases", stats.open())
                .withDetail("lost", stats.lost());
        client.local().ifPresent(units -> health.withDetail("units", units.inUse() + " of " + units.capacity()));
        client.pod().ifPresent(pod -> health.withDetail("pod", pod));
        return health.build();
    }
}
