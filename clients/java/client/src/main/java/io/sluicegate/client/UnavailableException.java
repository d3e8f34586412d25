package io.sluicegate.client;

/** The service could not be asked, or not in these words, and the client is told to refuse then. */
public final class UnavailableException extends SluicegateException {
    private static final long serialVersionUID = 1L;

    UnavailableException(String message, Throwable cause) {
        super(message, cause);
    }
}
