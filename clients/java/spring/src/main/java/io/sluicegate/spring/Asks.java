package io.sluicegate.spring;

import io.sluicegate.client.Ask;
import java.util.List;
import java.util.Optional;
import org.springframework.core.annotation.AnnotatedElementUtils;
import org.springframework.http.server.PathContainer;
import org.springframework.web.method.HandlerMethod;
import org.springframework.web.util.pattern.PathPattern;
import org.springframework.web.util.pattern.PathPatternParser;

/** What requests ask for: by their path, and by {@link Weight} where their handler bears one. For both web stacks. */
final class Asks {
    private final List<PathPattern> excluded;

    Asks(List<String> excluded) {
        PathPatternParser parser = new PathPatternParser();
        this.excluded = excluded.stream().map(parser::parse).toList();
    }

    /** True if such a request holds nothing. */
    boolean passes(PathContainer path) {
        for (PathPattern pattern : excluded) {
            if (pattern.matches(path)) {
                return true;
            }
        }
        return false;
    }

    static Ask of(String method, String path, Optional<Weight> weight) {
        Ask ask = weight.map(Weight::api).filter(api -> !api.isEmpty()).map(Ask::api)
                .orElseGet(() -> Ask.request(method, path));
        return weight.isPresent() ? ask.weight(weight.get().value()) : ask;
    }

    /** {@code handler} is what a handler mapping found; other kinds bear no annotation. */
    static Optional<Weight> weight(Object handler) {
        if (!(handler instanceof HandlerMethod method)) {
            return Optional.empty();
        }
        Weight own = method.getMethodAnnotation(Weight.class);
        return Optional.ofNullable(own != null ? own
                : AnnotatedElementUtils.findMergedAnnotation(method.getBeanType(), Weight.class));
    }
}
