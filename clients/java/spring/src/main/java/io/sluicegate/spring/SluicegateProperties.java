package io.sluicegate.spring;

import io.sluicegate.client.WhenAway;
import java.net.URI;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.NestedConfigurationProperty;

/** Settings of the starter. */
@ConfigurationProperties("sluicegate")
public class SluicegateProperties {
    /** Whether requests take units at all. */
    private boolean enabled = true;
    /** Base URL of the decision service, or "unix:" and a socket's path. Without one the pod has its own lock only. */
    private URI url;
    /** Bearer token of the decision service. */
    private String token;
    /** SSL bundle with the certificate that this pod shows to a decision service with mutual TLS. */
    private String sslBundle;
    /** This pod. */
    @NestedConfigurationProperty
    private Pod pod = new Pod();
    /** What requests come to while the service cannot be asked. Default: local if the pod has a capacity, else open. */
    private WhenAway whenAway;
    /** Longest wait for room. Default: that of the api in the service's configuration; without a service none. */
    private Duration waitAtMost;
    /** How long a lease lives without a renewal: what a crashed pod keeps from the others. */
    private Duration hold = Duration.ofSeconds(15);
    /** Longest time for an answer of the service beyond the wait. */
    private Duration deadline = Duration.ofSeconds(5);
    /** Longest time to connect to the service. */
    private Duration connectTimeout = Duration.ofMillis(500);
    /** How long the service is left alone after it could not be asked. */
    private Duration retryAfterFailure = Duration.ofMillis(500);
    /** Units of a request without @Weight while the service cannot be asked. */
    private int defaultWeight = 1;
    /** Paths whose requests hold nothing. */
    private List<String> exclude = new ArrayList<>(List.of("/actuator/**"));
    /** Order of the filter. The default comes after authentication, so that who may not work holds nothing. */
    private int filterOrder = 0;
    /** Calls of other services that answer 429 or 503 with Retry-After. */
    @NestedConfigurationProperty
    private Retry retry = new Retry();

    /** Settings with their defaults. */
    public SluicegateProperties() {}

    /** This pod. */
    public static class Pod {
        /** Its name in the service's configuration; asks are pinned to it. */
        private String name;
        /** Its units: the pod's own lock, which every request takes too. Without it only the service counts. */
        private Integer capacity;
        /** Whether it registers itself, for pools with "pods: {registered: true}". Needs name and capacity. */
        private boolean register;
        /** Where the service and the gateway reach it. Default: this host's address and the server's port. */
        private URI url;
        /** How long the service keeps it without a heartbeat. */
        private Duration ttl = Duration.ofSeconds(10);

        /** A pod without a name. */
        public Pod() {}

        /**
         * Its name.
         *
         * @return the name, or null
         */
        public String getName() {
            return name;
        }

        /**
         * Sets its name.
         *
         * @param name the name
         */
        public void setName(String name) {
            this.name = name;
        }

        /**
         * Its units.
         *
         * @return units, or null
         */
        public Integer getCapacity() {
            return capacity;
        }

        /**
         * Sets its units.
         *
         * @param capacity 1 or more
         */
        public void setCapacity(Integer capacity) {
            this.capacity = capacity;
        }

        /**
         * Whether it registers itself.
         *
         * @return true if it does
         */
        public boolean isRegister() {
            return register;
        }

        /**
         * Sets whether it registers itself.
         *
         * @param register true to do so
         */
        public void setRegister(boolean register) {
            this.register = register;
        }

        /**
         * Where it is reached.
         *
         * @return its base URL, or null
         */
        public URI getUrl() {
            return url;
        }

        /**
         * Sets where it is reached.
         *
         * @param url its base URL
         */
        public void setUrl(URI url) {
            this.url = url;
        }

        /**
         * How long the service keeps it unheard.
         *
         * @return the time
         */
        public Duration getTtl() {
            return ttl;
        }

        /**
         * Sets how long the service keeps it unheard.
         *
         * @param ttl the time
         */
        public void setTtl(Duration ttl) {
            this.ttl = ttl;
        }
    }

    /** Calls of other services. */
    public static class Retry {
        /** Whether RestClient and WebClient of this application wait and try again. */
        private boolean enabled;
        /** Calls in all, the first included. */
        private int attempts = 3;
        /** Longest wait before one of them; a service that asks for more is not called again. */
        private Duration longest = Duration.ofSeconds(5);

        /** Not enabled. */
        public Retry() {}

        /**
         * Whether calls are tried again.
         *
         * @return true if so
         */
        public boolean isEnabled() {
            return enabled;
        }

        /**
         * Sets whether calls are tried again.
         *
         * @param enabled true to do so
         */
        public void setEnabled(boolean enabled) {
            this.enabled = enabled;
        }

        /**
         * Calls in all.
         *
         * @return 1 or more
         */
        public int getAttempts() {
            return attempts;
        }

        /**
         * Sets the number of calls in all.
         *
         * @param attempts 1 or more
         */
        public void setAttempts(int attempts) {
            this.attempts = attempts;
        }

