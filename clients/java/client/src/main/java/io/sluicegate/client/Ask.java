package io.sluicegate.client;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/**
 * What one request asks for. Immutable; the methods named like properties return a changed copy.
 *
 * <p>An ask names its api, or gives method and path and lets the service's configuration find it.
 */
public final class Ask {
    private final String api;
    private final String method;
    private final String path;
    private final Integer weight;
    private final String pod;
    private final String prefer;
    private final Duration wait;
    private final Duration hold;
    private final String after;

    private Ask(String api, String method, String path, Integer weight, String pod, String prefer, Duration wait,
            Duration hold, String after) {
        this.api = api;
        this.method = method;
        this.path = path;
        this.weight = weight;
        this.pod = pod;
        this.prefer = prefer;
        this.wait = wait;
        this.hold = hold;
        this.after = after;
    }

    /**
     * An ask for an api by its name in the service's configuration.
     *
     * @param api the name
     * @return the ask
     */
    public static Ask api(String api) {
        return new Ask(Objects.requireNonNull(api, "api"), null, null, null, null, null, null, null, null);
    }

    /**
     * An ask for whatever api the service's configuration finds for a request.
     *
     * @param method the request's method
     * @param path its path, beginning with {@code /}; a query may follow
     * @return the ask
     */
    public static Ask request(String method, String path) {
        Objects.requireNonNull(method, "method");
        Objects.requireNonNull(path, "path");
        return new Ask(null, method, path, null, null, null, null, null, null);
    }

    /**
     * Units in place of the api's own.
     *
     * @param units 1 or more
     * @return a changed copy
     */
    public Ask weight(int units) {
        if (units < 1) {
            throw new IllegalArgumentException("weight " + units + ": a request holds 1 unit or more");
        }
        return new Ask(api, method, path, units, pod, prefer, wait, hold, after);
    }

    /**
     * Pins the ask: these units on this pod or none. For a backend that asks for itself.
     *
     * @param name the pod
     * @return a changed copy
     */
    public Ask pod(String name) {
        return new Ask(api, method, path, weight, name, null, wait, hold, after);
    }

    /**
     * Prefers a pod: there if it fits now, else wherever there is room. For a sidecar.
     *
     * @param name the pod
     * @return a changed copy
     */
    public Ask prefer(String name) {
        return new Ask(api, method, path, weight, null, name, wait, hold, after);
    }

    /**
     * The longest wait for room, in place of the api's.
     *
     * @param longest zero to be answered at once
     * @return a changed copy
     */
    public Ask waitAtMost(Duration longest) {
        if (longest.isNegative()) {
            throw new IllegalArgumentException("a wait cannot be negative");
        }
        return new Ask(api, method, path, weight, pod, prefer, longest, hold, after);
    }

    /**
     * How long the lease lives without a renewal, in place of the client's own. The client renews by itself.
     *
     * @param time at least one millisecond
     * @return a changed copy
     */
    public Ask hold(Duration time) {
        if (time.toMillis() < 1) {
            throw new IllegalArgumentException("a hold lasts 1 ms or longer");
        }
        return new Ask(api, method, path, weight, pod, prefer, wait, time, after);
    }

    /**
     * Asks on behalf of a request whose pod did not take it up: the ask keeps its old place in the line and what is left
     * of its wait. Within a second after {@link SluicegateClient#release(Lease, Ending)} said {@link Ending#POD_FULL} or
     * {@link Ending#NOT_STARTED}.
     *
     * @param lease the id of its former lease
     * @return a changed copy
     */
    public Ask after(String lease) {
        return new Ask(api, method, path, weight, pod, prefer, wait, hold, lease);
    }

    /**
     * The name of the api.
     *
     * @return null if method and path stand for it
     */
    public String api() {
        return api;
    }

    /**
     * Units asked for.
     *
     * @return null for the api's own weight, which the service knows
     */
    public Integer weight() {
        return weight;
    }

    /**
     * The pod it is pinned to.
     *
     * @return null if it is not pinned
     */
    public String pod() {
        return pod;
    }

    /**
     * The pod it prefers.
     *
     * @return null if it prefers none
     */
    public String prefer() {
        return prefer;
    }

    /**
     * The longest wait for room.
     *
     * @return null for the api's own
     */
    public Duration waitAtMost() {
        return wait;
    }

    /**
     * How long the lease lives without a renewal.
     *
     * @return null for the client's own
     */
    public Duration hold() {
        return hold;
    }

    /** For people: the api or the request. */
    @Override
    public String toString() {
        return api != null ? api : method + " " + path;
    }

    /** The body of {@code POST /v1/leases}. */
    String body(String id) {
        Map<String, Object> body = new LinkedHashMap<>();
        body.put("id", id);
        put(body, "api", api);
        put(body, "method", method);
        put(body, "path", path);
        put(body, "weight", weight);
        put(body, "pod", pod);
        put(body, "prefer", prefer);
        put(body, "wait_ms", wait == null ? null : wait.toMillis());
        put(body, "hold_ms", hold == null ? null : hold.toMillis());
        put(body, "after", after);
        return Json.write(body);
    }

    private static void put(Map<String, Object> body, String name, Object value) {
        if (value != null) {
            body.put(name, value);
        }
    }
}
