package io.sluicegate.client;

/**
 * Counts of a client since its start, and what it holds now.
 *
 * @param granted leases of the service
 * @param refused asks refused, by the service or by the pod's own units
 * @param awayOpen granted without a limit, the service being away
 * @param local granted by the pod's own units alone
 * @param awayClosed refused, the service being away
 * @param cancelled asks whose caller gave up
 * @param late grants that came after their caller gave up, and were given back
 * @param lost leases that the service forgot while their work went on
 * @param open leases held now, of the service
 * @param returning leases on their way back to the service
 * @param away whether the service could not be asked when it was tried last
 */
public record ClientStats(long granted, long refused, long awayOpen, long local, long awayClosed, long cancelled,
        long late, long lost, int open, int returning, boolean away) {}
