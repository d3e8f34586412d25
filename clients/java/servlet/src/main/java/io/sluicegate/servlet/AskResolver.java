package io.sluicegate.servlet;

import io.sluicegate.client.Ask;
import jakarta.servlet.http.HttpServletRequest;
import java.util.Optional;

/** What a request asks for. */
@FunctionalInterface
public interface AskResolver {
    /** Method and path, for the service's configuration to find the api. */
    AskResolver BY_PATH = request -> Optional.of(Ask.request(request.getMethod(), request.getRequestURI()));

    /**
     * The ask of a request.
     *
     * @param request before any handler saw it
     * @return nothing to let it pass without units
     */
    Optional<Ask> resolve(HttpServletRequest request);
}
