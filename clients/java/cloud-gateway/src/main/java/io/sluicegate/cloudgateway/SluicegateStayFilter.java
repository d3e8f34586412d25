package io.sluicegate.cloudgateway;

import io.sluicegate.client.SluicegateClient;
import java.util.Locale;
import org.springframework.cloud.gateway.filter.GatewayFilterChain;
import org.springframework.cloud.gateway.filter.GlobalFilter;
import org.springframework.cloud.gateway.route.Route;
import org.springframework.cloud.gateway.support.ServerWebExchangeUtils;
import org.springframework.core.Ordered;
import org.springframework.web.server.ServerWebExchange;
import reactor.core.publisher.Mono;

/**
 * The outermost filter: sees the end of each request, whatever ends it. {@link SluicegateGlobalFilter} cannot: its part of
 * the chain is through when the pod's head has come, and the body is written outside of it.
 */
public final class SluicegateStayFilter implements GlobalFilter, Ordered {
    /** Begins the {@code uri} of routes whose requests ask; where they go without Sluicegate follows. */
    private static final String SCHEME = "sluicegate";
    /** Of a route, in place of the property. */
    private static final String ON_DISCONNECT = "sluicegate-on-disconnect";

    private final SluicegateClient client;
    private final OnDisconnect onDisconnect;

    SluicegateStayFilter(SluicegateClient client, OnDisconnect onDisconnect) {
        this.client = client;
        this.onDisconnect = onDisconnect;
    }

    @Override
    public int getOrder() {
        return HIGHEST_PRECEDENCE;
    }

    @Override
    public Mono<Void> filter(ServerWebExchange exchange, GatewayFilterChain chain) {
        Route route = exchange.getRequiredAttribute(ServerWebExchangeUtils.GATEWAY_ROUTE_ATTR);
        if (!asks(route)) {
            return chain.filter(exchange);
        }
        return Mono.defer(() -> {
            Stay stay = new Stay(exchange.getAttributes(), client, of(route) == OnDisconnect.CONTINUES);
            stay.begins();
            HeldResponse response = new HeldResponse(exchange.getResponse(), stay);
            // A cancel is heard here before the gateway, as it winds up, hangs up on the pod.
            return chain.filter(exchange.mutate().response(response).build()).doOnCancel(stay::unread)
                    .doFinally(stay::over);
        });
    }

    /** True if its requests ask. */
    static boolean asks(Route route) {
        return SCHEME.equals(route.getUri().getScheme());
    }

    private OnDisconnect of(Route route) {
        Object own = route.getMetadata().get(ON_DISCONNECT);
        return own == null ? onDisconnect : OnDisconnect.valueOf(own.toString().toUpperCase(Locale.ROOT));
    }
}
