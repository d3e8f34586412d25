package io.sluicegate.servlet;

import jakarta.servlet.AsyncContext;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.ServletContext;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;

/** A request whose asynchronous completion can be seen coming. */
final class HeldRequest extends HttpServletRequestWrapper {
    private final Hold hold;
    private final ServletResponse response;

    HeldRequest(HttpServletRequest request, ServletResponse response, Hold hold) {
        super(request);
        this.hold = hold;
        this.response = response;
    }

    @Override
    public AsyncContext startAsync() {
        // The container's own variant would go past our response, which looks out for the last byte.
        return startAsync(this, response);
    }

    @Override
    public AsyncContext startAsync(ServletRequest request, ServletResponse answer) {
        AsyncContext context = super.startAsync(request, answer);
        hold.asyncStarted(context);
        return new HeldContext(context, hold);
    }

    @Override
    public AsyncContext getAsyncContext() {
        return new HeldContext(super.getAsyncContext(), hold);
    }

    /** Gives the pod's units back before {@code complete()} sends what is left of the answer. */
    private record HeldContext(AsyncContext context, Hold hold) implements AsyncContext {
        @Override
        public void complete() {
            hold.lastByte();
            try {
                context.complete();
            } catch (IllegalStateException e) {
                hold.completedInVain();
                throw e;
            }
        }

        @Override
        public ServletRequest getRequest() {
            return context.getRequest();
        }

        @Override
        public ServletResponse getResponse() {
            return context.getResponse();
        }

        @Override
        public boolean hasOriginalRequestAndResponse() {
            return context.hasOriginalRequestAndResponse();
        }

        @Override
        public void dispatch() {
            hold.dispatchAsked();
            context.dispatch();
        }

        @Override
        public void dispatch(String path) {
            hold.dispatchAsked();
            context.dispatch(path);
        }

        @Override
        public void dispatch(ServletContext servlets, String path) {
            hold.dispatchAsked();
            context.dispatch(servlets, path);
        }

        @Override
        public void start(Runnable work) {
            context.start(work);
        }

        @Override
        public void addListener(AsyncListener listener) {
            context.addListener(listener);
        }

        @Override
        public void addListener(AsyncListener listener, ServletRequest request, ServletResponse response) {
            context.addListener(listener, request, response);
        }

        @Override
        public <T extends AsyncListener> T createListener(Class<T> kind) throws ServletException {
            return context.createListener(kind);
        }

        @Override
        public void setTimeout(long millis) {
            context.setTimeout(millis);
        }

        @Override
        public long getTimeout() {
            return context.getTimeout();
        }
    }
}
