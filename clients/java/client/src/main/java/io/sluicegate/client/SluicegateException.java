package io.sluicegate.client;

/** No lease, and why. Its two kinds ask for different things: come again later, or look after the service. */
public abstract class SluicegateException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    SluicegateException(String message, Throwable cause) {
        // Refusals are many when there is too much to do; the trace would say where this library was, nothing more.
        super(message, cause, false, false);
    }
}
