package io.sluicegate.client;

import java.io.IOException;
import java.net.ConnectException;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * One ask under way:
 * <ol>
 * <li>asked of the service, by the thread that wants it or by none;
 * <li>granted, then the pod's own units are taken too; or refused; or the service is away and the policy decides;
 * <li>done. Whoever completes it first decides: a lease that comes later is given back, and an ask whose caller left is
 * withdrawn by its id, in whatever state the service has it.
 * </ol>
 */
final class Acquisition extends CompletableFuture<Lease> {
    /** Misuse is logged this often at most: each request may repeat it. */
    private static final long LOG_EVERY = TimeUnit.SECONDS.toNanos(10);
    private static final AtomicLong LOGGED_AT = new AtomicLong(System.nanoTime() - LOG_EVERY);
    /** For room in the pod's own lock after the service's grant, where the ask names no wait: others are leaving. */
    private static final Duration LOCAL_WAIT = Duration.ofMillis(100);

    private final SluicegateClient client;
    private final Ask ask;
    private final String id;
    private final long startedAt = System.nanoTime();
    private volatile ClientListener.Outcome outcome = ClientListener.Outcome.CANCELLED;
    /** The service may hold something under our id that nobody gave back yet. */
    private volatile boolean withdraw;
    /** What to cancel when the caller leaves: the call, or the place in the local line. */
    private volatile CompletableFuture<?> current;

    Acquisition(SluicegateClient client, Ask ask, String id) {
        this.client = client;
        this.ask = ask;
        this.id = id;
    }

    /** Asks; blocks nobody. */
    void start() {
        if (!mayAsk()) {
            return;
        }
        withdraw = true;
        CompletableFuture<Answer> call = client.transport.send("POST", "/v1/leases", ask.body(id), deadline());
        current = call;
        call.whenComplete((answer, error) -> {
            if (error == null) {
                answered(answer);
            } else if (!isDone()) {
                failed(error, !(error instanceof ConnectException));
            }
        });
        if (isDone()) {
            call.cancel(true);
        }
    }

    /**
     * Asks in this thread. Afterwards it is done, or waits for the pod's own units.
     *
     * @throws InterruptedException this thread was interrupted; {@link #cancel(boolean)} is to be called
     */
    void startHere() throws InterruptedException {
        if (!mayAsk()) {
            return;
        }
        withdraw = true;
        Answer answer;
        try {
            answer = client.transport.call("POST", "/v1/leases", ask.body(id), deadline());
        } catch (IOException e) {
            failed(e, !(e instanceof ConnectException));
            return;
        }
        answered(answer);
    }

    /** True if the service is to be asked; else this is under way without it. */
    private boolean mayAsk() {
        whenComplete((lease, error) -> {
            ended();
            if (error != null && outcome == ClientListener.Outcome.CANCELLED) {
                abandon();
            }
        });
        if (client.transport == null) {
            local();
        } else if (client.reachability.mayAsk()) {
            return true;
        } else {
            away("the service did not answer a moment ago", null);
        }
        return false;
    }

    private Duration deadline() {
        Duration wait = ask.waitAtMost();
        return wait == null ? client.settings.deadline : client.settings.deadline.plus(wait);
    }

    private void failed(Throwable error, boolean mayHold) {
        if (client.reachability.failed()) {
            SluicegateClient.LOG.log(System.Logger.Level.WARNING,
                    "the decision service is away ({0}); policy: {1}", error, client.settings.whenAway);
        }
        withdraw = false;
        if (mayHold) {
            client.releases.add(id, ask.hold().toMillis());
        }
        away("the service cannot be asked: " + error, error);
    }

    private void answered(Answer answer) {
        int status = answer.status();
        Map<String, Object> body;
        try {
            body = Json.object(answer.body());
        } catch (IllegalArgumentException e) {
            failed(new IOException("status " + status + " without JSON", e), true);
            return;
        }
        if (status == 201 || status == 200) {
            client.reachability.answered();
            granted(body);
            return;
        }
        // Nothing is held under the id of an ask that was answered so.
        withdraw = false;
        String reason = body.get("reason") instanceof String text ? text : "";
        boolean refused = status == 429 || status == 503 && !reason.isEmpty() && !reason.equals("draining");
        if (refused) {
            client.reachability.answered();
            refuse(refusal(answer, body, reason));
        } else if (status >= 500) {
            failed(new IOException("status " + status + " " + reason), false);
        } else {
            misused(status, body);
        }
    }