        /**
         * Longest wait.
         *
         * @return the time
         */
        public Duration getLongest() {
            return longest;
        }

        /**
         * Sets the longest wait.
         *
         * @param longest the time
         */
        public void setLongest(Duration longest) {
            this.longest = longest;
        }
    }

    /**
     * Whether requests take units at all.
     *
     * @return the setting
     */
    public boolean isEnabled() {
        return enabled;
    }

    /**
     * Whether requests take units at all.
     *
     * @param enabled the setting
     */
    public void setEnabled(boolean enabled) {
        this.enabled = enabled;
    }

    /**
     * Base URL of the decision service.
     *
     * @return the setting
     */
    public URI getUrl() {
        return url;
    }

    /**
     * Base URL of the decision service.
     *
     * @param url the setting
     */
    public void setUrl(URI url) {
        this.url = url;
    }

    /**
     * Bearer token of the decision service.
     *
     * @return the setting
     */
    public String getToken() {
        return token;
    }

    /**
     * Bearer token of the decision service.
     *
     * @param token the setting
     */
    public void setToken(String token) {
        this.token = token;
    }

    /**
     * Bundle for mutual TLS.
     *
     * @return its name, or null
     */
    public String getSslBundle() {
        return sslBundle;
    }

    /**
     * Bundle for mutual TLS.
     *
     * @param sslBundle a name below {@code spring.ssl.bundle}
     */
    public void setSslBundle(String sslBundle) {
        this.sslBundle = sslBundle;
    }

    /**
     * This pod.
     *
     * @return the setting
     */
    public Pod getPod() {
        return pod;
    }

    /**
     * This pod.
     *
     * @param pod the setting
     */
    public void setPod(Pod pod) {
        this.pod = pod;
    }

    /**
     * What requests come to while the service cannot be asked.
     *
     * @return the setting
     */
    public WhenAway getWhenAway() {
        return whenAway;
    }

    /**
     * What requests come to while the service cannot be asked.
     *
     * @param whenAway the setting
     */
    public void setWhenAway(WhenAway whenAway) {
        this.whenAway = whenAway;
    }

    /**
     * Longest wait for room.
     *
     * @return the setting
     */
    public Duration getWaitAtMost() {
        return waitAtMost;
    }

    /**
     * Longest wait for room.
     *
     * @param waitAtMost the setting
     */
    public void setWaitAtMost(Duration waitAtMost) {
        this.waitAtMost = waitAtMost;
    }

    /**
     * How long a lease lives without a renewal.
     *
     * @return the setting
     */
    public Duration getHold() {
        return hold;
    }

    /**
     * How long a lease lives without a renewal.
     *
     * @param hold the setting
     */
    public void setHold(Duration hold) {
        this.hold = hold;
    }

    /**
     * Longest time for an answer beyond the wait.
     *
     * @return the setting
     */
    public Duration getDeadline() {
        return deadline;
    }

    /**
     * Longest time for an answer beyond the wait.
     *
     * @param deadline the setting
     */
    public void setDeadline(Duration deadline) {
        this.deadline = deadline;
    }

    /**
     * Longest time to connect to the service.
     *
     * @return the setting
     */
    public Duration getConnectTimeout() {
        return connectTimeout;
    }

    /**
     * Longest time to connect to the service.
     *
     * @param connectTimeout the setting
     */
    public void setConnectTimeout(Duration connectTimeout) {
        this.connectTimeout = connectTimeout;
    }

    /**
     * How long the service is left alone after a failure.
     *
     * @return the setting
     */
    public Duration getRetryAfterFailure() {
        return retryAfterFailure;
    }

    /**
     * How long the service is left alone after a failure.
     *
     * @param retryAfterFailure the setting
     */
    public void setRetryAfterFailure(Duration retryAfterFailure) {
        this.retryAfterFailure = retryAfterFailure;
    }

    /**
     * Units of a request without a weight while the service is away.
     *
     * @return the setting
     */
    public int getDefaultWeight() {
        return defaultWeight;
    }

    /**
     * Units of a request without a weight while the service is away.
     *
     * @param defaultWeight the setting
     */
    public void setDefaultWeight(int defaultWeight) {
        this.defaultWeight = defaultWeight;
    }

    /**
     * Paths whose requests hold nothing.
     *
     * @return the setting
     */
    public List<String> getExclude() {
        return exclude;
    }

    /**
     * Paths whose requests hold nothing.
     *
     * @param exclude the setting
     */
    public void setExclude(List<String> exclude) {
        this.exclude = exclude;
    }

    /**
     * Order of the filter.
     *
     * @return the setting
     */
    public int getFilterOrder() {
        return filterOrder;
    }

    /**
     * Order of the filter.
     *
     * @param filterOrder the setting
     */
    public void setFilterOrder(int filterOrder) {
        this.filterOrder = filterOrder;
    }

    /**
     * Calls of other services.
     *
     * @return the setting
     */
    public Retry getRetry() {
        return retry;
    }

    /**
     * Calls of other services.
     *
     * @param retry the setting
     */
    public void setRetry(Retry retry) {
        this.retry = retry;
    }
}
