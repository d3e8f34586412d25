package io.sluicegate.servlet;

import jakarta.servlet.ServletOutputStream;
import jakarta.servlet.WriteListener;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpServletResponseWrapper;
import java.io.FilterWriter;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.Charset;
import java.nio.charset.IllegalCharsetNameException;
import java.nio.charset.UnsupportedCharsetException;

/**
 * A response that tells its hold of the last byte before it is written: the one that fills the declared length, or
 * whatever {@code close()} sends. What ends neither way is written by the container after the filter, which comes
 * later than the hold's end.
 */
final class HeldResponse extends HttpServletResponseWrapper {
    private static final long UNKNOWN = -1;

    private final Hold hold;
    /** The declared length, bytes. */
    private volatile long length = UNKNOWN;
    private long written;
    private ServletOutputStream stream;
    private PrintWriter writer;

    HeldResponse(HttpServletResponse response, Hold hold) {
        super(response);
        this.hold = hold;
    }

    @Override
    public void setContentLength(int bytes) {
        length = bytes;
        super.setContentLength(bytes);
    }

    @Override
    public void setContentLengthLong(long bytes) {
        length = bytes;
        super.setContentLengthLong(bytes);
    }

    @Override
    public void setHeader(String name, String value) {
        declared(name, value);
        super.setHeader(name, value);
    }

    @Override
    public void addHeader(String name, String value) {
        declared(name, value);
        super.addHeader(name, value);
    }

    @Override
    public void setIntHeader(String name, int value) {
        declared(name, Integer.toString(value));
        super.setIntHeader(name, value);
    }

    @Override
    public void addIntHeader(String name, int value) {
        declared(name, Integer.toString(value));
        super.addIntHeader(name, value);
    }

    @Override
    public void flushBuffer() throws IOException {
        if (length == 0) {
            hold.lastByte();
        }
        watched(super::flushBuffer);
    }

    @Override
    public void reset() {
        length = UNKNOWN;
        written = 0;
        super.reset();
    }

    @Override
    public ServletOutputStream getOutputStream() throws IOException {
        if (stream == null) {
            stream = new Counted(super.getOutputStream());
        }
        return stream;
    }

    @Override
    public PrintWriter getWriter() throws IOException {
        if (writer == null) {
            writer = new PrintWriter(new CountedWriter(super.getWriter(), mostBytesPerChar()));
        }
        return writer;
    }

    /** A writer keeps its errors to itself. To be called at the end of a dispatch. */
    void lookForErrors() {
        // What was not committed was not written, so it cannot have failed; and asking flushes.
        if (writer != null && isCommitted() && writer.checkError()) {
            hold.writeFailed();
        }
    }

    private void watched(Write write) throws IOException {
        try {
            write.run();
        } catch (IOException e) {
            hold.writeFailed();
            throw e;
        }
    }

    private interface Write {
        void run() throws IOException;
    }

    private void declared(String name, String value) {
        if ("Content-Length".equalsIgnoreCase(name)) {
            try {
                length = value == null ? UNKNOWN : Long.parseLong(value.trim());
            } catch (NumberFormatException e) {
                length = UNKNOWN;
            }
        }
    }

    /** Before {@code bytes} more are written. */
    private void writing(long bytes) {
        written += bytes;
        if (length != UNKNOWN && written >= length) {
            hold.lastByte();
        }
    }

    private long mostBytesPerChar() {
        try {
            return (long) Math.ceil(Charset.forName(getCharacterEncoding()).newEncoder().maxBytesPerChar());
        } catch (IllegalCharsetNameException | UnsupportedCharsetException | UnsupportedOperationException e) {
            return 4;
        }
    }

    private final class Counted extends ServletOutputStream {
        private final ServletOutputStream out;

        private Counted(ServletOutputStream out) {
            this.out = out;
        }

        @Override
        public void write(int b) throws IOException {
            writing(1);
            watched(() -> out.write(b));
        }

        @Override
        public void write(byte[] bytes, int from, int count) throws IOException {
            writing(count);
            watched(() -> out.write(bytes, from, count));
        }

        @Override
        public void flush() throws IOException {
            watched(out::flush);
        }

        @Override
        public void close() throws IOException {
            hold.lastByte();
            watched(out::close);
        }

        @Override
        public boolean isReady() {
            return out.isReady();
        }

        @Override
        public void setWriteListener(WriteListener listener) {
            out.setWriteListener(listener);
        }
    }

    /** Counts chars at their greatest length: with a declared length the units may come back some chars early. */
    private final class CountedWriter extends FilterWriter {
        private final PrintWriter inner;
        private final long mostBytesPerChar;

        private CountedWriter(PrintWriter out, long mostBytesPerChar) {
            super(out);
            this.inner = out;
            this.mostBytesPerChar = mostBytesPerChar;
        }

        @Override
        public void write(int c) throws IOException {
            writing(mostBytesPerChar);
            out.write(c);
        }

        @Override
        public void write(char[] chars, int from, int count) throws IOException {
            writing(count * mostBytesPerChar);
            out.write(chars, from, count);
        }

        @Override
        public void write(String text, int from, int count) throws IOException {
            writing(count * mostBytesPerChar);
            out.write(text, from, count);
        }

        @Override
        public void flush() throws IOException {
            // Asking flushes. Passed on, so that our own writer knows of it too.
            if (inner.checkError()) {
                throw new IOException("an earlier write failed");
            }
        }

        @Override
        public void close() throws IOException {
            hold.lastByte();
            out.close();
        }
    }
}
