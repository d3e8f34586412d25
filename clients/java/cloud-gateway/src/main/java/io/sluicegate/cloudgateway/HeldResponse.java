package io.sluicegate.cloudgateway;

import java.util.function.Consumer;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import org.springframework.core.io.buffer.DataBuffer;
import org.springframework.core.io.buffer.DataBufferUtils;
import org.springframework.http.HttpHeaders;
import org.springframework.http.server.reactive.ServerHttpResponse;
import org.springframework.http.server.reactive.ServerHttpResponseDecorator;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/** A response that tells its stay when the pod has sent all, and reads on to there when its client is gone. */
final class HeldResponse extends ServerHttpResponseDecorator {
    private final Stay stay;

    HeldResponse(ServerHttpResponse response, Stay stay) {
        super(response);
        this.stay = stay;
    }

    /** The late head of a pod that was given up on may find another answer on its way, and then goes nowhere. */
    @Override
    public HttpHeaders getHeaders() {
        return stay.isCut() && isCommitted() ? new HttpHeaders() : super.getHeaders();
    }

    @Override
    public Mono<Void> writeWith(Publisher<? extends DataBuffer> body) {
        if (!stay.isPods()) {
            return super.writeWith(body);
        }
        return super.writeWith(held(body, DataBufferUtils::release)).doOnError(error -> stay.unread());
    }

    @Override
    public Mono<Void> writeAndFlushWith(Publisher<? extends Publisher<? extends DataBuffer>> body) {
        if (!stay.isPods()) {
            return super.writeAndFlushWith(body);
        }
        return super.writeAndFlushWith(held(body, part -> Flux.from(part).subscribe(DataBufferUtils::release)))
                .doOnError(error -> stay.unread());
    }

    private <T> Flux<T> held(Publisher<T> body, Consumer<T> discard) {
        return Flux.from(body).transform(Operators.<T, T>lift((source, writer) -> new Body<>(writer, stay, discard)));
    }

    /** The pod's body on its way to the writer, and past it when that has no use for more. */
    private static final class Body<T> implements CoreSubscriber<T>, Subscription {
        private final CoreSubscriber<? super T> writer;
        private final Stay stay;
        private final Consumer<T> discard;
        private Subscription pod;
        private volatile boolean unwanted;

        private Body(CoreSubscriber<? super T> writer, Stay stay, Consumer<T> discard) {
            this.writer = writer;
            this.stay = stay;
            this.discard = discard;
        }

        @Override
        public Context currentContext() {
            return writer.currentContext();
        }

        @Override
        public void onSubscribe(Subscription subscription) {
            pod = subscription;
            stay.bodyBegins();
            writer.onSubscribe(this);
        }

        @Override
        public void onNext(T part) {
            if (unwanted) {
                discard.accept(part);
            } else {
                writer.onNext(part);
            }
        }

        @Override
        public void onError(Throwable error) {
            stay.podEnded();
            if (!unwanted) {
                writer.onError(error);
            }
        }

        @Override
        public void onComplete() {
            stay.podEnded();
            if (!unwanted) {
                writer.onComplete();
            }
        }

        @Override
        public void request(long count) {
            pod.request(count);
        }

        @Override
        public void cancel() {
            if (unwanted) {
                return;
            }
            unwanted = true;
            if (stay.bodyUnwanted()) {
                pod.request(Long.MAX_VALUE);
            } else {
                pod.cancel();
            }
        }
    }
}
