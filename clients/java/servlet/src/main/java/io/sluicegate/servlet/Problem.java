package io.sluicegate.servlet;

import io.sluicegate.client.RefusedException;
import io.sluicegate.client.SluicegateException;
import java.time.Duration;
import java.util.Optional;

/**
 * The answer for a request that got no units, as {@code application/problem+json} (RFC 9457): for any way to write it.
 *
 * @param status 429 or 503
 * @param reason one word, sent as {@code x-sluicegate-reason} too
 * @param detail for people
 * @param retryAfter whole seconds, or nothing for never
 * @param elsewhere a pod with room, sent as {@code x-sluicegate-elsewhere} too
 */
public record Problem(int status, String reason, String detail, Optional<Long> retryAfter, Optional<String> elsewhere) {
    /** The media type of {@link #json()}. */
    public static final String TYPE = "application/problem+json";
    /** Names the reason. */
    public static final String REASON = "x-sluicegate-reason";
    /** Names a pod that has room while the one asked has none: for the balancer in front. */
    public static final String ELSEWHERE = "x-sluicegate-elsewhere";

    /**
     * The answer for a failed ask.
     *
     * @param error why it failed
     * @return what to answer
     */
    public static Problem of(SluicegateException error) {
        if (error instanceof RefusedException refused) {
            return new Problem(refused.status(), refused.reason(), refused.getMessage(),
                    refused.retryAfter().map(Problem::seconds), refused.elsewhere());
        }
        return new Problem(503, "service_away", "The service that admits requests cannot be asked.", Optional.of(1L),
                Optional.empty());
    }

    /**
     * The body.
     *
     * @return a JSON object
     */
    public String json() {
        StringBuilder json = new StringBuilder("{\"type\":\"urn:sluicegate:problem:").append(escaped(reason))
                .append("\",\"title\":\"").append(status == 429 ? "No room" : "Not available")
                .append("\",\"status\":").append(status)
                .append(",\"detail\":\"").append(escaped(detail))
                .append("\",\"reason\":\"").append(escaped(reason)).append('"');
        elsewhere.ifPresent(pod -> json.append(",\"elsewhere\":\"").append(escaped(pod)).append('"'));
        return json.append('}').toString();
    }

    /** Rounded up: an early return would be refused again. */
    private static long seconds(Duration after) {
        return Math.max(1, after.plusNanos(999_999_999).getSeconds());
    }

    private static String escaped(String text) {
        StringBuilder out = new StringBuilder();
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.toString();
    }
}
