package io.sluicegate.client;

import java.net.URI;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.LongAdder;
import javax.net.ssl.SSLContext;

/**
 * Asks a decision service for units, or the pod's own lock, or first one and then the other.
 *
 * <p>Thread-safe; one per process is enough. Connections are kept. Leases are renewed while they are open, and given
 * back by a thread of the client.
 *
 * <p>Where the pod has {@linkplain Builder#local(LocalUnits) units of its own}, every lease on that pod holds them too.
 * So the pod's lock stays the last guard: it holds when the service was restarted and knows nothing of what runs, and
 * what was granted locally while the service was away is still counted when it is back.
 */
public final class SluicegateClient implements AutoCloseable {
    static final System.Logger LOG = System.getLogger("io.sluicegate");

    /** How long {@link #close()} tells the service what was given back last. */
    private static final Duration FLUSH_MAX = Duration.ofSeconds(2);
    /** Names of apis whose weight is remembered. A configuration has fewer; a caller that makes names up has no end. */
    private static final int KNOWN_MAX = 10_000;

    final Builder settings;
    final LocalUnits local;
    final Transport transport;
    final Reachability reachability;
    final Releases releases;
    final Renewals renewals;
    /** What apis weighed when the service was asked last: for when it is away. */
    final Map<String, Integer> knownWeights = new ConcurrentHashMap<>();
    final Counters counts = new Counters();
    private final Ids ids = new Ids();
    private final List<PodRegistration> registrations = new CopyOnWriteArrayList<>();

    /** By outcome; see {@link ClientStats}. */
    static final class Counters {
        final LongAdder granted = new LongAdder();
        final LongAdder refused = new LongAdder();
        final LongAdder awayOpen = new LongAdder();
        final LongAdder local = new LongAdder();
        final LongAdder awayClosed = new LongAdder();
        final LongAdder cancelled = new LongAdder();
        final LongAdder late = new LongAdder();
        final LongAdder lost = new LongAdder();

        LongAdder of(ClientListener.Outcome outcome) {
            return switch (outcome) {
                case GRANTED -> granted;
                case REFUSED -> refused;
                case AWAY_OPEN -> awayOpen;
                case LOCAL -> local;
                case AWAY_CLOSED -> awayClosed;
                case CANCELLED -> cancelled;
            };
        }
    }

    private SluicegateClient(Builder settings) {
        this.settings = settings;
        this.local = settings.local;
        if (settings.service == null) {
            transport = null;
            reachability = null;
            releases = null;
            renewals = null;
            return;
        }
        transport = new Transport(settings.service, settings.token, settings.tls, settings.connectTimeout);
        reachability = new Reachability(settings.retryAfterFailure);
        releases = new Releases(transport, reachability, settings.deadline);
        renewals = new Renewals(transport, settings.deadline, settings.hold, this::lost);
    }

    /**
     * For a client of a decision service.
     *
     * @param service its base URL: {@code http://HOST:PORT}, {@code https://HOST:PORT}, or {@code unix:/PATH} of a socket
     * @return settings to change and to build
     */
    public static Builder of(URI service) {
        return new Builder(Objects.requireNonNull(service, "service"));
    }

    /**
     * For a pod that has nothing but its own lock.
     *
     * @param units the pod's units
     * @return settings to change and to build
     */
    public static Builder localOnly(LocalUnits units) {
        return new Builder(null).local(Objects.requireNonNull(units, "units")).whenAway(WhenAway.LOCAL);
    }

    /**
     * Asks and waits for the answer.
     *
     * @param ask what for
     * @return the lease
     * @throws RefusedException there is no room
     * @throws UnavailableException the service is away and the policy is {@link WhenAway#CLOSED}
     * @throws InterruptedException the thread was interrupted; the ask is withdrawn
     */
    public Lease acquire(Ask ask) throws InterruptedException {
        Acquisition asked = new Acquisition(this, settings.completed(ask), ids.next());
        try {
            asked.startHere();
            return asked.get();
        } catch (InterruptedException e) {
            asked.cancel(true);
            throw e;
        } catch (ExecutionException e) {
            throw unwrapped(e);
        }
    }

    /**
     * Asks for units that are free now.
     *
     * @param ask what for; its wait is not looked at
     * @return the lease, or nothing if it was refused
     * @throws UnavailableException the service is away and the policy is {@link WhenAway#CLOSED}
     * @throws InterruptedException the thread was interrupted; the ask is withdrawn
     */
    public Optional<Lease> tryAcquire(Ask ask) throws InterruptedException {
        try {
            return Optional.of(acquire(ask.waitAtMost(Duration.ZERO)));
        } catch (RefusedException e) {
            return Optional.empty();
        }
    }

    /**
     * Asks without blocking. Cancelling the future withdraws the ask; a grant that comes all the same is given back.
     *
     * @param ask what for
     * @return completes with the lease, {@link RefusedException} or {@link UnavailableException}, on a thread of the
     *     client that must not be blocked for long
     */
    public CompletableFuture<Lease> acquireAsync(Ask ask) {
        Acquisition asked = new Acquisition(this, settings.completed(ask), ids.next());
        asked.start();
        return asked;
    }

