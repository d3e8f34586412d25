package io.sluicegate.cloudgateway;

import static org.springframework.cloud.gateway.support.ServerWebExchangeUtils.CLIENT_RESPONSE_CONN_ATTR;
import static org.springframework.cloud.gateway.support.ServerWebExchangeUtils.CLIENT_RESPONSE_HEADER_NAMES;
import static org.springframework.cloud.gateway.support.ServerWebExchangeUtils.GATEWAY_REQUEST_URL_ATTR;
import static org.springframework.cloud.gateway.support.ServerWebExchangeUtils.GATEWAY_ROUTE_ATTR;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Ending;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateException;
import io.sluicegate.servlet.Problem;
import io.sluicegate.spring.ReactiveProblem;
import java.io.IOException;
import java.net.ConnectException;
import java.net.NoRouteToHostException;
import java.net.URI;
import java.net.UnknownHostException;
import java.nio.channels.NotYetConnectedException;
import java.util.HashSet;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.springframework.cloud.gateway.filter.GatewayFilterChain;
import org.springframework.cloud.gateway.filter.GlobalFilter;
import org.springframework.cloud.gateway.filter.ReactiveLoadBalancerClientFilter;
import org.springframework.cloud.gateway.route.Route;
import org.springframework.cloud.gateway.support.ServerWebExchangeUtils;
import org.springframework.core.Ordered;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatus;
import org.springframework.http.server.reactive.ServerHttpRequest;
import org.springframework.http.server.reactive.ServerHttpRequestDecorator;
import org.springframework.web.server.ResponseStatusException;
import org.springframework.web.server.ServerWebExchange;
import org.springframework.web.util.UriComponentsBuilder;
import reactor.core.publisher.Mono;
import reactor.netty.Connection;
import reactor.netty.http.server.HttpServerRequest;

/**
 * Asks for each request of a route whose {@code uri} begins with {@code sluicegate:}, after the route's own filters, and
 * sends it to the pod of its lease. A pod that did not take it up is given up for another. Without a decision
 * ({@code when-away: open}) the request goes where the rest of the {@code uri} says.
 *
 * <p>One lease is for one run: a {@code Retry} filter of the route makes this one ask again.
 */
public final class SluicegateGlobalFilter implements GlobalFilter, Ordered {
    /** Of a route: the api's name, in place of method and path. */
    private static final String API = "sluicegate-api";
    /** Ours alone: a client's own are dropped. */
    private static final String OUR_PREFIX = "x-sluicegate-";
    /** A pod's word for whoever asks, none of the client's business. */
    private static final String IN_USE = "x-sluicegate-in-use";
    private static final String SERVER_TIMING = "Server-Timing";
    /** Other pods tried after one that did not take the request up, as {@code gateway.retry.attempts}. */
    private static final int AGAIN_MAX = 2;

    SluicegateGlobalFilter() {}

    @Override
    public int getOrder() {
        // Where the route's url is known, and nobody has chosen an instance for it.
        return ReactiveLoadBalancerClientFilter.LOAD_BALANCER_CLIENT_FILTER_ORDER - 50;
    }

    @Override
    public Mono<Void> filter(ServerWebExchange exchange, GatewayFilterChain chain) {
        Stay stay = Stay.of(exchange.getAttributes());
        // A route that asks may have forwarded to one that does not: there is a stay, and it is not this route's.
        if (stay == null || !SluicegateStayFilter.asks(exchange.getRequiredAttribute(GATEWAY_ROUTE_ATTR))) {
            return chain.filter(exchange);
        }
        if (stay.isCut()) {
            return Mono.error(new IllegalStateException("a filter of this route gave up on a pod that works on, and sends "
                    + "the request again: such filters are not for routes that ask"));
        }
        // A `Retry` that repeats because of our own refusal: it is written, and nobody would get another answer.
        if (exchange.getResponse().isCommitted()) {
            return Mono.empty();
        }
        ServerWebExchange forPod = withoutOurs(exchange);
        return new Request(forPod, chain, stay, exchange.getRequiredAttribute(GATEWAY_REQUEST_URL_ATTR))
                .attempt(ask(forPod), AGAIN_MAX);
    }

    private static Ask ask(ServerWebExchange exchange) {
        Route route = exchange.getRequiredAttribute(GATEWAY_ROUTE_ATTR);
        if (route.getMetadata().get(API) instanceof String api) {
            return Ask.api(api);
        }
        String path = exchange.getRequest().getURI().getRawPath();
        return Ask.request(exchange.getRequest().getMethod().name(), path.isEmpty() ? "/" : path);
    }

    private static ServerWebExchange withoutOurs(ServerWebExchange exchange) {
        if (exchange.getRequest().getHeaders().keySet().stream().noneMatch(SluicegateGlobalFilter::isOurs)) {
            return exchange;
        }
        ServerHttpRequest request = exchange.getRequest().mutate()
                .headers(headers -> headers.keySet().removeIf(SluicegateGlobalFilter::isOurs)).build();
        return exchange.mutate().request(request).build();
    }

    private static boolean isOurs(String header) {
        return header.toLowerCase(Locale.ROOT).startsWith(OUR_PREFIX);
    }

    /** One request and its runs. */
    private static final class Request {
        private final ServerWebExchange exchange;
        private final GatewayFilterChain chain;
        private final Stay stay;
        /** Where the route sends it. */
        private final URI url;
        private long waitedNanos;

        private Request(ServerWebExchange exchange, GatewayFilterChain chain, Stay stay, URI url) {
            this.exchange = exchange;
            this.chain = chain;
            this.stay = stay;
            this.url = url;
        }

