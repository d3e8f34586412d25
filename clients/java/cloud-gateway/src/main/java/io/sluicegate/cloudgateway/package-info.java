/** Spring Cloud Gateway as a door: it asks for units, sends the request to the pod that has them, and gives them back. */
package io.sluicegate.cloudgateway;
