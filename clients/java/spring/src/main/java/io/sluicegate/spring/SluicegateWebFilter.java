package io.sluicegate.spring;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.SluicegateException;
import io.sluicegate.servlet.Problem;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.core.Ordered;
import org.springframework.core.io.buffer.DataBuffer;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatusCode;
import org.springframework.http.server.reactive.ServerHttpRequest;
import org.springframework.http.server.reactive.ServerHttpResponse;
import org.springframework.web.reactive.result.method.annotation.RequestMappingHandlerMapping;
import org.springframework.web.server.ServerWebExchange;
import org.springframework.web.server.WebFilter;
import org.springframework.web.server.WebFilterChain;
import reactor.core.publisher.Mono;

/**
 * Takes units before a WebFlux handler, and gives them back when the answer is complete, failed or cancelled. Waits
 * without a thread; a client that leaves while it waits withdraws the ask.
 */
public final class SluicegateWebFilter implements WebFilter, Ordered {
    private final SluicegateClient client;
    private final Asks asks;
    private final WeightedHandlers<RequestMappingHandlerMapping> handlers;
    private final int order;

    SluicegateWebFilter(SluicegateClient client, Asks asks, ObjectProvider<RequestMappingHandlerMapping> provider,
            int order) {
        this.client = client;
        this.asks = asks;
        this.handlers = new WeightedHandlers<>(provider, mapping -> mapping.getHandlerMethods().values());
        this.order = order;
    }

    @Override
    public int getOrder() {
        return order;
    }

    @Override
    public Mono<Void> filter(ServerWebExchange exchange, WebFilterChain chain) {
        ServerHttpRequest request = exchange.getRequest();
        if (asks.passes(request.getPath().pathWithinApplication())) {
            return chain.filter(exchange);
        }
        return weight(exchange).flatMap(weight -> {
            String path = request.getURI().getRawPath();
            return held(Asks.of(request.getMethod().name(), path.isEmpty() ? "/" : path, weight), exchange, chain);
        });
    }

    private Mono<Void> held(Ask ask, ServerWebExchange exchange, WebFilterChain chain) {
        return Mono.defer(() -> {
            ReactiveHold hold = new ReactiveHold();
            CompletableFuture<Lease> asked = client.acquireAsync(ask);
            CompletableFuture<Optional<SluicegateException>> settled = asked.handle((lease, error) -> {
                if (error == null) {
                    hold.put(lease);
                    return Optional.empty();
                }
                if (error instanceof SluicegateException refused) {
                    return Optional.of(refused);
                }
                throw new IllegalStateException(error);
            });
            // The hold, not the subscription, owns the lease: a grant that meets a cancel is given back by it.
            return Mono.fromFuture(settled, true).flatMap(refused -> {
                if (refused.isPresent()) {
                    return refuse(exchange.getResponse(), Problem.of(refused.get()));
                }
                HeldHttpResponse response = new HeldHttpResponse(exchange.getResponse(), hold);
                return chain.filter(exchange.mutate().response(response).build());
            }).doFinally(signal -> {
                hold.end();
                asked.cancel(true);
            });
        });
    }

    private Mono<Optional<Weight>> weight(ServerWebExchange exchange) {
        RequestMappingHandlerMapping mapping = handlers.mapping();
        if (mapping == null) {
            return Mono.just(Optional.empty());
        }
        // What no handler takes the dispatcher will refuse; it weighs nothing special.
        return mapping.getHandler(exchange).map(Asks::weight).onErrorReturn(Optional.empty())
                .defaultIfEmpty(Optional.empty());
    }

    private static Mono<Void> refuse(ServerHttpResponse response, Problem problem) {
        byte[] body = problem.json().getBytes(StandardCharsets.UTF_8);
        response.setStatusCode(HttpStatusCode.valueOf(problem.status()));
        HttpHeaders headers = response.getHeaders();
        headers.set(HttpHeaders.CONTENT_TYPE, Problem.TYPE);
        headers.setContentLength(body.length);
        headers.set(Problem.REASON, problem.reason());
        problem.retryAfter().ifPresent(seconds -> headers.set(HttpHeaders.RETRY_AFTER, Long.toString(seconds)));
        problem.elsewhere().ifPresent(pod -> headers.set(Problem.ELSEWHERE, pod));
        DataBuffer buffer = response.bufferFactory().wrap(body);
        return response.writeWith(Mono.just(buffer));
    }
}
