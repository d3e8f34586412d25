package io.sluicegate.spring;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.time.Duration;
import java.util.Optional;
import org.springframework.http.HttpRequest;
import org.springframework.http.client.ClientHttpRequestExecution;
import org.springframework.http.client.ClientHttpRequestInterceptor;
import org.springframework.http.client.ClientHttpResponse;

/** Honours {@code Retry-After} in calls of a RestClient or RestTemplate; the calling thread waits. */
public final class RetryAfterInterceptor implements ClientHttpRequestInterceptor {
    private final RetryAfter rules;

    /**
     * An interceptor.
     *
     * @param rules its bounds
     */
    public RetryAfterInterceptor(RetryAfter rules) {
        this.rules = rules;
    }

    @Override
    public ClientHttpResponse intercept(HttpRequest request, byte[] body, ClientHttpRequestExecution execution)
            throws IOException {
        for (int made = 1;; made++) {
            ClientHttpResponse answer = execution.execute(request, body);
            Optional<Duration> pause = rules.pause(made, request.getMethod(), answer.getStatusCode().value(),
                    answer.getHeaders());
            if (pause.isEmpty()) {
                return answer;
            }
            // Else its connection is not free for the next call.
            answer.close();
            try {
                Thread.sleep(pause.get().toMillis());
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new InterruptedIOException("interrupted while waiting to call again");
            }
        }
    }
}
