package io.sluicegate.spring;

import java.util.Collection;
import java.util.function.Function;
import org.springframework.beans.factory.ObjectProvider;

/**
 * The handler mapping of either web stack, where some controller bears a {@link Weight}: nobody pays for a look that finds
 * nothing.
 *
 * @param <M> the stack's mapping
 */
final class WeightedHandlers<M> {
    private final ObjectProvider<M> provider;
    private final Function<M, ? extends Collection<?>> handlers;
    private volatile M weighted;
    private volatile boolean looked;

    WeightedHandlers(ObjectProvider<M> provider, Function<M, ? extends Collection<?>> handlers) {
        this.provider = provider;
        this.handlers = handlers;
    }

    /** Null where nothing bears a weight. */
    M mapping() {
        // At the first request, because handlers are complete only when the context is.
        if (!looked) {
            M mapping = provider.getIfAvailable();
            boolean any = mapping != null && handlers.apply(mapping).stream()
                    .anyMatch(handler -> Asks.weight(handler).isPresent());
            weighted = any ? mapping : null;
            looked = true;
        }
        return weighted;
    }
}
