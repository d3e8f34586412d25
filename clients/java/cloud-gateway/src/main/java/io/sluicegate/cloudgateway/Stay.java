package io.sluicegate.cloudgateway;

import static org.springframework.cloud.gateway.support.ServerWebExchangeUtils.CLIENT_RESPONSE_CONN_ATTR;

import io.sluicegate.client.Ending;
import io.sluicegate.client.SluicegateClient;
import io.sluicegate.spring.ReactiveHold;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicReference;
import reactor.core.publisher.SignalType;
import reactor.netty.Connection;

/**
 * One request in the gateway, and what its pod does for it, which may go on when the client is gone:
 * <ol>
 * <li>{@code ASKING}: no pod works for it; it waits for units, or nothing was asked yet;
 * <li>{@code RUNNING}: a pod has it; {@code HEAD}: the answer's head is there; {@code BODY}: the body is being read;
 * <li>{@code READING_ON}: the client is gone and the pod works on; what comes is thrown away until the pod's end. Or it is
 *     a WebSocket, which goes on without the exchange;
 * <li>{@code OVER}.
 * </ol>
 * Whoever moves it on from a phase does what that moment needs, so nothing is given back twice or by nobody.
 */
final class Stay {
    private static final String ATTRIBUTE = Stay.class.getName();

    private enum Phase {
        ASKING, RUNNING, HEAD, BODY, READING_ON, OVER
    }

    private final AtomicReference<Phase> phase = new AtomicReference<>(Phase.ASKING);
    /** Of the exchange: the same through all that filters make of it. */
    private final Map<String, Object> attributes;
    private final SluicegateClient client;
    private final boolean continues;
    /** Of the run that is asked for, or under way. */
    private volatile ReactiveHold hold;

    Stay(Map<String, Object> attributes, SluicegateClient client, boolean continues) {
        this.attributes = attributes;
        this.client = client;
        this.continues = continues;
        this.hold = new ReactiveHold(client);
    }

    /** The stay of an exchange, or null if its route does not ask. */
    static Stay of(Map<String, Object> attributes) {
        return (Stay) attributes.get(ATTRIBUTE);
    }

    void begins() {
        attributes.put(ATTRIBUTE, this);
    }

    /** True if pods work on without their client. */
    boolean continues() {
        return continues;
    }

    /** For a run more: what the last one holds goes back, if it did not before. */
    ReactiveHold nextHold() {
        hold.end();
        ReactiveHold next = new ReactiveHold(client);
        hold = next;
        if (!moves(Phase.HEAD, Phase.ASKING) && phase.get() != Phase.ASKING) {
            next.end();
        }
        return next;
    }

    /** The units are there. False if the client left at this moment. */
    boolean runBegins() {
        return moves(Phase.ASKING, Phase.RUNNING);
    }

    /** The pod's head is there. */
    void headCame() {
        if (!moves(Phase.RUNNING, Phase.HEAD) && phase.get() == Phase.READING_ON) {
            readOn();
        }
    }

    /** The run came to nothing. False if the client is gone. */
    boolean runEnds() {
        return moves(Phase.RUNNING, Phase.ASKING);
    }

    /** A filter around it, or the client's end, cut the run off: what the pod does is seen to its end, or given up. */
    void runCut() {
        if (continues) {
            moves(Phase.RUNNING, Phase.READING_ON);
        } else if (runEnds()) {
            hold.end();
        }
    }

    /** True if the gateway is done with its pod, which is still read from: no other run may begin. */
    boolean isCut() {
        return phase.get() == Phase.READING_ON;
    }

    /** Gives back, and says how the run went. */
    CompletableFuture<Boolean> giveBack(Ending how) {
        return hold.end(how);
    }

    /** Nobody sees the end of what the pod does. */
    void leave() {
        hold.leave();
    }

    /** An answer is about to be written. True if it is a pod's. */
    boolean isPods() {
        return phase.get() == Phase.HEAD;
    }

    /** Somebody reads the body. */
    void bodyBegins() {
        moves(Phase.HEAD, Phase.BODY);
    }

    /** Nobody will read a body that nobody has begun to read. */
    void unread() {
        if (continues && moves(Phase.HEAD, Phase.READING_ON)) {
            readOn();
        }
    }

    /** A WebSocket is open, and its end will be told by {@link #podEnded()}. */
    void socketOpened() {
        moves(Phase.RUNNING, Phase.READING_ON);
    }

    /** Nobody wants the rest of the body. True if it is to be read on. */
    boolean bodyUnwanted() {
        boolean readOn = continues && moves(Phase.BODY, Phase.READING_ON);
        if (readOn) {
            // Or the gateway, which winds up after us, would hang up on the pod.
            attributes.remove(CLIENT_RESPONSE_CONN_ATTR);
        }
        return readOn;
    }

    /** The pod has sent all, or broke off. */
    void podEnded() {
        moves(Phase.BODY, Phase.OVER);
        hold.end();
    }

    /** The gateway is through with the request. */
    void over(SignalType signal) {
        while (true) {
            Phase at = phase.get();
            if (at == Phase.READING_ON || at == Phase.OVER) {
                return;
            }
            boolean cancelled = signal == SignalType.CANCEL;
            boolean works = continues && switch (at) {
                case RUNNING -> cancelled;
                case HEAD, BODY -> signal != SignalType.ON_COMPLETE;
                default -> false;
            };
            if (!moves(at, works && at == Phase.RUNNING ? Phase.READING_ON : Phase.OVER)) {
                continue;
            }
            if (!works) {
                hold.end();
            } else if (at != Phase.RUNNING) {
                // The gateway has hung up on the pod.
                hold.leave();
            }
            return;
        }
    }

    private void readOn() {
        Connection pod = (Connection) attributes.remove(CLIENT_RESPONSE_CONN_ATTR);
        if (pod == null) {
            hold.end();
        } else if (!pod.channel().isActive()) {
            // Not `isDisposed`, which is also said when all of the request is sent.
            hold.leave();
        } else {
            pod.inbound().receive().then().onErrorComplete().doFinally(signal -> hold.end()).subscribe();
        }
    }

    private boolean moves(Phase from, Phase to) {
        return phase.compareAndSet(from, to);
    }
}
