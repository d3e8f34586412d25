package io.sluicegate.client;

import java.net.ProtocolException;
import java.nio.charset.StandardCharsets;

/**
 * One answer of the service over HTTP/1.1.
 *
 * <p>Reads what the service sends and nothing more: a length or chunks, no interim answers, no body that ends with its
 * connection. Anything else is not our service, or its bytes are out of step, and is said so.
 *
 * @param status its status
 * @param retryAfter the header {@code Retry-After}, or null
 * @param body its text, empty if it has none
 * @param keeps whether its connection may be used again
 */
record Answer(int status, String retryAfter, String body, boolean keeps) {
    /** Longest head, bytes. Ours have a few hundred. */
    private static final int HEAD_MAX = 16 << 10;
    /** Longest answer, bytes. Ours have a few hundred; a batch's answer may name each of its ids. */
    static final int LENGTH_MAX = 1 << 20;

    /**
     * Reads an answer.
     *
     * @return null if it has not come whole yet
     * @throws ProtocolException this is no answer of our service
     */
    static Answer parse(byte[] bytes, int length) throws ProtocolException {
        return new Reader(bytes, length).answer();
    }

    /** Goes through the bytes once, from the start: answers are short, and nearly all come in one piece. */
    private static final class Reader {
        private final byte[] bytes;
        private final int length;
        private int at;
        private int status;
        private boolean keeps = true;
        private String retryAfter;
        private int bodyLength = -1;
        private boolean chunked;

        private Reader(byte[] bytes, int length) {
            this.bytes = bytes;
            this.length = length;
        }

        private Answer answer() throws ProtocolException {
            if (!head()) {
                return null;
            }
            String body;
            if (status == 204) {
                body = "";
            } else if (chunked) {
                body = chunks();
            } else if (bodyLength >= 0) {
                body = length - at < bodyLength ? null : text(bodyLength);
            } else {
                throw new ProtocolException("an answer without Content-Length or chunks, status " + status);
            }
            if (body == null) {
                return null;
            }
            if (at < length) {
                throw new ProtocolException("bytes after the end of an answer, status " + status);
            }
            return new Answer(status, retryAfter, body, keeps);
        }

        private boolean head() throws ProtocolException {
            String first = line();
            if (first == null) {
                return false;
            }
            status = status(first);
            while (true) {
                String line = line();
                if (line == null) {
                    return false;
                }
                if (line.isEmpty()) {
                    return true;
                }
                header(line);
            }
        }

        private static int status(String line) throws ProtocolException {
            boolean ours = line.startsWith("HTTP/1.1 ") && line.length() >= 12
                    && (line.length() == 12 || line.charAt(12) == ' ');
            int status = ours ? number(line.substring(9, 12), 10) : -1;
            if (status < 200) {
                throw new ProtocolException("no answer of HTTP/1.1: " + brief(line));
            }
            return status;
        }

        private void header(String line) throws ProtocolException {
            int colon = line.indexOf(':');
            if (colon < 1 || line.charAt(0) == ' ' || line.charAt(0) == '\t') {
                throw new ProtocolException("no header: " + brief(line));
            }
            String value = line.substring(colon + 1).strip();
            // Lengths first: the letters need a look only where the length fits.
            switch (colon) {
                case 10 -> {
                    if (is(line, "connection") && value.equalsIgnoreCase("close")) {
                        keeps = false;
                    }
                }
                case 11 -> {
                    if (is(line, "retry-after")) {
                        retryAfter = value;
                    }
                }
                case 14 -> {
                    if (is(line, "content-length")) {
                        contentLength(value);
                    }
                }
                case 17 -> {
                    if (is(line, "transfer-encoding")) {
                        transferEncoding(value);
                    }
                }
                default -> { }
            }
        }

        private static boolean is(String line, String name) {
            return line.regionMatches(true, 0, name, 0, name.length());
        }

        private void contentLength(String value) throws ProtocolException {
            int given = number(value, 10);
            if (given < 0 || given > LENGTH_MAX || chunked || bodyLength >= 0 && bodyLength != given) {
                throw new ProtocolException("Content-Length: " + brief(value));
            }
            bodyLength = given;
        }

        private void transferEncoding(String value) throws ProtocolException {
            if (!value.equalsIgnoreCase("chunked") || bodyLength >= 0) {
                throw new ProtocolException("Transfer-Encoding: " + brief(value));
            }
            chunked = true;
        }

        /** The joined chunks, or null if the last has not come. Extensions and trailers are passed over. */
        private String chunks() throws ProtocolException {
            byte[] joined = new byte[length - at];
            int size = 0;
            while (true) {
                String line = line();
                if (line == null) {
                    return null;
                }
                int semicolon = line.indexOf(';');
                int chunk = number((semicolon < 0 ? line : line.substring(0, semicolon)).strip(), 16);
                if (chunk < 0 || chunk > LENGTH_MAX) {
                    throw new ProtocolException("no size of a chunk: " + brief(line));
                }
                if (chunk == 0) {
                    return trailersEnd() ? new String(joined, 0, size, StandardCharsets.UTF_8) : null;
                }
                if (length - at < chunk + 2) {
                    return null;
                }
                System.arraycopy(bytes, at, joined, size, chunk);
                size += chunk;
                at += chunk;
                if (!"".equals(line())) {
                    throw new ProtocolException("a chunk that goes on after its end");
                }
            }
        }

        private boolean trailersEnd() throws ProtocolException {
            String line = line();
            while (line != null && !line.isEmpty()) {
                line = line();
            }
            return line != null;
        }

        /** Up to the next CRLF, or null if that has not come. */
        private String line() throws ProtocolException {
            int from = at;
            int end = Math.min(length, from + HEAD_MAX);
            for (int i = from; i < end; i++) {
                if (bytes[i] == '\n') {
                    if (i == from || bytes[i - 1] != '\r') {
                        throw new ProtocolException("a line that does not end with CRLF");
                    }
                    at = i + 1;
                    return new String(bytes, from, i - 1 - from, StandardCharsets.ISO_8859_1);
                }
            }
            if (length - from >= HEAD_MAX) {
                throw new ProtocolException("a line of more than " + HEAD_MAX + " bytes");
            }
            return null;
        }

        private String text(int count) {
            String text = new String(bytes, at, count, StandardCharsets.UTF_8);
            at += count;
            return text;
        }

        /** Digits only, at most seven; else -1. */
        private static int number(String digits, int radix) {
            if (digits.isEmpty() || digits.length() > 7) {
                return -1;
            }
            int number = 0;
            for (int i = 0; i < digits.length(); i++) {
                char c = digits.charAt(i);
                int digit = c < 0x80 ? Character.digit(c, radix) : -1;
                if (digit < 0) {
                    return -1;
                }
                number = number * radix + digit;
            }
            return number;
        }

        private static String brief(String text) {
            return text.length() <= 80 ? text : text.substring(0, 80) + "…";
        }
    }
}