        /** {@code again}: how often it may be tried again. */
        private Mono<Void> attempt(Ask ask, int again) {
            return Mono.defer(() -> {
                long began = System.nanoTime();
                return stay.nextHold().ask(ask, exchange.getRequest())
                        .onErrorResume(SluicegateException.class, refused -> ReactiveProblem
                                .write(exchange.getResponse(), Problem.of(refused)).then(Mono.empty()))
                        .flatMap(lease -> {
                            waitedNanos += System.nanoTime() - began;
                            return stay.runBegins() ? run(lease, ask, again) : Mono.empty();
                        });
            });
        }

        private Mono<Void> run(Lease lease, Ask ask, int again) {
            boolean mayAgain = again > 0 && lease.origin() == Lease.Origin.SERVICE;
            exchange.getAttributes().put(GATEWAY_REQUEST_URL_ATTR, lease.url() == null ? url : at(URI.create(lease.url())));
            Mono<Optional<Ending>> ran = chain.filter(exchange).then(Mono.fromCallable(() -> head(mayAgain)))
                    .onErrorResume(error -> failed(error, mayAgain));
            // Cached, a cancel does not reach the pod: it works on, and this sees its end.
            return (stay.continues() ? ran.cache() : ran).doOnCancel(stay::runCut).flatMap(notTaken -> notTaken
                    .map(why -> Mono.fromFuture(stay.giveBack(why), true)
                            .flatMap(heard -> attempt(heard ? ask.after(lease.id()) : ask, again - 1)))
                    .orElseGet(Mono::empty));
        }

        /** The pod's url with path and query of the request. */
        private URI at(URI pod) {
            if (!pod.getScheme().startsWith("http")) {
                throw new IllegalStateException("a pod is at " + pod + ": this gateway sends to http: and https: only");
            }
            return UriComponentsBuilder.fromUri(url).scheme(pod.getScheme()).host(pod.getHost()).port(pod.getPort())
                    .build(ServerWebExchangeUtils.containsEncodedParts(url)).toUri();
        }

        /** The pod's head is there, and nothing of it was sent on. Answers why it is to be tried again, if it is. */
        private Optional<Ending> head(boolean mayAgain) {
            if (exchange.getResponse().isCommitted()) {
                committed();
                return Optional.empty();
            }
            boolean full = exchange.getResponse().getStatusCode() == HttpStatus.TOO_MANY_REQUESTS;
            if (full && mayAgain && !hasBody() && stay.runEnds()) {
                Connection pod = (Connection) exchange.getAttributes().remove(CLIENT_RESPONSE_CONN_ATTR);
                if (pod != null) {
                    pod.dispose();
                }
                ServerWebExchangeUtils.reset(exchange);
                return Optional.of(Ending.POD_FULL);
            }
            HttpHeaders headers = exchange.getResponse().getHeaders();
            headers.remove(IN_USE);
            headers.add(SERVER_TIMING, "admission;dur=" + TimeUnit.NANOSECONDS.toMillis(waitedNanos));
            // A `Retry` takes away what is named there.
            Set<String> names = new HashSet<>(exchange.getAttributeOrDefault(CLIENT_RESPONSE_HEADER_NAMES, Set.of()));
            names.add(SERVER_TIMING);
            exchange.getAttributes().put(CLIENT_RESPONSE_HEADER_NAMES, names);
            stay.headCame();
            return Optional.empty();
        }

        /** Mostly a WebSocket, which lasts as long as its client's connection: the exchange ends when it has begun. */
        private void committed() {
            ServerHttpRequest request = exchange.getRequest();
            if ("websocket".equalsIgnoreCase(request.getHeaders().getUpgrade())
                    && ServerHttpRequestDecorator.getNativeRequest(request) instanceof HttpServerRequest netty) {
                stay.socketOpened();
                netty.withConnection(client ->
                        client.channel().closeFuture().addListener(closed -> stay.podEnded()));
            } else {
                stay.headCame();
            }
        }

        /** What was sent of a body once is not there a second time. */
        private boolean hasBody() {
            HttpHeaders headers = exchange.getRequest().getHeaders();
            return headers.getContentLength() > 0 || headers.containsKey(HttpHeaders.TRANSFER_ENCODING);
        }

        private Mono<Optional<Ending>> failed(Throwable error, boolean mayAgain) {
            boolean late = error instanceof ResponseStatusException status
                    && status.getStatusCode() == HttpStatus.GATEWAY_TIMEOUT;
            if (late && stay.continues()) {
                // Before the run ends: from then on, a client that leaves gives back.
                stay.leave();
            }
            boolean isHere = stay.runEnds();
            if (isUnreachable(error) && mayAgain && isHere) {
                ServerWebExchangeUtils.reset(exchange);
                return Mono.just(Optional.of(Ending.NOT_STARTED));
            }
            // Nothing, if it was left.
            stay.giveBack(isUnreachable(error) ? Ending.UNREACHABLE : Ending.FAILED);
            if (!isHere) {
                return Mono.empty();
            }
            return Mono.error(error instanceof IOException || isUnreachable(error)
                    ? new ResponseStatusException(HttpStatus.BAD_GATEWAY, "The pod could not be reached, or broke off.", error)
                    : error);
        }

        /** It surely did not start there. */
        private static boolean isUnreachable(Throwable error) {
            return error instanceof ConnectException || error instanceof UnknownHostException
                    || error instanceof NoRouteToHostException || error instanceof NotYetConnectedException;
        }
    }
}
