package io.sluicegate.servlet;

import io.sluicegate.client.SluicegateClient;
import io.sluicegate.testkit.RawClient;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.core.StandardContext;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.descriptor.web.FilterDef;
import org.apache.tomcat.util.descriptor.web.FilterMap;

/** A Tomcat with the filter and handlers by path. */
final class TestServer implements AutoCloseable {
    /** Kept, or its level would be forgotten with it. */
    private static final Logger TOMCAT_LOG = Logger.getLogger("org.apache");

    private final Tomcat tomcat = new Tomcat();
    private final Path folder;
    private final Map<String, Handler> handlers = new LinkedHashMap<>();

    /** What a path does. */
    interface Handler {
        void handle(HttpServletRequest request, HttpServletResponse response) throws Exception;
    }

    TestServer(SluicegateClient client, AskResolver asks) {
        try {
            folder = Files.createTempDirectory("sluicegate-tomcat");
            tomcat.setBaseDir(folder.toString());
            tomcat.setPort(0);
            tomcat.getConnector().setProperty("address", "127.0.0.1");
            tomcat.getConnector().setProperty("maxKeepAliveRequests", "-1");
            // A request that waits holds a thread.
            tomcat.getConnector().setProperty("maxThreads", "64");
            Context context = tomcat.addContext("", folder.toString());
            quiet((StandardContext) context);
            FilterDef filter = new FilterDef();
            filter.setFilterName("sluicegate");
            filter.setFilter(new SluicegateFilter(client, asks));
            filter.setAsyncSupported("true");
            context.addFilterDef(filter);
            FilterMap all = new FilterMap();
            all.setFilterName("sluicegate");
            all.addURLPattern("/*");
            all.setDispatcher(DispatcherType.REQUEST.name());
            all.setDispatcher(DispatcherType.ASYNC.name());
            context.addFilterMap(all);
            Tomcat.addServlet(context, "all", new Dispatcher()).setAsyncSupported(true);
            context.addServletMappingDecoded("/*", "all");
            tomcat.start();
        } catch (IOException | LifecycleException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Handlers throw on purpose here, and threads of a test outlive its server for a moment. */
    private static void quiet(StandardContext context) {
        TOMCAT_LOG.setLevel(Level.OFF);
        context.setClearReferencesObjectStreamClassCaches(false);
        context.setClearReferencesRmiTargets(false);
        context.setClearReferencesThreadLocals(false);
    }

    TestServer on(String path, Handler handler) {
        handlers.put(path, handler);
        return this;
    }

    int port() {
        return tomcat.getConnector().getLocalPort();
    }

    RawClient connect() throws IOException {
        return new RawClient(port());
    }

    @Override
    public void close() throws IOException {
        try {
            tomcat.stop();
            tomcat.destroy();
        } catch (LifecycleException e) {
            throw new IllegalStateException(e);
        }
        try (var left = Files.walk(folder)) {
            left.sorted(java.util.Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
        }
    }

    @SuppressWarnings("serial")
    private final class Dispatcher extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void service(HttpServletRequest request, HttpServletResponse response)
                throws IOException, ServletException {
            try {
                handlers.get(request.getRequestURI()).handle(request, response);
            } catch (IOException | ServletException | RuntimeException e) {
                throw e;
            } catch (Exception e) {
                throw new ServletException(e);
            }
        }
    }
}
