package io.sluicegate.spring;

import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.binder.MeterBinder;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import org.springframework.beans.factory.ObjectProvider;

/** What the client holds and has lost. */
final class LeaseMeters implements MeterBinder {
    private final ObjectProvider<SluicegateClient> provider;

    LeaseMeters(ObjectProvider<SluicegateClient> provider) {
        this.provider = provider;
    }

    @Override
    public void bindTo(MeterRegistry registry) {
        SluicegateClient client = provider.getIfAvailable();
        if (client == null) {
            return;
        }
        Gauge.builder("sluicegate.leases.open", client, c -> c.stats().open())
                .description("Leases of the service held now").register(registry);
        Gauge.builder("sluicegate.leases.returning", client, c -> c.stats().returning())
                .description("Leases on their way back to the service").register(registry);
        Gauge.builder("sluicegate.service.up", client, c -> c.hasService() && !c.stats().away() ? 1 : 0)
                .description("1 while the service can be asked").register(registry);
        FunctionCounter.builder("sluicegate.leases.lost", client, c -> c.stats().lost())
                .description("Leases that the service forgot while their work went on").register(registry);
        FunctionCounter.builder("sluicegate.leases.late", client, c -> c.stats().late())
                .description("Grants that came after their caller gave up, and were given back").register(registry);
        LocalUnits units = client.local().orElse(null);
        if (units != null) {
            Gauge.builder("sluicegate.units.in.use", units, LocalUnits::inUse)
                    .description("The pod's own units in use").register(registry);
            Gauge.builder("sluicegate.units.capacity", units, LocalUnits::capacity)
                    .description("The pod's own units").register(registry);
        }
    }
}
