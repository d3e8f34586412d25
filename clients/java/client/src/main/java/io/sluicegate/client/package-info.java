/**
 * Asks a Sluicegate decision service for capacity units before work begins, and gives them back when it ends.
 *
 * <p>{@link io.sluicegate.client.SluicegateClient} is the way in. Nothing but the JDK is needed.
 */
package io.sluicegate.client;
