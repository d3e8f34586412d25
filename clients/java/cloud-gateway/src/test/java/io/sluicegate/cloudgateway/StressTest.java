package io.sluicegate.cloudgateway;
import io.sluicegate.cloudgateway.Load.Errand;
import org.junit.jupiter.api.Test;
class StressTest {
    @Test
    void refused() throws Exception {
        try (Ground ground = new Ground(OnDisconnect.STOPS, OnDisconnect.STOPS)) {
            ground.anew();
            for (int i = 0; i < 40; i++) {
                long t = System.nanoTime();
                Load load = ground.run(400, number -> Errand.whole("/now/?ms=20"));
                System.out.println(i + " " + load + " " + (System.nanoTime() - t) / 1000000 + " ms, client " + ground.gateway.stats() + " service " + ground.sluice.count("admitted")+" "+ ground.sluice.count("refused") + " " + ground.sluice.count("cancelled"));
            }
        }
    }
}
