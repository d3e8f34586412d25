package io.sluicegate.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.ProtocolException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** What is an answer of the service, and what is not. */
class AnswerTest {
    private static final Map<String, String> WHOLE = Map.of(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nContent-Length: 10\r\n\r\n{\"a\":\"ü\"}", "length",
            "HTTP/1.1 201\r\ncontent-length:   10  \r\n\r\n{\"a\":\"ü\"}", "no reason, spaces",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n6;x=y\r\n:\"ü\"}\r\n0\r\n\r\n", "chunks",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n{\"a\":\"ü\"}\r\n0\r\nx-trailer: 1\r\n\r\n", "a trailer");

    @Test
    void anAnswerIsReadOnceAllOfItIsThere() throws Exception {
        for (Map.Entry<String, String> one : WHOLE.entrySet()) {
            byte[] bytes = one.getKey().getBytes(StandardCharsets.UTF_8);
            for (int length = 0; length < bytes.length; length++) {
                assertNull(Answer.parse(bytes, length), one.getValue() + ", " + length + " bytes");
            }
            Answer answer = Answer.parse(bytes, bytes.length);
            assertEquals(201, answer.status(), one.getValue());
            assertEquals("{\"a\":\"ü\"}", answer.body(), one.getValue());
            assertTrue(answer.keeps(), one.getValue());
        }
    }

    @Test
    void headersThatCountAreRead() throws Exception {
        Answer refused = of("HTTP/1.1 429 Too Many Requests\r\nRETRY-AFTER: 7\r\nconnection: Close\r\ncontent-length: 2\r\n"
                + "x-retry-afte: 9\r\n\r\n{}");
        assertEquals("7", refused.retryAfter());
        assertFalse(refused.keeps());
        Answer done = of("HTTP/1.1 204 No Content\r\n\r\n");
        assertEquals("", done.body());
        assertNull(done.retryAfter());
    }

    @Test
    void whatOurServiceNeverSendsIsNoAnswer() {
        for (String text : List.of(
                "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
                "HTTP/2 200\r\n",
                "SSH-2.0-OpenSSH\r\n",
                "HTTP/1.1 2000 OK\r\n",
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 20x OK\r\n",
                "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
                "HTTP/1.1 200 OK\r\n\r\n",
                "HTTP/1.1 200 OK\r\nno colon\r\n",
                "HTTP/1.1 200 OK\r\n folded: 1\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
                "x".repeat(20_000))) {
            assertThrows(ProtocolException.class, () -> of(text), text.substring(0, Math.min(90, text.length())));
        }
    }

    private static Answer of(String text) throws ProtocolException {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return Answer.parse(bytes, bytes.length);
    }
}
