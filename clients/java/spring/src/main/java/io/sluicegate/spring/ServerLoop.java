package io.sluicegate.spring;

import java.util.concurrent.Executor;
import org.springframework.http.server.reactive.AbstractServerHttpRequest;
import org.springframework.http.server.reactive.ServerHttpRequest;
import org.springframework.http.server.reactive.ServerHttpRequestDecorator;
import org.springframework.util.ClassUtils;
import reactor.netty.http.server.HttpServerRequest;

/**
 * The thread of a request's connection, where the server is Netty, and never at once: when an answer's length is known, its
 * reader may send the next request before the server is through with it. That request is queued, and a request that is
 * answered while it is taken from that queue is the connection's last: nobody reads from it any more (reactor-netty 1.2.11).
 */
final class ServerLoop {
    private static final boolean NETTY =
            ClassUtils.isPresent("reactor.netty.http.server.HttpServerRequest", ServerLoop.class.getClassLoader());

    private ServerLoop() {}

    /** Runs work there, later; with another server at once. */
    static Executor of(ServerHttpRequest request) {
        return NETTY ? Netty.of(request) : Runnable::run;
    }

    /** Not loaded where there is no Netty. */
    private static final class Netty {
        private static Executor of(ServerHttpRequest request) {
            ServerHttpRequest own = request;
            while (own instanceof ServerHttpRequestDecorator decorator) {
                own = decorator.getDelegate();
            }
            Executor[] loop = {Runnable::run};
            if (own instanceof AbstractServerHttpRequest server && ofServer(server) instanceof HttpServerRequest netty) {
                netty.withConnection(connection -> loop[0] = connection.channel().eventLoop());
            }
            return loop[0];
        }

        /** Null of a request without a server, as tests make them. */
        private static Object ofServer(AbstractServerHttpRequest request) {
            try {
                return request.getNativeRequest();
            } catch (IllegalStateException e) {
                return null;
            }
        }
    }
}
