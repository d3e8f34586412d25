package io.sluicegate.client;

import java.io.IOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/** Where the service is, and how a call to it is written. */
final class Target {
    private final UnixDomainSocketAddress file;
    private final String host;
    private final int port;
    private final boolean tls;
    private final String prefix;
    /** What stands in each call after its first line. */
    private final String headers;

    /**
     * Reads a base URL.
     *
     * @throws IllegalArgumentException it is none of {@code http://HOST}, {@code https://HOST} and {@code unix:PATH}, or
     *     the token does not fit into a header
     */
    Target(URI base, String token) {
        String scheme = String.valueOf(base.getScheme());
        boolean unix = scheme.equals("unix") && base.getPath() != null && !base.getPath().isEmpty();
        if (!unix && !((scheme.equals("http") || scheme.equals("https")) && base.getHost() != null)) {
            throw new IllegalArgumentException("`" + base + "` is no place of a decision service: give http://HOST:PORT, "
                    + "https://HOST:PORT or unix:/PATH");
        }
        tls = scheme.equals("https");
        file = unix ? UnixDomainSocketAddress.of(base.getPath()) : null;
        String name = unix ? "localhost" : base.getHost();
        host = name.startsWith("[") ? name.substring(1, name.length() - 1) : name;
        port = base.getPort() >= 0 || unix ? base.getPort() : tls ? 443 : 80;
        String path = unix || base.getRawPath() == null ? "" : base.getRawPath();
        prefix = path.endsWith("/") ? path.substring(0, path.length() - 1) : path;
        headers = " HTTP/1.1\r\nHost: " + name + (base.getPort() >= 0 ? ":" + port : "") + "\r\n"
                + (token == null ? "" : "Authorization: Bearer " + checked(token, "the token") + "\r\n");
    }

    String host() {
        return host;
    }

    int port() {
        return port;
    }

    boolean tls() {
        return tls;
    }

    /** A channel to {@link #address()}, not connected yet. */
    SocketChannel open() throws IOException {
        SocketChannel channel =
                file != null ? SocketChannel.open(StandardProtocolFamily.UNIX) : SocketChannel.open();
        if (file == null) {
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
        }
        return channel;
    }

    /** Looked up each time: names may move. */
    SocketAddress address() throws ConnectException {
        if (file != null) {
            return file;
        }
        try {
            return new InetSocketAddress(InetAddress.getByName(host), port);
        } catch (IOException e) {
            throw unreachable(e);
        }
    }

    ConnectException unreachable(IOException cause) {
        ConnectException failure =
                new ConnectException((file != null ? file.toString() : host + ":" + port) + ": " + cause.getMessage());
        failure.initCause(cause);
        return failure;
    }

    /** A whole call. {@code body} may be null. */
    byte[] call(String method, String path, String body) {
        byte[] text = body == null ? new byte[0] : body.getBytes(StandardCharsets.UTF_8);
        String head = method + " " + checked(prefix + path, "a path") + headers + "Content-Length: " + text.length
                + (body == null ? "\r\n\r\n" : "\r\nContent-Type: application/json\r\n\r\n");
        byte[] call = new byte[head.length() + text.length];
        System.arraycopy(head.getBytes(StandardCharsets.US_ASCII), 0, call, 0, head.length());
        System.arraycopy(text, 0, call, head.length(), text.length);
        return call;
    }

    /** A space or a line end would begin another word or header of the call. */
    private static String checked(String word, String what) {
        for (int i = 0; i < word.length(); i++) {
            if (word.charAt(i) <= ' ' || word.charAt(i) >= 0x7f) {
                throw new IllegalArgumentException(what + " has a character that HTTP does not take, at " + i);
            }
        }
        return word;
    }
}
