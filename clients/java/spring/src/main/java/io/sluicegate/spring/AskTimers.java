package io.sluicegate.spring;

import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import io.sluicegate.client.ClientListener;
import java.util.EnumMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** {@code sluicegate.asks}: how long asks took, by outcome. */
final class AskTimers implements ClientListener {
    private final Map<Outcome, Timer> timers = new EnumMap<>(Outcome.class);

    AskTimers(MeterRegistry registry) {
        for (Outcome outcome : Outcome.values()) {
            timers.put(outcome, Timer.builder("sluicegate.asks").description("Time from an ask for units to its end")
                    .tag("outcome", outcome.name().toLowerCase(Locale.ROOT)).register(registry));
        }
    }

    @Override
    public void asked(Outcome outcome, long tookNanos) {
        timers.get(outcome).record(tookNanos, TimeUnit.NANOSECONDS);
    }
}
