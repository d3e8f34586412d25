package io.sluicegate.client;

import io.sluicegate.testkit.Wait;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** A service that misbehaves where the real one cannot be made to. */
final class FakeService implements AutoCloseable {
    /** What becomes of a call, by its number and that of its connection, both from 1. */
    interface Script {
        void answer(int call, int connection, Socket socket) throws Exception;
    }

    private final ServerSocket listener;
    private final Script script;
    private final List<Socket> sockets = new CopyOnWriteArrayList<>();
    /** The calls, whole, each as it came. */
    final List<String> calls = new CopyOnWriteArrayList<>();
    /** Connections whose other end left. */
    final List<Integer> left = new CopyOnWriteArrayList<>();

    FakeService(Script script) throws IOException {
        this.script = script;
        listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        Threads.named("fake-service").newThread(this::accept).start();
    }

    URI url() {
        return URI.create("http://127.0.0.1:" + listener.getLocalPort());
    }

    int connections() {
        return sockets.size();
    }

    /** Ends its connections, and goes on listening. */
    void hangUp() throws IOException {
        for (Socket socket : sockets) {
            socket.close();
        }
    }

    static void send(Socket socket, String text) throws IOException {
        socket.getOutputStream().write(text.getBytes(StandardCharsets.UTF_8));
    }

    static void ok(Socket socket) throws IOException {
        send(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    }

    void untilLeft(int connection) {
        Wait.until("connection " + connection + " was closed by its caller", () -> left.contains(connection));
    }

    @Override
    public void close() throws IOException {
        listener.close();
        hangUp();
    }

    private void accept() {
        try {
            while (true) {
                Socket socket = listener.accept();
                sockets.add(socket);
                int number = sockets.size();
                Threads.named("fake-service-" + number).newThread(() -> serve(socket, number)).start();
            }
        } catch (IOException e) {
            // Closed: the test is over.
            return;
        }
    }

    private void serve(Socket socket, int number) {
        try {
            for (String call = read(socket.getInputStream()); call != null; call = read(socket.getInputStream())) {
                calls.add(call);
                script.answer(calls.size(), number, socket);
            }
        } catch (Exception e) {
            if (socket.isClosed()) {
                return;
            }
        }
        left.add(number);
    }

    /** One call, or null at the end of the connection. */
    private static String read(InputStream in) throws IOException {
        ByteArrayOutputStream read = new ByteArrayOutputStream();
        while (true) {
            int next = in.read();
            if (next < 0) {
                return null;
            }
            read.write(next);
            String text = read.toString(StandardCharsets.UTF_8);
            int end = text.indexOf("\r\n\r\n");
            int at = text.indexOf("Content-Length: ");
            if (end > 0) {
                int length = Integer.parseInt(text.substring(at + 16, text.indexOf("\r\n", at)));
                read.write(in.readNBytes(length));
                return read.toString(StandardCharsets.UTF_8);
            }
        }
    }
}
