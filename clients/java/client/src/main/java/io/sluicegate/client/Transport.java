package io.sluicegate.client;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;

/** The calls of the decision service over kept connections. Knows no policy. */
final class Transport {
    private final HttpClient http;
    private final String base;
    private final String token;

    Transport(HttpClient http, URI base, String token) {
        this.http = http;
        String text = base.toString();
        this.base = text.endsWith("/") ? text.substring(0, text.length() - 1) : text;
        this.token = token;
    }

    CompletableFuture<HttpResponse<String>> ask(String body, Duration deadline) {
        return send("POST", "/v1/leases", body, deadline);
    }

    CompletableFuture<HttpResponse<String>> renew(String id, String body, Duration deadline) {
        return send("PUT", "/v1/leases/" + id, body, deadline);
    }

    /** The calls that threads of the client make, one after another. */
    HttpResponse<String> call(String method, String path, String body, Duration deadline)
            throws IOException, InterruptedException {
        return http.send(request(method, path, body, deadline), HttpResponse.BodyHandlers.ofString());
    }

    private CompletableFuture<HttpResponse<String>> send(String method, String path, String body, Duration deadline) {
        return http.sendAsync(request(method, path, body, deadline), HttpResponse.BodyHandlers.ofString());
    }

    private HttpRequest request(String method, String path, String body, Duration deadline) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(base + path)).timeout(deadline);
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        if (body == null) {
            return request.method(method, HttpRequest.BodyPublishers.noBody()).build();
        }
        request.header("Content-Type", "application/json");
        return request.method(method, HttpRequest.BodyPublishers.ofString(body)).build();
    }
}
