package io.sluicegate.example;

import io.sluicegate.spring.Weight;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.Callable;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;

/** Three kinds of work: 1, 2 and 3 units. */
@RestController
public class ShopController {
    private final Gauge gauge;
    private final Duration work;

    ShopController(Gauge gauge, @Value("${shop.work}") Duration work) {
        this.gauge = gauge;
        this.work = work;
    }

    /** Weighs 1, the default. */
    @GetMapping("/quotes/{id}")
    String quote(@PathVariable String id) throws InterruptedException {
        return gauge.during(1, () -> done("quote " + id));
    }

    /** Weighs 2. */
    @Weight(2)
    @PostMapping("/orders")
    String order() throws InterruptedException {
        return gauge.during(2, () -> done("order"));
    }

    /** Weighs 3, and works on another thread: the units are held until the answer is complete all the same. */
    @Weight(3)
    @GetMapping("/reports/{id}")
    Callable<String> report(@PathVariable String id) {
        return () -> gauge.during(3, () -> done("report " + id));
    }

    /** What this pod really bore, by its own count. */
    @GetMapping("/gauge")
    Map<String, Integer> gauge() {
        return Map.of("in_use", gauge.inUse(), "peak", gauge.peak());
    }

    private String done(String what) throws InterruptedException {
        Thread.sleep(work.toMillis());
        return what;
    }
}
