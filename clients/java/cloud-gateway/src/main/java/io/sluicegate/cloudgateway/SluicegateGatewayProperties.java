package io.sluicegate.cloudgateway;

import org.springframework.boot.context.properties.ConfigurationProperties;

/** Settings of the gateway beside those of the starter. */
@ConfigurationProperties("sluicegate.gateway")
public class SluicegateGatewayProperties {
    /** What pods do when their client is gone. A route's metadata "sluicegate-on-disconnect" takes its place. */
    private OnDisconnect onDisconnect = OnDisconnect.CONTINUES;

    /** Settings with their defaults. */
    public SluicegateGatewayProperties() {}

    /**
     * What pods do when their client is gone.
     *
     * @return what they do
     */
    public OnDisconnect getOnDisconnect() {
        return onDisconnect;
    }

    /**
     * Sets what pods do when their client is gone.
     *
     * @param onDisconnect what they do
     */
    public void setOnDisconnect(OnDisconnect onDisconnect) {
        this.onDisconnect = onDisconnect;
    }
}
