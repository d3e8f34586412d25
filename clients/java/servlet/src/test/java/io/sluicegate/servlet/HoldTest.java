package io.sluicegate.servlet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.sluicegate.client.Ask;
import io.sluicegate.client.LocalUnits;
import io.sluicegate.client.SluicegateClient;
import jakarta.servlet.AsyncContext;
import jakarta.servlet.http.HttpServletRequest;
import java.lang.reflect.Proxy;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/**
 * A container that forgets a request which broke off: it calls no listener. Counted by leases, since the pod's own units
 * come back before.
 */
class HoldTest {
    private final LocalUnits units = new LocalUnits(4);
    private final SluicegateClient client = SluicegateClient.localOnly(units).build();

    @AfterEach
    void close() {
        client.close();
    }

    @Test
    void aWriteThatFailsAfterItsDispatchEndsTheHold() throws Exception {
        Hold hold = new Hold(client.acquire(Ask.api("a")));
        AsyncContext context = started(hold, false);
        hold.dispatchEnded(null);
        assertEquals(1, units.inUse(), context + " goes on");
        hold.writeFailed();
        assertEquals(0, units.inUse());
    }

    @Test
    void aWriteThatFailsWithinItsDispatchEndsTheHoldWithTheDispatch() throws Exception {
        Hold hold = new Hold(client.acquire(Ask.api("a")));
        started(hold, false);
        hold.writeFailed();
        assertEquals(1, units.inUse(), "the handler still works");
        hold.dispatchEnded(null);
        assertEquals(0, units.inUse());
    }

    @Test
    void aCompletionThatComesTooLateEndsTheHoldUnlessADispatchIsDue() throws Exception {
        Ended ended = new Ended();
        AsyncContext late = started(ended.hold, true);
        ended.hold.dispatchEnded(null);
        assertThrows(IllegalStateException.class, late::complete);
        assertEquals(true, ended.closed());
        Ended due = new Ended();
        AsyncContext dispatched = started(due.hold, true);
        due.hold.dispatchEnded(null);
        dispatched.dispatch();
        assertThrows(IllegalStateException.class, dispatched::complete);
        assertEquals(false, due.closed());
    }

    /** {@code complete()} gives the local units back in any case, so this looks at the lease itself. */
    private final class Ended {
        private final io.sluicegate.client.Lease lease = client.acquireAsync(Ask.api("a")).join();
        private final Hold hold = new Hold(lease);

        private boolean closed() {
            return lease.isClosed();
        }
    }

    /** Asynchronous work begun in a dispatch of a container that never calls back. */
    private static AsyncContext started(Hold hold, boolean forgotten) {
        AsyncContext context = (AsyncContext) Proxy.newProxyInstance(HoldTest.class.getClassLoader(),
                new Class<?>[] {AsyncContext.class}, (proxy, method, arguments) -> {
                    if (forgotten && method.getName().equals("complete")) {
                        throw new IllegalStateException("there is nothing to complete");
                    }
                    return method.getReturnType() == String.class ? "a context" : null;
                });
        HttpServletRequest request = (HttpServletRequest) Proxy.newProxyInstance(HoldTest.class.getClassLoader(),
                new Class<?>[] {HttpServletRequest.class}, (proxy, method, arguments) -> context);
        hold.dispatchBegins();
        return new HeldRequest(request, null, hold).startAsync(null, null);
    }
}
