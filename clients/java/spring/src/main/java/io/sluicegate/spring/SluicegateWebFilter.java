package io.sluicegate.spring;

import io.sluicegate.client.Ask;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.SluicegateException;
import io.sluicegate.servlet.Problem;
import java.util.Optional;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.core.Ordered;
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
            ReactiveHold hold = new ReactiveHold(client);
            ServerHttpResponse response = exchange.getResponse();
            return hold.ask(ask, exchange.getRequest())
                    .onErrorResume(SluicegateException.class,
                            refused -> ReactiveProblem.write(response, Problem.of(refused)).then(Mono.empty()))
                    .flatMap(lease -> chain.filter(
                            exchange.mutate().response(new HeldHttpResponse(response, hold)).build()))
                    .doFinally(signal -> hold.end());
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
}
