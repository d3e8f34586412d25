package io.sluicegate.example;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** A pod of a shop. Its weights are annotations; everything else is in {@code application.yaml}. */
@SpringBootApplication
public class ShopApplication {
    /** Starts a pod. */
    public static void main(String[] args) {
        SpringApplication.run(ShopApplication.class, args);
    }
}
