package io.sluicegate.spring;

import java.time.Duration;
import java.util.Optional;
import org.springframework.web.reactive.function.client.ClientRequest;
import org.springframework.web.reactive.function.client.ClientResponse;
import org.springframework.web.reactive.function.client.ExchangeFilterFunction;
import org.springframework.web.reactive.function.client.ExchangeFunction;
import reactor.core.publisher.Mono;

/** Honours {@code Retry-After} in calls of a WebClient, without a thread that waits. Bodies must be repeatable. */
public final class RetryAfterFunction implements ExchangeFilterFunction {
    private final RetryAfter rules;

    /**
     * A function.
     *
     * @param rules its bounds
     */
    public RetryAfterFunction(RetryAfter rules) {
        this.rules = rules;
    }

    @Override
    public Mono<ClientResponse> filter(ClientRequest request, ExchangeFunction next) {
        return call(request, next, 1);
    }

    private Mono<ClientResponse> call(ClientRequest request, ExchangeFunction next, int made) {
        return next.exchange(request).flatMap(answer -> {
            Optional<Duration> pause = rules.pause(made, request.method(), answer.statusCode().value(),
                    answer.headers().asHttpHeaders());
            if (pause.isEmpty()) {
                return Mono.just(answer);
            }
            return answer.releaseBody().then(Mono.delay(pause.get()))
                    .then(Mono.defer(() -> call(request, next, made + 1)));
        });
    }
}
