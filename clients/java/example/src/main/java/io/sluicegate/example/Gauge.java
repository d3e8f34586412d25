package io.sluicegate.example;

import java.util.concurrent.atomic.AtomicInteger;
import org.springframework.stereotype.Component;

/** Counts the units in handlers. It knows nothing of Sluicegate, so that it is evidence. */
@Component
public class Gauge {
    private final AtomicInteger inUse = new AtomicInteger();
    private final AtomicInteger peak = new AtomicInteger();

    /** Work that is counted. */
    interface Work {
        String run() throws InterruptedException;
    }

    String during(int units, Work work) throws InterruptedException {
        peak.accumulateAndGet(inUse.addAndGet(units), Math::max);
        try {
            return work.run();
        } finally {
            inUse.addAndGet(-units);
        }
    }

    int inUse() {
        return inUse.get();
    }

    int peak() {
        return peak.get();
    }
}
