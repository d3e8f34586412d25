package io.sluicegate.client;

import java.util.function.Supplier;

/** Made by the first who asks for it, once. */
final class Lazy<T> {
    private final Supplier<T> maker;
    private volatile T made;

    Lazy(Supplier<T> maker) {
        this.maker = maker;
    }

    T get() {
        T known = made;
        if (known != null) {
            return known;
        }
        synchronized (this) {
            if (made == null) {
                made = maker.get();
            }
            return made;
        }
    }

    /** Null: nobody asked for it yet. */
    T made() {
        return made;
    }
}