    /**
     * Renews a lease by hand; the client does so by itself while it is open. Blocks for the answer.
     *
     * @param lease a lease of this client
     * @param hold how long it lives from now on without another
     * @return false if the service knows it no more, or cannot be asked
     * @throws InterruptedException the thread was interrupted
     */
    public boolean renew(Lease lease, Duration hold) throws InterruptedException {
        if (lease.origin() != Lease.Origin.SERVICE) {
            return true;
        }
        long now = System.nanoTime();
        String body = Json.write(Map.of("hold_ms", hold.toMillis()));
        try {
            Answer answer = transport.call("PUT", "/v1/leases/" + lease.id(), body, settings.deadline);
            if (answer.status() == 200) {
                lease.renewed(now, hold.toMillis());
            }
            return answer.status() == 200;
        } catch (java.io.IOException e) {
            return false;
        }
    }

    /**
     * Gives a lease back: {@link Lease#close()}.
     *
     * @param lease a lease of this client
     */
    public void release(Lease lease) {
        lease.close();
    }

    /**
     * Gives a lease back and says how its run ended, in a call of its own. After {@link Ending#POD_FULL} and
     * {@link Ending#NOT_STARTED} the service keeps the place in the line for a second, for {@link Ask#after(String)}.
     *
     * @param lease a lease of this client
     * @param how what became of the run
     * @return completes with true if the service has heard it; with false if the lease was closed before, is none of the
     *     service's, or goes back without these words because the service could not be told
     */
    public CompletableFuture<Boolean> release(Lease lease, Ending how) {
        if (!lease.take()) {
            return CompletableFuture.completedFuture(false);
        }
        renewals.remove(lease);
        String path = "/v1/leases/" + lease.id() + "?outcome=" + how.word();
        return transport.send("DELETE", path, null, settings.deadline).handle((answer, error) -> {
            boolean heard = error == null && answer.status() == 204;
            if (!heard) {
                releases.add(lease.id(), lease.holdMillis());
            }
            return heard;
        });
    }

    /**
     * Tells the service of this pod, and again while the registration is open. For pools whose pods register
     * ({@code pods: {registered: true}}).
     *
     * @param name the pod
     * @param url where it is
     * @param capacity its units
     * @param ttl how long the service keeps it unheard
     * @return to be closed when the pod goes: the service then hands it no more requests
     */
    public PodRegistration register(String name, URI url, int capacity, Duration ttl) {
        if (transport == null) {
            throw new IllegalStateException("a client without a service has nowhere to register");
        }
        PodRegistration registration = new PodRegistration(transport, settings.deadline, name, url, capacity, ttl);
        registrations.add(registration);
        registration.start();
        return registration;
    }

    /**
     * The pod's own units.
     *
     * @return nothing if it has none
     */
    public Optional<LocalUnits> local() {
        return Optional.ofNullable(local);
    }

    /**
     * What asks without a pod are pinned to.
     *
     * @return nothing if they are not
     */
    public Optional<String> pod() {
        return Optional.ofNullable(settings.pod);
    }

    /**
     * The policy for an absent service.
     *
     * @return the policy
     */
    public WhenAway whenAway() {
        return settings.whenAway;
    }

    /**
     * Whether there is a service to ask.
     *
     * @return false for a pod with its own lock only
     */
    public boolean hasService() {
        return transport != null;
    }

    /**
     * Counts so far.
     *
     * @return a copy; its members are of about the same moment
     */
    public ClientStats stats() {
        boolean asks = transport != null;
        return new ClientStats(counts.granted.sum(), counts.refused.sum(), counts.awayOpen.sum(), counts.local.sum(),
                counts.awayClosed.sum(), counts.cancelled.sum(), counts.late.sum(), counts.lost.sum(),
                asks ? renewals.open() : 0, asks ? releases.pending() : 0, asks && reachability.isAway());
    }

    /** Drains registered pods, and tells the service what was given back last. Leases still open end by themselves. */
    @Override
    public void close() {
        registrations.forEach(PodRegistration::close);
        if (transport != null) {
            renewals.close();
            releases.close(FLUSH_MAX);
            transport.close();
        }
    }

    /** A lease of the service has ended. {@code gone}: the service forgot it before. */
    void ended(Lease lease, boolean gone) {
        renewals.remove(lease);
        if (!gone) {
            releases.add(lease.id(), lease.holdMillis());
        }
    }

    /** A lease is to end by its hold. */
    void left(Lease lease) {
        renewals.remove(lease);
    }

    /** The service does not know our pod: it was restarted, and the next heartbeat is too far off. */
    void podUnknown() {
        registrations.forEach(PodRegistration::now);
    }

    void remember(Ask ask, int weight) {
        if (ask.api() != null && ask.weight() == null && knownWeights.size() < KNOWN_MAX) {
            knownWeights.put(ask.api(), weight);
        }
    }

    /** What an ask weighs when nobody can be asked. */
    int presumedWeight(Ask ask) {
        if (ask.weight() != null) {
            return ask.weight();
        }
        Integer known = ask.api() == null ? null : knownWeights.get(ask.api());
        return known != null ? known : settings.defaultWeight;
    }

