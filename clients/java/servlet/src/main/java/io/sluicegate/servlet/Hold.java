package io.sluicegate.servlet;

import io.sluicegate.client.Lease;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.ServletRequest;

/**
 * The lease of one request on its way through dispatches:
 * <ol>
 * <li>held, from before the handler on;
 * <li>the pod's own units are given back just before the last byte of the answer, as far as that can be seen coming;
 * <li>all is given back when the container is done with the request: after the dispatch that started no asynchronous
 * work, or at the asynchronous completion.
 * </ol>
 */
final class Hold implements AsyncListener {
    static final String ATTRIBUTE = Hold.class.getName();

    private final Lease lease;
    /** The dispatch under way started asynchronous work. Set by the thread of the dispatch. */
    private volatile boolean async;
    /** A write failed: the client is gone. */
    private volatile boolean broken;
    /** The dispatch under way is through: what goes on is asynchronous. */
    private volatile boolean returned;
    /** Another dispatch was asked for and has not begun. */
    private volatile boolean dispatchDue;

    Hold(Lease lease) {
        this.lease = lease;
    }

    /** The last byte is about to go: whoever reads it may send the next request at once. */
    void lastByte() {
        lease.releaseLocal();
    }

    /**
     * Tomcat may forget a request whose connection broke while it still wound up the dispatch that began the asynchronous
     * work (once in some 10^5 requests that are broken off): no listener hears of it, not even of the time-out. So a failed
     * write is the end, as soon as there is no dispatch whose return is.
     */
    void writeFailed() {
        broken = true;
        if (returned) {
            end();
        }
    }

    void dispatchAsked() {
        dispatchDue = true;
    }

    /** Completed by the handler, and the container knew of nothing to complete: the same, seen from the other side. */
    void completedInVain() {
        if (returned && !dispatchDue) {
            end();
        }
    }

    void end() {
        lease.close();
    }

    void dispatchBegins() {
        dispatchDue = false;
        returned = false;
        async = false;
    }

    /** The container calls back at the completion; a new cycle forgets the listeners of the one before. */
    void asyncStarted(AsyncContext context) {
        async = true;
        context.addListener(this);
    }

    /** {@code original}: the request as the container knows it. */
    void dispatchEnded(ServletRequest original) {
        // Before the look at `broken`: one of the two threads sees what the other wrote.
        returned = true;
        if (broken) {
            // Tomcat forgets a request whose connection broke within the dispatch that began asynchronous work: no
            // listener hears of it, unless the handler let the exception pass.
            end();
            return;
        }
        if (async) {
            return;
        }
        if (!original.isAsyncStarted()) {
            end();
            return;
        }
        // Somebody unwrapped the request and started asynchronous work behind our back.
        try {
            original.getAsyncContext().addListener(this);
        } catch (IllegalStateException e) {
            end();
        }
    }

    @Override
    public void onComplete(AsyncEvent event) {
        end();
    }

    @Override
    public void onTimeout(AsyncEvent event) {
        // The completion follows; until then the handler may still work.
    }

    @Override
    public void onError(AsyncEvent event) {
        // The completion follows.
    }

    @Override
    public void onStartAsync(AsyncEvent event) {
        event.getAsyncContext().addListener(this);
    }
}
