package io.sluicegate.spring;

import io.sluicegate.client.Ask;
import io.sluicegate.client.Ending;
import io.sluicegate.client.Lease;
import io.sluicegate.client.SluicegateClient;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicReference;
import org.springframework.http.server.reactive.ServerHttpRequest;
import reactor.core.publisher.Mono;

/**
 * The lease of one run. This, and not a subscription, owns what was granted: whoever comes last, the lease or the run's
 * end, gives it back, once.
 */
public final class ReactiveHold {
    /** Stands for a run that has ended. */
    private static final Object ENDED = new Object();

    private final SluicegateClient client;
    private final AtomicReference<Object> state = new AtomicReference<>();

    /**
     * Holds nothing yet.
     *
     * @param client asks
     */
    public ReactiveHold(SluicegateClient client) {
        this.client = client;
    }

    /**
     * Asks when it is subscribed to, once. A cancel withdraws the ask; a grant that meets it goes back.
     *
     * @param ask what for
     * @param request the answer is told on its connection's own thread: see {@link ServerLoop}
     * @return the lease, which is held until {@link #end()}, or the {@link io.sluicegate.client.SluicegateException} of
     *     an ask that came to nothing
     */
    public Mono<Lease> ask(Ask ask, ServerHttpRequest request) {
        return Mono.create(sink -> {
            Executor loop = ServerLoop.of(request);
            CompletableFuture<Lease> asked = client.acquireAsync(ask);
            sink.onCancel(() -> asked.cancel(true));
            asked.whenComplete((lease, error) -> {
                if (error == null) {
                    put(lease);
                    loop.execute(() -> sink.success(lease));
                } else if (!asked.isCancelled()) {
                    loop.execute(() -> sink.error(error));
                }
            });
        });
    }

    /** The last byte is about to go: whoever reads it may send the next request at once. */
    void lastByte() {
        if (state.get() instanceof Lease lease) {
            lease.releaseLocal();
        }
    }

    /** Gives back what is held; a second time it does nothing. */
    public void end() {
        if (state.getAndSet(ENDED) instanceof Lease lease) {
            lease.close();
        }
    }

    /**
     * Gives back what is held and says how the run went.
     *
     * @param how what became of it
     * @return completes with whether the service has heard it
     */
    public CompletableFuture<Boolean> end(Ending how) {
        return state.getAndSet(ENDED) instanceof Lease lease ? client.release(lease, how)
                : CompletableFuture.completedFuture(false);
    }

    /** Leaves what is held to its hold: the work goes on, and nobody sees its end. */
    public void leave() {
        if (state.getAndSet(ENDED) instanceof Lease lease) {
            lease.leave();
        }
    }

    private void put(Lease lease) {
        if (!state.compareAndSet(null, lease)) {
            lease.close();
        }
    }
}
