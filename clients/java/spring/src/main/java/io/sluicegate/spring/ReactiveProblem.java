package io.sluicegate.spring;

import io.sluicegate.servlet.Problem;
import java.nio.charset.StandardCharsets;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatusCode;
import org.springframework.http.server.reactive.ServerHttpResponse;
import reactor.core.publisher.Mono;

/** Writes a refusal as the answer of a reactive server. */
public final class ReactiveProblem {
    private ReactiveProblem() {}

    /**
     * Writes it.
     *
     * @param response nothing of it was sent yet
     * @param problem what to answer
     * @return completes when it is written
     */
    public static Mono<Void> write(ServerHttpResponse response, Problem problem) {
        byte[] body = problem.json().getBytes(StandardCharsets.UTF_8);
        response.setStatusCode(HttpStatusCode.valueOf(problem.status()));
        HttpHeaders headers = response.getHeaders();
        headers.set(HttpHeaders.CONTENT_TYPE, Problem.TYPE);
        headers.setContentLength(body.length);
        headers.set(Problem.REASON, problem.reason());
        problem.retryAfter().ifPresent(seconds -> headers.set(HttpHeaders.RETRY_AFTER, Long.toString(seconds)));
        problem.elsewhere().ifPresent(pod -> headers.set(Problem.ELSEWHERE, pod));
        return response.writeWith(Mono.just(response.bufferFactory().wrap(body)));
    }
}