    private void lost(Lease lease) {
        counts.lost.increment();
        LOG.log(System.Logger.Level.WARNING, "the service forgot lease {0} while its work goes on", lease.id());
        settings.listener.lost(lease);
    }

    private static RuntimeException unwrapped(ExecutionException e) {
        return e.getCause() instanceof RuntimeException cause ? cause : new IllegalStateException(e.getCause());
    }

    /** Settings of a client. Each method changes these and returns them. */
    public static final class Builder {
        final URI service;
        String token;
        SSLContext tls;
        String pod;
        LocalUnits local;
        WhenAway whenAway = WhenAway.OPEN;
        Duration wait;
        Duration hold = Duration.ofSeconds(15);
        Duration deadline = Duration.ofSeconds(5);
        Duration connectTimeout = Duration.ofMillis(500);
        Duration retryAfterFailure = Duration.ofMillis(500);
        int defaultWeight = 1;
        ClientListener listener = new ClientListener() {};

        private Builder(URI service) {
            this.service = service;
        }

        /**
         * Sent as a bearer token.
         *
         * @param text {@code decisions.token} of the service's configuration
         * @return these settings
         */
        public Builder token(String text) {
            token = text;
            return this;
        }

        /**
         * Keys and authorities for a service with {@code decisions.tls}, whose callers show a certificate.
         *
         * @param context where it is to be taken from; the JDK's own unless changed
         * @return these settings
         */
        public Builder tls(SSLContext context) {
            tls = context;
            return this;
        }

        /**
         * Pins asks that name no pod. Without it the service chooses.
         *
         * @param name the pod of this process
         * @return these settings
         */
        public Builder pod(String name) {
            pod = name;
            return this;
        }

        /**
         * The pod's own units. Every lease on {@link #pod(String)} holds them too.
         *
         * @param units the pod's lock
         * @return these settings
         */
        public Builder local(LocalUnits units) {
            local = units;
            return this;
        }

        /**
         * What asks come to while the service is away; {@link WhenAway#OPEN} unless changed.
         *
         * @param policy the policy; {@link WhenAway#LOCAL} needs {@link #local(LocalUnits)}
         * @return these settings
         */
        public Builder whenAway(WhenAway policy) {
            whenAway = Objects.requireNonNull(policy, "policy");
            return this;
        }

        /**
         * The longest wait for room of asks that name none; the api's own unless changed.
         *
         * @param longest zero to be answered at once
         * @return these settings
         */
        public Builder waitAtMost(Duration longest) {
            wait = longest;
            return this;
        }

        /**
         * How long a lease lives without a renewal, 15 s unless changed: what a crashed process keeps from the others.
         *
         * @param time at least a few times what a call of the service takes
         * @return these settings
         */
        public Builder hold(Duration time) {
            hold = time;
            return this;
        }

        /**
         * The longest time for an answer of the service beyond the ask's wait; 5 s unless changed. Must be above the
         * longest wait of the service's configuration for asks that leave the wait to it.
         *
         * @param longest the time after which the service counts as away
         * @return these settings
         */
        public Builder deadline(Duration longest) {
            deadline = longest;
            return this;
        }

        /**
         * The longest time to connect; 500 ms unless changed.
         *
         * @param longest the time after which the service counts as away
         * @return these settings
         */
        public Builder connectTimeout(Duration longest) {
            connectTimeout = longest;
            return this;
        }

        /**
         * How long the service is left alone after it could not be asked; 500 ms unless changed.
         *
         * @param pause the time between tries, each by one ask
         * @return these settings
         */
        public Builder retryAfterFailure(Duration pause) {
            retryAfterFailure = pause;
            return this;
        }

        /**
         * What an ask weighs that gives no weight, when the service cannot be asked; 1 unless changed.
         *
         * @param units 1 or more
         * @return these settings
         */
        public Builder defaultWeight(int units) {
            defaultWeight = units;
            return this;
        }

        /**
         * Told what becomes of asks.
         *
         * @param told one listener; the last one set
         * @return these settings
         */
        public Builder listener(ClientListener told) {
            listener = Objects.requireNonNull(told, "told");
            return this;
        }

        /**
         * A client with these settings. It has threads of its own until it is closed.
         *
         * @return the client
         * @throws IllegalStateException the policy is {@link WhenAway#LOCAL} and there are no local units
         */
        public SluicegateClient build() {
            if (whenAway == WhenAway.LOCAL && local == null) {
                throw new IllegalStateException("whenAway(LOCAL) needs local(units)");
            }
            return new SluicegateClient(this);
        }

        /** An ask with what it left open filled in. */
        Ask completed(Ask ask) {
            Ask full = ask;
            if (full.pod() == null && full.prefer() == null && pod != null) {
                full = full.pod(pod);
            }
            if (full.waitAtMost() == null && wait != null) {
                full = full.waitAtMost(wait);
            }
            return full.hold() == null ? full.hold(hold) : full;
        }
    }
}
