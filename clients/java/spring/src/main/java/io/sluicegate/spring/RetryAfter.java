package io.sluicegate.spring;

import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpMethod;

/**
 * When a call that was answered 429 or 503 is worth another.
 *
 * <p>A 429 was surely not executed, so any method may be sent again. A 503 only where a Sluicegate refused it
 * ({@code x-sluicegate-reason}) or its method is idempotent. The wait is what {@code Retry-After} says, and up to half of
 * it more, drawn at random: callers that were refused together must not come back together.
 *
 * @param attempts calls in all, the first included
 * @param longest the longest wait before one of them; a service that asks for more is not called again
 */
public record RetryAfter(int attempts, Duration longest) {
    /**
     * Checks the bounds.
     *
     * @param attempts 1 or more
     * @param longest not negative
     */
    public RetryAfter {
        if (attempts < 1 || longest.isNegative()) {
            throw new IllegalArgumentException("1 attempt or more, and a wait that is not negative");
        }
    }

    static RetryAfter of(SluicegateProperties.Retry retry) {
        return new RetryAfter(retry.getAttempts(), retry.getLongest());
    }

    /** How long to wait before another call, or nothing. {@code made}: calls made so far. */
    Optional<Duration> pause(int made, HttpMethod method, int status, HttpHeaders headers) {
        boolean refused = status == 429
                || status == 503 && (headers.containsKey("x-sluicegate-reason") || isIdempotent(method));
        String after = headers.getFirst(HttpHeaders.RETRY_AFTER);
        // A date there is rare, and clocks differ: not honoured, so not waited for.
        if (!refused || made >= attempts || after == null || !after.matches("[0-9]{1,9}")) {
            return Optional.empty();
        }
        Duration asked = Duration.ofSeconds(Long.parseLong(after));
        if (asked.compareTo(longest) > 0) {
            return Optional.empty();
        }
        long spread = asked.toMillis() / 2;
        return Optional.of(asked.plusMillis(spread == 0 ? 0 : ThreadLocalRandom.current().nextLong(spread + 1)));
    }

    private static boolean isIdempotent(HttpMethod method) {
        return method == HttpMethod.GET || method == HttpMethod.HEAD || method == HttpMethod.PUT
                || method == HttpMethod.DELETE || method == HttpMethod.OPTIONS;
    }
}
