package io.sluicegate.spring;

import java.util.concurrent.atomic.AtomicLong;
import org.reactivestreams.Publisher;
import org.springframework.core.io.buffer.DataBuffer;
import org.springframework.http.server.reactive.ServerHttpResponse;
import org.springframework.http.server.reactive.ServerHttpResponseDecorator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A response that tells its hold of the last byte before it is handed to the server. */
final class HeldHttpResponse extends ServerHttpResponseDecorator {
    private final ReactiveHold hold;
    private final AtomicLong written = new AtomicLong();

    HeldHttpResponse(ServerHttpResponse response, ReactiveHold hold) {
        super(response);
        this.hold = hold;
    }

    @Override
    public Mono<Void> writeWith(Publisher<? extends DataBuffer> body) {
        if (body instanceof Mono) {
            // One buffer is the whole body.
            return super.writeWith(Mono.from(body).doOnNext(buffer -> hold.lastByte()));
        }
        return super.writeWith(Flux.from(body).doOnNext(this::writing).doOnTerminate(hold::lastByte));
    }

    @Override
    public Mono<Void> writeAndFlushWith(Publisher<? extends Publisher<? extends DataBuffer>> body) {
        return super.writeAndFlushWith(Flux.from(body).map(part -> Flux.from(part).doOnNext(this::writing))
                .doOnTerminate(hold::lastByte));
    }

    @Override
    public Mono<Void> setComplete() {
        hold.lastByte();
        return super.setComplete();
    }

    private void writing(DataBuffer buffer) {
        long length = getHeaders().getContentLength();
        if (written.addAndGet(buffer.readableByteCount()) >= length && length >= 0) {
            hold.lastByte();
        }
    }
}
