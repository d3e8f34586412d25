package io.sluicegate.client;

import java.io.EOFException;
import java.io.IOException;
import java.net.ConnectException;
import java.net.ProtocolException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.channels.CancelledKeyException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Calls that block nobody: one thread reads the answers of all of them. Without TLS.
 *
 * <p>A kept connection is written to by the caller's own thread; the loop is woken only to open one. It watches idle ones
 * too, so that one whose other end leaves is not used again.
 */
final class Loop {
    private final Target target;
    private final Duration connectTimeout;
    private final ConcurrentLinkedDeque<Line> idle = new ConcurrentLinkedDeque<>();
    private final ConcurrentLinkedQueue<Call> toOpen = new ConcurrentLinkedQueue<>();
    private final Selector selector;
    private volatile boolean closed;

    Loop(Target target, Duration connectTimeout) {
        this.target = target;
        this.connectTimeout = connectTimeout;
        try {
            selector = Selector.open();
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
        Threads.named("sluicegate-io").newThread(this::run).start();
    }

    /** A call under way. */
    private static final class Call {
        private final byte[] bytes;
        private final CompletableFuture<Answer> answer = new CompletableFuture<>();
        /** By which it goes; guarded by this. */
        private Line line;
        /** It was sent on a kept connection, and may be sent once more. */
        private volatile boolean onKept;

        private Call(byte[] bytes) {
            this.bytes = bytes;
        }

        /** False if it ended before. */
        private synchronized boolean goesBy(Line next) {
            line = next;
            return !answer.isDone();
        }

        private synchronized Line line() {
            return line;
        }
    }

    /** A connection. The caller's thread writes to it, the loop reads. */
    private static final class Line {
        private final SocketChannel channel;
        /** Null while it is idle. Whoever takes it out decides what becomes of it. */
        private final AtomicReference<Call> call = new AtomicReference<>();
        private volatile ByteBuffer unsent;
        private byte[] buffer = new byte[2048];
        private int filled;

        private Line(SocketChannel channel) {
            this.channel = channel;
        }

        /** True if all of it was written. */
        private boolean write() throws IOException {
            channel.write(unsent);
            return !unsent.hasRemaining();
        }

        private void close() {
            try {
                channel.close();
            } catch (IOException e) {
                SluicegateClient.LOG.log(System.Logger.Level.DEBUG, "a connection did not close: {0}", e.toString());
            }
        }
    }

    /**
     * Makes a call; fails as {@link Connections#call} does. Cancelling it closes its connection, which tells the service
     * that its caller left. Completed by the loop's thread, an alarm or the caller.
     */
    CompletableFuture<Answer> call(byte[] bytes, Duration deadline) {
        Call call = new Call(bytes);
        Future<?> alarm = Alarms.after(deadline,
                () -> call.answer.completeExceptionally(new SocketTimeoutException("no answer in time")));
        call.answer.whenComplete((answer, error) -> {
            alarm.cancel(false);
            Line line = error == null ? null : call.line();
            if (line != null) {
                line.close();
            }
        });
        Line kept = idle.pollFirst();
        while (kept != null && !kept.channel.isOpen()) {
            kept = idle.pollFirst();
        }
        if (kept == null) {
            open(call);
        } else {
            call.onKept = true;
            send(kept, call);
        }
        return call.answer;
    }

    void close() {
        closed = true;
        selector.wakeup();
    }

    private void open(Call call) {
        toOpen.add(call);
        selector.wakeup();
        if (closed) {
            call.answer.completeExceptionally(new ConnectException("the client is closed"));
        }
    }

    private void send(Line line, Call call) {
        line.unsent = ByteBuffer.wrap(call.bytes);
        line.call.set(call);
        if (!call.goesBy(line)) {
            line.close();
            return;
        }
        try {
            if (!line.write()) {
                SelectionKey key = line.channel.keyFor(selector);
                if (key == null) {
                    throw new ClosedChannelException();
                }
                key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
                selector.wakeup();
            }
        } catch (IOException | CancelledKeyException e) {
            broken(line, e);
        }
    }

    private void run() {
        while (!closed) {
            try {
                selector.select(this::ready);
            } catch (IOException e) {
                SluicegateClient.LOG.log(System.Logger.Level.ERROR, "the client cannot wait for answers", e);
                break;
            }
            for (Call call = toOpen.poll(); call != null; call = toOpen.poll()) {
                connect(call);
            }
        }
        closed = true;
        for (SelectionKey key : selector.keys()) {
            Line line = (Line) key.attachment();
            line.close();
            Call call = line.call.getAndSet(null);
            if (call != null) {
                call.answer.completeExceptionally(new IOException("the client was closed"));
            }
        }
        for (Call call = toOpen.poll(); call != null; call = toOpen.poll()) {
            call.answer.completeExceptionally(new ConnectException("the client is closed"));
        }
        try {
            selector.close();
        } catch (IOException e) {
            SluicegateClient.LOG.log(System.Logger.Level.DEBUG, "a selector did not close: {0}", e.toString());
        }
    }

    private void connect(Call call) {
        if (call.answer.isDone()) {
            return;
        }
        Line line = null;
        try {
            line = new Line(target.open());
            line.channel.configureBlocking(false);
            line.unsent = ByteBuffer.wrap(call.bytes);
            line.call.set(call);
            boolean connected = line.channel.connect(target.address());
            line.channel.register(selector, connected ? SelectionKey.OP_WRITE : SelectionKey.OP_CONNECT, line);
            if (!call.goesBy(line)) {
                line.close();
            } else if (!connected) {
                SocketChannel channel = line.channel;
                Alarms.after(connectTimeout, () -> {
                    if (!channel.isConnected()) {
                        call.answer.completeExceptionally(
                                target.unreachable(new SocketTimeoutException("not connected in time")));
                    }
                });
            }
        } catch (IOException e) {
            if (line != null) {
                line.close();
            }
            call.answer.completeExceptionally(e instanceof ConnectException ? e : target.unreachable(e));
        }
    }

    private void ready(SelectionKey key) {
        Line line = (Line) key.attachment();
        try {
            if (key.isConnectable()) {
                connected(line);
                key.interestOps(SelectionKey.OP_WRITE);
            }
            if (key.isWritable() && line.write()) {
                key.interestOps(SelectionKey.OP_READ);
            }
            if (key.isReadable()) {
                read(line);
            }
        } catch (IOException | CancelledKeyException e) {
            broken(line, e);
        }
    }

    private void connected(Line line) throws ConnectException {
        try {
            line.channel.finishConnect();
        } catch (IOException e) {
            throw target.unreachable(e);
        }
    }

    private void read(Line line) throws IOException {
        if (line.filled == line.buffer.length) {
            if (line.filled >= 2 * Answer.LENGTH_MAX) {
                throw new ProtocolException("an answer of more than " + line.filled + " bytes");
            }
            line.buffer = Arrays.copyOf(line.buffer, 2 * line.filled);
        }
        int count = line.channel.read(ByteBuffer.wrap(line.buffer, line.filled, line.buffer.length - line.filled));
        if (count < 0) {
            throw new EOFException("closed by the service");
        }
        line.filled += count;
        Call call = line.call.get();
        if (call == null) {
            throw new ProtocolException("bytes that answer nothing");
        }
        Answer answer = Answer.parse(line.buffer, line.filled);
        if (answer == null || !line.call.compareAndSet(call, null)) {
            return;
        }
        line.filled = 0;
        if (call.goesBy(null) && answer.keeps()) {
            idle.addFirst(line);
        } else {
            line.close();
        }
        call.answer.complete(answer);
    }

    /** The line is of no more use; its call may be, on another. */
    private void broken(Line line, Exception cause) {
        idle.remove(line);
        line.close();
        Call call = line.call.getAndSet(null);
        if (call == null || call.answer.isDone()) {
            return;
        }
        if (call.onKept && line.filled == 0) {
            // Its other end had left. Every call of ours may be sent twice: see Connections.
            call.onKept = false;
            open(call);
        } else {
            call.answer.completeExceptionally(cause instanceof IOException ? cause : new IOException(cause));
        }
    }
}
