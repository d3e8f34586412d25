package io.sluicegate.client;

import java.io.IOException;
import java.net.ConnectException;
import java.net.SocketTimeoutException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Future;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;

/**
 * The calls of the decision service over kept connections. Knows no policy.
 *
 * <p>The JDK's HTTP client hands a call through several threads, which cost more than the service's whole answer. So calls
 * that block do so in the connection itself ({@link Connections}), the others share one thread ({@link Loop}), and the JDK's
 * client is left for those that shall not block and have TLS.
 *
 * <p>A call fails with a {@link ConnectException} if nothing was sent, with a {@link SocketTimeoutException} if the
 * deadline passed, and with another {@link IOException} if the connection broke or no answer of ours came.
 */
final class Transport {
    private final URI base;
    private final String token;
    private final Target target;
    private final Connections connections;
    /** Made by the first call that needs it: most applications do without one of the two. */
    private final Lazy<Loop> loop;
    private final Lazy<HttpClient> http;
    private volatile boolean closed;

    /** {@code tls} may be null: the JDK's own. */
    Transport(URI base, String token, SSLContext tls, Duration connectTimeout) {
        this.base = base;
        this.token = token;
        this.target = new Target(base, token);
        SSLSocketFactory sockets = null;
        if (target.tls()) {
            sockets = tls != null ? tls.getSocketFactory() : (SSLSocketFactory) SSLSocketFactory.getDefault();
        }
        this.connections = new Connections(target, sockets, connectTimeout);
        this.loop = new Lazy<>(() -> new Loop(target, connectTimeout));
        this.http = new Lazy<>(() -> httpClient(tls, connectTimeout));
    }

    /** Blocks for the answer. */
    Answer call(String method, String path, String body, Duration deadline) throws IOException, InterruptedException {
        return connections.call(target.call(method, path, body), deadline);
    }

    /** Blocks nobody. Cancelling it tells the service that the caller left. */
    CompletableFuture<Answer> send(String method, String path, String body, Duration deadline) {
        return target.tls() ? overHttpClient(method, path, body, deadline)
                : loop().call(target.call(method, path, body), deadline);
    }

    void close() {
        closed = true;
        connections.close();
        Loop made = loop.made();
        if (made != null) {
            made.close();
        }
    }

    private Loop loop() {
        Loop made = loop.get();
        // Whoever closes after this sees that it was made.
        if (closed) {
            made.close();
        }
        return made;
    }

    private CompletableFuture<Answer> overHttpClient(String method, String path, String body, Duration deadline) {
        CompletableFuture<HttpResponse<String>> call =
                http.get().sendAsync(request(method, path, body), HttpResponse.BodyHandlers.ofString());
        CompletableFuture<Answer> answer = new CompletableFuture<>();
        Future<?> alarm = Alarms.after(deadline,
                () -> answer.completeExceptionally(new SocketTimeoutException("no answer in time")));
        call.whenComplete((response, error) -> {
            if (error == null) {
                answer.complete(new Answer(response.statusCode(),
                        response.headers().firstValue("Retry-After").orElse(null), response.body(), true));
            } else {
                answer.completeExceptionally(failure(error instanceof CompletionException ? error.getCause() : error));
            }
        });
        answer.whenComplete((done, error) -> {
            alarm.cancel(false);
            call.cancel(true);
        });
        return answer;
    }

    private static Throwable failure(Throwable error) {
        if (error instanceof HttpConnectTimeoutException timeout) {
            ConnectException failure = new ConnectException(timeout.getMessage());
            failure.initCause(timeout);
            return failure;
        }
        if (error instanceof HttpTimeoutException timeout) {
            return new SocketTimeoutException(timeout.getMessage());
        }
        return error;
    }

    private static HttpClient httpClient(SSLContext tls, Duration connectTimeout) {
        HttpClient.Builder builder =
                HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(connectTimeout);
        return (tls == null ? builder : builder.sslContext(tls)).build();
    }

    private HttpRequest request(String method, String path, String body) {
        String text = base.toString();
        String root = text.endsWith("/") ? text.substring(0, text.length() - 1) : text;
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(root + path));
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
