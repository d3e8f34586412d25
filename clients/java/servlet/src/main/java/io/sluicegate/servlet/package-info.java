/** A servlet filter that takes units before the handler works and gives them back when the answer is complete. */
package io.sluicegate.servlet;
