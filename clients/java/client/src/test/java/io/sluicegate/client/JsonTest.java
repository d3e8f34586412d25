package io.sluicegate.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

class JsonTest {
    @Test
    void readsWhatTheServiceWrites() {
        Map<String, Object> read = Json.object(" {\"id\": \"g.j1-0\", \"weight\":2 , \"url\":\"http:\\/\\/a\","
                + "\"list\":[1,-2.5e1,true,false,null,[],{}], \"u\":\"\\u00e9\\ud83d\\ude00\\n\"} ");
        assertEquals("g.j1-0", read.get("id"));
        assertEquals(2L, read.get("weight"));
        assertEquals("http://a", read.get("url"));
        assertEquals(Arrays.asList(1L, -25.0, true, false, null, List.of(), Map.of()), read.get("list"));
        assertEquals("\u00e9\ud83d\ude00\n", read.get("u"));
    }

    @Test
    void saysWhereTextIsNoJson() {
        String deep = "{\"a\":" + "[".repeat(5000);
        List<String> texts = List.of("", "[]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":tru}", "{\"a\":1} x",
                "{\"a\":\"\\x\"}", "{\"a\":\"\\u12g4\"}", "{\"a\":\"", "{\"a\":\"\n\"}", "{a:1}", "{\"a\":1-2}", deep);
        for (String text : texts) {
            IllegalArgumentException fault =
                    assertThrows(IllegalArgumentException.class, () -> Json.object(text), text);
            assertEquals(true, fault.getMessage().startsWith("no JSON: at character "), text);
        }
    }

    @Test
    void readsBackWhatItWrote() {
        Random random = new Random(7);
        for (int round = 0; round < 2000; round++) {
            Map<String, Object> value = new LinkedHashMap<>();
            for (int i = random.nextInt(5); i > 0; i--) {
                value.put(text(random), random.nextBoolean() ? text(random) : (Object) random.nextLong());
            }
            value.put("items", List.of(text(random), true));
            assertEquals(value, Json.object(Json.write(value)), "round " + round);
        }
    }

    @Test
    void writesNothingElse() {
        assertThrows(IllegalArgumentException.class, () -> Json.write(Map.of("a", new Object())));
    }

    /** Any chars, surrogates without a partner and control characters among them. */
    private static String text(Random random) {
        StringBuilder text = new StringBuilder();
        for (int i = random.nextInt(8); i > 0; i--) {
            text.append((char) (random.nextInt(4) == 0 ? random.nextInt(0x10000) : random.nextInt(0x80)));
        }
        return text.toString();
    }
}
