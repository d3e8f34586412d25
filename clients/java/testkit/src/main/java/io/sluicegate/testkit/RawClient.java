package io.sluicegate.testkit;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/** One HTTP/1.1 connection that can break off where a well-behaved client never would. */
public final class RawClient implements AutoCloseable {
    private final Socket socket;
    private final InputStream in;

    /** An answer. */
    public record Answer(int status, Map<String, String> headers, String body) {
        /** A header's value, or null. */
        public String header(String name) {
            return headers.get(name.toLowerCase(Locale.ROOT));
        }
    }

    /** Connects to a port of loopback. */
    public RawClient(int port) throws IOException {
        socket = new Socket(InetAddress.getLoopbackAddress(), port);
        socket.setTcpNoDelay(true);
        socket.setSoTimeout((int) Wait.LONGEST.toMillis());
        in = new BufferedInputStream(socket.getInputStream());
    }

    /** Sends a request, with these lines among its headers, and reads its whole answer. */
    public Answer call(String method, String path, String... lines) throws IOException {
        send(method, path, "", lines);
        Map<String, String> headers = new TreeMap<>();
        int status = head(headers);
        return new Answer(status, headers, body(headers));
    }

    /** Sends a request without a body. */
    public void send(String method, String path) throws IOException {
        send(method, path, "");
    }

    /** Sends a request, with these lines among its headers. */
    public void send(String method, String path, String body, String... lines) throws IOException {
        StringBuilder request = new StringBuilder(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n");
        for (String line : lines) {
            request.append(line).append("\r\n");
        }
        if (method.equals("POST")) {
            request.append("Content-Length: ").append(body.length()).append("\r\n");
        }
        request.append("\r\n").append(body);
        socket.getOutputStream().write(request.toString().getBytes(StandardCharsets.US_ASCII));
    }

    /** Reads up to the body; answers the status. */
    public int head(Map<String, String> headers) throws IOException {
        String status = line();
        for (String line = line(); !line.isEmpty(); line = line()) {
            int colon = line.indexOf(':');
            headers.put(line.substring(0, colon).toLowerCase(Locale.ROOT), line.substring(colon + 1).trim());
        }
        return Integer.parseInt(status.split(" ")[1]);
    }

    /** Reads what follows the head, to its end. */
    public String body(Map<String, String> headers) throws IOException {
        String length = headers.get("content-length");
        if (length != null) {
            byte[] body = in.readNBytes(Integer.parseInt(length));
            if (body.length < Integer.parseInt(length)) {
                throw new EOFException("the connection ended within a body");
            }
            return new String(body, StandardCharsets.UTF_8);
        }
        if (!"chunked".equals(headers.get("transfer-encoding"))) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        }
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        while (true) {
            int size = Integer.parseInt(line().trim(), 16);
            body.write(in.readNBytes(size));
            line();
            if (size == 0) {
                return body.toString(StandardCharsets.UTF_8);
            }
        }
    }

    /** Reads this many bytes of what follows. */
    public void read(int count) throws IOException {
        if (in.readNBytes(count).length < count) {
            throw new EOFException();
        }
    }

    /** Breaks off with a reset. */
    public void abort() throws IOException {
        socket.setSoLinger(true, 0);
        socket.close();
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }

    private String line() throws IOException {
        StringBuilder line = new StringBuilder();
        for (int c = in.read(); c != '\n'; c = in.read()) {
            if (c < 0) {
                throw new EOFException("the connection ended within a head, after: " + line);
            }
            if (c != '\r') {
                line.append((char) c);
            }
        }
        return line.toString();
    }
}
