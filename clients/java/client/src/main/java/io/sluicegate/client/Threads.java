package io.sluicegate.client;

import java.util.concurrent.ThreadFactory;

/** Threads of this library: named, and none keeps a process from ending. */
final class Threads {
    private Threads() {}

    static ThreadFactory named(String name) {
        return work -> start(name, work);
    }

    private static Thread start(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        return thread;
    }
}
