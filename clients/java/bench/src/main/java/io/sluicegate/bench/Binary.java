package io.sluicegate.bench;

import io.sluicegate.testkit.Child;
import io.sluicegate.testkit.Sluice;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** The program that is measured. */
final class Binary {
    private Binary() {}

    /** Fails unless it is a release build: a debug one is several times slower, and its figures are of no use. */
    static void check() throws IOException {
        if (!profile().equals("release")) {
            throw new IllegalArgumentException("`" + Sluice.binary() + "` is a " + profile() + " build: measure a release one "
                    + "(cargo build --release -p sluicegate-cli)");
        }
    }

    /** Its version, profile and size. */
    static String described() throws IOException {
        Child version = new Child(List.of(Sluice.binary(), "--version"));
        version.end();
        return version.output().strip() + ", " + profile() + " build of " + Files.getLastModifiedTime(path());
    }

    /** Cargo names the folder by the profile. */
    private static String profile() throws IOException {
        return String.valueOf(path().getParent().getFileName());
    }

    private static Path path() throws IOException {
        return Path.of(Sluice.binary()).toRealPath();
    }
}
