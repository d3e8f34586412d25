/** Spring Boot starter: takes units before a controller works and gives them back when the answer is complete. */
package io.sluicegate.spring;
