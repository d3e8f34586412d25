package io.sluicegate.redistemplate;

import java.time.Duration;
import org.springframework.data.redis.core.StringRedisTemplate;

/**
 * The sample as it is usually written first: a pod's free units as a number in Redis, DECR before the work and INCR
 * after it, an EXPIRE against crashes, and the capacity where there is no number yet.
 *
 * <p>Every line looks right. SampleTest shows what each costs.
 */
class Sample {
    private final StringRedisTemplate redis;
    private final String key;
    private final int capacity;
    private final Duration ttl;

    Sample(StringRedisTemplate redis, String pod, int capacity, Duration ttl) {
        this.redis = redis;
        this.key = "units:" + pod;
        this.capacity = capacity;
        this.ttl = ttl;
    }

    /** False: answer 429. */
    boolean enter(int weight) {
        if (isMissing()) {
            fill();
        }
        Long left = redis.opsForValue().decrement(key, weight);
        redis.expire(key, ttl);
        return left != null && left >= 0;
    }

    void leave(int weight) {
        redis.opsForValue().increment(key, weight);
    }

    boolean isMissing() {
        return redis.opsForValue().get(key) == null;
    }

    void fill() {
        redis.opsForValue().set(key, Integer.toString(capacity));
    }

    /** The number in Redis. */
    long free() {
        String number = redis.opsForValue().get(key);
        return number == null ? capacity : Long.parseLong(number);
    }
}
