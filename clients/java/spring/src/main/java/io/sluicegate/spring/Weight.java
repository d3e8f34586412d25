package io.sluicegate.spring;

import java.lang.annotation.Documented;
import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/**
 * Units that a controller method's requests hold while they run, in place of the weight that the service's configuration
 * gives. On a class it stands for all methods that have none of their own.
 */
@Documented
@Target({ElementType.METHOD, ElementType.TYPE})
@Retention(RetentionPolicy.RUNTIME)
public @interface Weight {
    /**
     * Units, 1 or more.
     *
     * @return the weight
     */
    int value();

    /**
     * Name of the api in the service's configuration. Empty: the configuration finds it by method and path.
     *
     * @return the name
     */
    String api() default "";
}
