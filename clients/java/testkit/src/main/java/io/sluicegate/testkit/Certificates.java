package io.sluicegate.testkit;

import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** An authority, and certificates of it for a service and a caller, made by the JDK's keytool. */
public final class Certificates {
    private static final String PASSWORD = "changeit";

    private final Path folder;

    /** Makes them in this folder. */
    public Certificates(Path folder) throws Exception {
        this.folder = folder;
        keytool("-genkeypair", "-alias", "authority", "-keystore", store("authority"), "-dname", "CN=authority", "-ext",
                "bc:c", "-keyalg", "EC", "-validity", "2");
        keytool("-exportcert", "-rfc", "-alias", "authority", "-keystore", store("authority"), "-file", pem("authority"));
        issue("service");
        issue("caller");
    }

    /** The path of a PEM file: {@code authority}, {@code service}, {@code service-key}, {@code caller}, {@code caller-key}. */
    public String pem(String name) {
        return folder.resolve(name + ".pem").toString();
    }

    /** What the caller shows, and whom it believes. */
    public SSLContext caller() throws Exception {
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(load("caller"), PASSWORD.toCharArray());
        return context(keys);
    }

    /** Believes the same, and shows nothing. */
    public SSLContext stranger() throws Exception {
        return context(null);
    }

    /** The section {@code decisions} of a service on this port that hears callers of the authority only. */
    public String door(int port) {
        return "{http: \"127.0.0.1:" + port + "\", tls: {cert: \"" + pem("service") + "\", key: \"" + pem("service-key")
                + "\", client_ca: \"" + pem("authority") + "\"}}";
    }

    private SSLContext context(KeyManagerFactory keys) throws Exception {
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        KeyStore authority = KeyStore.getInstance("PKCS12");
        authority.load(null, null);
        authority.setCertificateEntry("authority", load("authority").getCertificate("authority"));
        trust.init(authority);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys == null ? null : keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private void issue(String name) throws Exception {
        // RSA: a key of a curve is written without its public half here, and the service's library wants that.
        keytool("-genkeypair", "-alias", name, "-keystore", store(name), "-dname", "CN=" + name, "-keyalg", "RSA",
                "-validity", "2");
        keytool("-certreq", "-alias", name, "-keystore", store(name), "-file", pem(name + "-request"));
        keytool("-gencert", "-rfc", "-alias", "authority", "-keystore", store("authority"), "-infile",
                pem(name + "-request"), "-outfile", pem(name), "-ext", "san=ip:127.0.0.1", "-validity", "2");
        keytool("-importcert", "-noprompt", "-alias", "authority", "-keystore", store(name), "-file", pem("authority"));
        keytool("-importcert", "-noprompt", "-alias", name, "-keystore", store(name), "-file", pem(name));
        byte[] key = load(name).getKey(name, PASSWORD.toCharArray()).getEncoded();
        Files.writeString(Path.of(pem(name + "-key")), "-----BEGIN PRIVATE KEY-----\n"
                + Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(key) + "\n-----END PRIVATE KEY-----\n");
    }

    private KeyStore load(String name) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(Path.of(store(name)))) {
            store.load(in, PASSWORD.toCharArray());
        }
        return store;
    }

    private String store(String name) {
        return folder.resolve(name + ".p12").toString();
    }

    private static void keytool(String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/keytool"));
        command.addAll(List.of(arguments));
        command.addAll(List.of("-storetype", "PKCS12", "-storepass", PASSWORD));
        Child child = new Child(command);
        if (child.end() != 0) {
            throw new GeneralSecurityException(command + "\n" + child.output());
        }
    }
}