    private void granted(Map<String, Object> body) {
        Lease lease = lease(Lease.Origin.SERVICE, body);
        client.renewals.add(lease);
        withdraw = false;
        client.remember(ask, lease.weight());
        boolean here = client.local != null && (client.settings.pod == null || client.settings.pod.equals(lease.pod()));
        if (!here || lease.weight() == 0) {
            finish(lease, ClientListener.Outcome.GRANTED);
            return;
        }
        Duration wait = ask.waitAtMost() == null ? LOCAL_WAIT : ask.waitAtMost();
        takeLocal(lease, wait, ClientListener.Outcome.GRANTED);
    }

    private void local() {
        int weight = client.presumedWeight(ask);
        Lease lease = new Lease(client, Lease.Origin.LOCAL, null, ask.pod(), null, weight, 0);
        if (weight == 0) {
            finish(lease, ClientListener.Outcome.LOCAL);
            return;
        }
        takeLocal(lease, ask.waitAtMost() == null ? Duration.ZERO : ask.waitAtMost(), ClientListener.Outcome.LOCAL);
    }

    private void takeLocal(Lease lease, Duration wait, ClientListener.Outcome kind) {
        CompletableFuture<LocalUnits.Held> taken = client.local.take(lease.weight(), wait);
        current = taken;
        taken.whenComplete((held, error) -> {
            if (error == null) {
                lease.holdLocal(held);
                finish(lease, kind);
                return;
            }
            lease.close();
            if (error instanceof RefusedException refusal) {
                refuse(refusal);
            }
        });
        if (isDone()) {
            taken.cancel(true);
        }
    }

    private void away(String why, Throwable cause) {
        switch (client.settings.whenAway) {
            case LOCAL -> local();
            case CLOSED -> {
                outcome = ClientListener.Outcome.AWAY_CLOSED;
                completeExceptionally(new UnavailableException(why, cause));
            }
            case OPEN -> {
                int weight = client.presumedWeight(ask);
                Lease lease = new Lease(client, Lease.Origin.OPEN, null, ask.pod(), null, weight, 0);
                if (client.local != null && weight > 0) {
                    lease.holdLocal(client.local.force(weight));
                }
                finish(lease, ClientListener.Outcome.AWAY_OPEN);
            }
        }
    }

    /** The service is there and will not have this ask: the same next time, so it is said aloud. */
    private void misused(int status, Map<String, Object> body) {
        client.reachability.answered();
        if (isDone()) {
            // The caller left, and the service says that it has heard so.
            return;
        }
        if ("pod".equals(body.get("field"))) {
            client.podUnknown();
        }
        String detail = "the service does not take the ask for " + ask + ": " + status + " " + body.get("detail");
        long now = System.nanoTime();
        long last = LOGGED_AT.get();
        if (now - last >= LOG_EVERY && LOGGED_AT.compareAndSet(last, now)) {
            SluicegateClient.LOG.log(System.Logger.Level.ERROR, detail);
        }
        away(detail, null);
    }

    private void finish(Lease lease, ClientListener.Outcome kind) {
        outcome = kind;
        if (!complete(lease)) {
            client.counts.late.increment();
            lease.close();
        }
    }

    private void refuse(RefusedException refusal) {
        outcome = ClientListener.Outcome.REFUSED;
        completeExceptionally(refusal);
    }

    /** The caller left. */
    private void abandon() {
        if (withdraw) {
            client.releases.add(id, ask.hold().toMillis());
        }
        CompletableFuture<?> at = current;
        if (at != null) {
            at.cancel(true);
        }
    }

    private void ended() {
        ClientListener.Outcome how = isCancelled() ? ClientListener.Outcome.CANCELLED : outcome;
        outcome = how;
        client.counts.of(how).increment();
        client.settings.listener.asked(how, System.nanoTime() - startedAt);
    }

    private Lease lease(Lease.Origin origin, Map<String, Object> body) {
        long hold = body.get("expires_in_ms") instanceof Long millis ? millis : ask.hold().toMillis();
        int weight = body.get("weight") instanceof Long units ? units.intValue() : client.presumedWeight(ask);
        String given = body.get("id") instanceof String text ? text : id;
        return new Lease(client, origin, given, (String) body.get("pod"), (String) body.get("url"), weight,
                Math.max(hold, 1));
    }

    private static RefusedException refusal(Answer answer, Map<String, Object> body, String reason) {
        String after = answer.retryAfter();
        Duration pause = after != null && after.matches("[0-9]{1,9}") ? Duration.ofSeconds(Long.parseLong(after)) : null;
        Object elsewhere = body.get("elsewhere");
        return new RefusedException(answer.status(), reason, String.valueOf(body.get("detail")), pause,
                elsewhere instanceof String pod ? pod : null);
    }
}
