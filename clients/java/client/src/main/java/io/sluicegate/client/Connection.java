package io.sluicegate.client;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.ProtocolException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/**
 * One connection, used by the thread that calls: no other thread is woken for an answer.
 *
 * <p>Its reads and writes have no time-outs of their own. {@link Connections} closes what is overdue, which ends them, and
 * an interrupt does the same: so one deadline spans connecting, handshake, writing and reading.
 */
final class Connection {
    /** In {@link #due}: no call is under way. */
    private static final long NONE = -1;
    /** In {@link #due}: closed for being overdue. */
    private static final long OVERDUE = -2;
    private static final long START = System.nanoTime();

    private final SocketChannel channel;
    /** When the call under way must be over, of {@link #now()}, or one of the words above. */
    private final AtomicLong due = new AtomicLong(NONE);
    /** Null without TLS. */
    private InputStream in;
    private OutputStream out;
    private byte[] buffer = new byte[2048];
    private int filled;
    /** When its last call ended, of {@link #now()}. */
    private volatile long idleSince;

    Connection(SocketChannel channel) {
        this.channel = channel;
    }

    /** Nanoseconds since some moment, never negative. */
    static long now() {
        return System.nanoTime() - START;
    }

    /** Connects, and shakes hands where {@code tls} is given. */
    void connect(Target target, SSLSocketFactory tls, long connectedBy, long dueAt)
            throws IOException, InterruptedException {
        due.set(connectedBy);
        try {
            channel.connect(target.address());
        } catch (IOException e) {
            InterruptedException left = interrupted();
            close();
            throwIfSet(left);
            throw target.unreachable(due.get() == OVERDUE ? new SocketTimeoutException("not connected in time") : e);
        }
        if (!due.compareAndSet(connectedBy, dueAt)) {
            throw target.unreachable(new SocketTimeoutException("not connected in time"));
        }
        if (tls != null) {
            shakeHands(target, tls);
        }
    }

    private void shakeHands(Target target, SSLSocketFactory tls) throws IOException, InterruptedException {
        try {
            SSLSocket socket = (SSLSocket) tls.createSocket(channel.socket(), target.host(), target.port(), true);
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            in = socket.getInputStream();
            out = socket.getOutputStream();
        } catch (IOException e) {
            InterruptedException left = interrupted();
            close();
            throwIfSet(left);
            // Nothing was asked yet.
            throw target.unreachable(due.get() == OVERDUE ? new SocketTimeoutException("no handshake in time") : e);
        }
    }

    /**
     * Sends a call and reads its answer. Closed afterwards unless it answers.
     *
     * @throws StaleException it was closed before a byte of the answer came
     * @throws SocketTimeoutException the deadline passed
     * @throws ProtocolException what came is no answer of our service
     */
    Answer exchange(byte[] call, long dueAt) throws IOException, InterruptedException {
        // A new one has it already, and may be overdue by now.
        if (!due.compareAndSet(NONE, dueAt) && due.get() == OVERDUE) {
            throw new SocketTimeoutException("no answer in time");
        }
        filled = 0;
        try {
            write(call);
            Answer answer = null;
            while (answer == null) {
                read();
                answer = Answer.parse(buffer, filled);
            }
            idleSince = now();
            if (!due.compareAndSet(dueAt, NONE) || !answer.keeps()) {
                close();
            }
            return answer;
        } catch (IOException e) {
            InterruptedException left = interrupted();
            close();
            throwIfSet(left);
            if (due.get() == OVERDUE) {
                throw new SocketTimeoutException("no answer in time");
            }
            throw e instanceof ProtocolException || filled > 0 ? e : new StaleException(e);
        }
    }

    /** A connection that ended before its answer began: of no account if it was a kept one, whose other end had left. */
    @SuppressWarnings("serial")
    static final class StaleException extends IOException {
        private StaleException(IOException cause) {
            super("the connection ended before an answer came: " + cause.getMessage(), cause);
        }
    }

    boolean isOpen() {
        return channel.isOpen();
    }

    boolean isIdleLongerThan(long nanos, long now) {
        return due.get() == NONE && now - idleSince > nanos;
    }

    /** Ends the call under way if it is late. */
    void closeIfOverdue(long now) {
        long at = due.get();
        if (at >= 0 && now >= at && due.compareAndSet(at, OVERDUE)) {
            close();
        }
    }

    void close() {
        try {
            // The channel itself, not what TLS puts around it: that may wait for its writer.
            channel.close();
        } catch (IOException e) {
            SluicegateClient.LOG.log(System.Logger.Level.DEBUG, "a connection did not close: {0}", e.toString());
        }
    }

    private void write(byte[] call) throws IOException {
        if (out != null) {
            out.write(call);
            return;
        }
        ByteBuffer left = ByteBuffer.wrap(call);
        while (left.hasRemaining()) {
            channel.write(left);
        }
    }

    private void read() throws IOException {
        if (filled == buffer.length) {
            if (filled >= 2 * Answer.LENGTH_MAX) {
                throw new ProtocolException("an answer of more than " + filled + " bytes");
            }
            buffer = Arrays.copyOf(buffer, 2 * filled);
        }
        int count = in != null ? in.read(buffer, filled, buffer.length - filled)
                : channel.read(ByteBuffer.wrap(buffer, filled, buffer.length - filled));
        if (count < 0) {
            throw new EOFException("closed by the service");
        }
        filled += count;
    }

    /** Set if an interrupt of this thread is what ended its work. The exception takes the interrupt's place. */
    private static InterruptedException interrupted() {
        return Thread.interrupted() ? new InterruptedException("interrupted while it asked") : null;
    }

    private static void throwIfSet(InterruptedException left) throws InterruptedException {
        if (left != null) {
            throw left;
        }
    }

    /** The moment this long from now. */
    static long in(java.time.Duration time) {
        // A century has 3.2e18 ns; longer ones would wrap.
        long nanos = time.toDays() > 36_500 ? TimeUnit.DAYS.toNanos(36_500) : time.toNanos();
        return now() + nanos;
    }
}
