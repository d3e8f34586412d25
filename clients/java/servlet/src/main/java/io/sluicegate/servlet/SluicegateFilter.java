package io.sluicegate.servlet;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.client.SluicegateException;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Optional;

/**
 * Takes units before the handler, and gives them back when the answer is complete: after it returned or threw, at the
 * completion of asynchronous work (also by timeout, error or the client's leaving), at the end of a stream of events.
 *
 * <p>To be mapped for {@code REQUEST} and {@code ASYNC} dispatches, with asynchronous support. A request that waits for
 * room holds its thread while it waits, at most the ask's wait.
 *
 * <p>The pod's own units come back before the last byte of the answer, so that a gateway in front never finds the pod
 * late. An upgraded connection (WebSocket) holds units for its handshake only.
 */
public final class SluicegateFilter implements Filter {
    private final SluicegateClient client;
    private final AskResolver asks;

    /**
     * A filter.
     *
     * @param client asks; stays the caller's to close
     * @param asks what each request asks for
     */
    public SluicegateFilter(SluicegateClient client, AskResolver asks) {
        this.client = client;
        this.asks = asks;
    }

    @Override
    public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        if (!(request instanceof HttpServletRequest http && response instanceof HttpServletResponse answer)) {
            chain.doFilter(request, response);
            return;
        }
        if (http.getAttribute(Hold.ATTRIBUTE) instanceof Hold hold) {
            again(http, answer, hold, chain);
            return;
        }
        Optional<Ask> ask = http.getDispatcherType() == DispatcherType.REQUEST ? asks.resolve(http) : Optional.empty();
        if (ask.isEmpty()) {
            chain.doFilter(request, response);
            return;
        }
        Lease lease;
        try {
            lease = client.acquire(ask.get());
        } catch (SluicegateException refused) {
            refuse(answer, Problem.of(refused));
            return;
        } catch (InterruptedException e) {
            // The container goes down and wants its thread.
            Thread.currentThread().interrupt();
            answer.sendError(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
            return;
        }
        Hold hold = new Hold(lease);
        http.setAttribute(Hold.ATTRIBUTE, hold);
        proceed(http, answer, hold, chain);
    }

    /** A later dispatch of a request that holds its lease already, or an inner one of the same. */
    private static void again(HttpServletRequest request, HttpServletResponse response, Hold hold, FilterChain chain)
            throws IOException, ServletException {
        if (request.getDispatcherType() == DispatcherType.ASYNC) {
            proceed(request, response, hold, chain);
        } else {
            chain.doFilter(request, response);
        }
    }

    private static void proceed(HttpServletRequest request, HttpServletResponse response, Hold hold, FilterChain chain)
            throws IOException, ServletException {
        hold.dispatchBegins();
        boolean returned = false;
        try {
            // A dispatch may bring our own wrappers back; a second pair around them changes nothing.
            HeldResponse held = new HeldResponse(response, hold);
            chain.doFilter(new HeldRequest(request, held, hold), held);
            held.lookForErrors();
            returned = true;
        } finally {
            if (returned) {
                hold.dispatchEnded(request);
            } else {
                // Not every container completes what a handler began before it threw.
                hold.end();
            }
        }
    }

    private static void refuse(HttpServletResponse answer, Problem problem) throws IOException {
        byte[] body = problem.json().getBytes(StandardCharsets.UTF_8);
        answer.setStatus(problem.status());
        answer.setContentType(Problem.TYPE);
        answer.setContentLength(body.length);
        answer.setHeader(Problem.REASON, problem.reason());
        problem.retryAfter().ifPresent(seconds -> answer.setHeader("Retry-After", Long.toString(seconds)));
        problem.elsewhere().ifPresent(pod -> answer.setHeader(Problem.ELSEWHERE, pod));
        answer.getOutputStream().write(body);
    }
}
