package io.sluicegate.spring;

import io.sluicegate.client.Ask;
import io.sluicegate.servlet.AskResolver;
import jakarta.servlet.http.HttpServletRequest;
import java.util.Optional;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.http.server.PathContainer;
import org.springframework.http.server.RequestPath;
import org.springframework.web.servlet.HandlerExecutionChain;
import org.springframework.web.servlet.mvc.method.annotation.RequestMappingHandlerMapping;
import org.springframework.web.util.ServletRequestPathUtils;

/** Asks of Spring MVC requests. */
final class MvcAsks implements AskResolver {
    private final Asks asks;
    private final WeightedHandlers<RequestMappingHandlerMapping> handlers;

    MvcAsks(Asks asks, ObjectProvider<RequestMappingHandlerMapping> provider) {
        this.asks = asks;
        this.handlers = new WeightedHandlers<>(provider, mapping -> mapping.getHandlerMethods().values());
    }

    @Override
    public Optional<Ask> resolve(HttpServletRequest request) {
        RequestPath path = ServletRequestPathUtils.hasParsedRequestPath(request)
                ? ServletRequestPathUtils.getParsedRequestPath(request) : ServletRequestPathUtils.parseAndCache(request);
        PathContainer within = path.pathWithinApplication();
        if (asks.passes(within)) {
            return Optional.empty();
        }
        return Optional.of(Asks.of(request.getMethod(), request.getRequestURI(), weight(request)));
    }

    private Optional<Weight> weight(HttpServletRequest request) {
        RequestMappingHandlerMapping mapping = handlers.mapping();
        if (mapping == null) {
            return Optional.empty();
        }
        try {
            HandlerExecutionChain found = mapping.getHandler(request);
            return found == null ? Optional.empty() : Asks.weight(found.getHandler());
        } catch (Exception e) {
            // A method or media type that no handler takes: the dispatcher will say so, and it weighs nothing special.
            return Optional.empty();
        }
    }
}
