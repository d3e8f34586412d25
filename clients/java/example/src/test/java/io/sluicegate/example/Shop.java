package io.sluicegate.example;

import io.sluicegate.client.SluicegateClient;
import java.util.ArrayList;
import java.util.List;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.boot.web.context.WebServerApplicationContext;
import org.springframework.context.ConfigurableApplicationContext;

/** One pod: the real application on a port of its own. */
final class Shop implements AutoCloseable {
    private final ConfigurableApplicationContext context;

    /** Starts it with these settings beside those of application.yaml. */
    Shop(String... settings) {
        List<String> all = new ArrayList<>(List.of("--server.port=0", "--server.address=127.0.0.1",
                "--spring.main.banner-mode=off", "--logging.level.root=warn"));
        all.addAll(List.of(settings));
        context = new SpringApplicationBuilder(ShopApplication.class).logStartupInfo(false)
                .run(all.toArray(String[]::new));
    }

    int port() {
        return ((WebServerApplicationContext) context).getWebServer().getPort();
    }

    Gauge gauge() {
        return context.getBean(Gauge.class);
    }

    SluicegateClient client() {
        return context.getBean(SluicegateClient.class);
    }

    @Override
    public void close() {
        context.close();
    }
}
