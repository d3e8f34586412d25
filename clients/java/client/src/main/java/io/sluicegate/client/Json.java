package io.sluicegate.client;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * As much JSON as the decision service speaks: objects, arrays, strings, numbers, booleans and null.
 *
 * <p>A library would be a dependency of every application that asks, and the shapes are few and small.
 */
final class Json {
    /** Deeper than any answer of the service; a hostile one must not end in a stack overflow. */
    private static final int DEPTH_MAX = 32;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Writes a map, list, string, number, boolean or null. */
    static String write(Object value) {
        StringBuilder out = new StringBuilder(128);
        write(value, out);
        return out.toString();
    }

    /**
     * Reads an object.
     *
     * @throws IllegalArgumentException the text is no JSON object; the message says where
     */
    static Map<String, Object> object(String text) {
        Json reader = new Json(text);
        reader.space();
        if (reader.peek() != '{') {
            throw reader.fault("an object is expected");
        }
        Map<String, Object> read = reader.members(0);
        reader.space();
        if (reader.at < text.length()) {
            throw reader.fault("the text goes on after its end");
        }
        return read;
    }

    private static void write(Object value, StringBuilder out) {
        if (value instanceof String string) {
            quote(string, out);
        } else if (value instanceof Map<?, ?> map) {
            char before = '{';
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                out.append(before);
                quote(String.valueOf(entry.getKey()), out);
                out.append(':');
                write(entry.getValue(), out);
                before = ',';
            }
            out.append(before == '{' ? "{}" : "}");
        } else if (value instanceof Iterable<?> items) {
            char before = '[';
            for (Object item : items) {
                out.append(before);
                write(item, out);
                before = ',';
            }
            out.append(before == '[' ? "[]" : "]");
        } else if (value == null || value instanceof Number || value instanceof Boolean) {
            out.append(value);
        } else {
            throw new IllegalArgumentException("no JSON for " + value.getClass().getName());
        }
    }

    private static void quote(String string, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < string.length(); i++) {
            char c = string.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                default -> {
                    // A lone surrogate has no UTF-8; as an escape it arrives as it is.
                    if (c < 0x20 || Character.isSurrogate(c) && !paired(string, i)) {
                        out.append(String.format("\\u%04x", (int) c));
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        out.append('"');
    }

    private static boolean paired(String string, int i) {
        char c = string.charAt(i);
        if (Character.isHighSurrogate(c)) {
            return i + 1 < string.length() && Character.isLowSurrogate(string.charAt(i + 1));
        }
        return i > 0 && Character.isHighSurrogate(string.charAt(i - 1));
    }

    private Object value(int depth) {
        if (depth > DEPTH_MAX) {
            throw fault("nested too deeply");
        }
        space();
        switch (peek()) {
            case '{':
                return members(depth);
            case '[':
                return items(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> members(int depth) {
        Map<String, Object> members = new LinkedHashMap<>();
        at++;
        space();
        if (peek() == '}') {
            at++;
            return members;
        }
        while (true) {
            space();
            if (peek() != '"') {
                throw fault("a name is expected");
            }
            String name = string();
            space();
            expect(':');
            members.put(name, value(depth + 1));
            space();
            if (peek() == ',') {
                at++;
                continue;
            }
            expect('}');
            return members;
        }
    }

    private List<Object> items(int depth) {
        List<Object> items = new ArrayList<>();
        at++;
        space();
        if (peek() == ']') {
            at++;
            return items;
        }
        while (true) {
            items.add(value(depth + 1));
            space();
            if (peek() == ',') {
                at++;
                continue;
            }
            expect(']');
            return items;
        }
    }

    private String string() {
        StringBuilder read = new StringBuilder();
        at++;
        while (true) {
            char c = next();
            if (c == '"') {
                return read.toString();
            }
            if (c < 0x20) {
                throw fault("a control character within a string");
            }
            read.append(c == '\\' ? escape() : c);
        }
    }

    private char escape() {
        char c = next();
        switch (c) {
            case '"', '\\', '/':
                return c;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int i = 0; i < 4; i++) {
                    int digit = Character.digit(next(), 16);
                    if (digit < 0) {
                        throw fault("four hexadecimal digits are expected");
                    }
                    code = code * 16 + digit;
                }
                return (char) code;
            default:
                throw fault("an unknown escape");
        }
    }

    /** A Long where it is a whole number that fits, else a Double. */
    private Number number() {
        int from = at;
        while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        String digits = text.substring(from, at);
        try {
            if (digits.chars().allMatch(c -> c == '-' || Character.isDigit(c))) {
                return Long.valueOf(digits);
            }
            return Double.valueOf(digits);
        } catch (NumberFormatException e) {
            at = from;
            throw fault("a value is expected");
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw fault("a value is expected");
        }
        at += word.length();
        return value;
    }

    private void expect(char c) {
        if (peek() != c) {
            throw fault("`" + c + "` is expected");
        }
        at++;
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char peek() {
        return at < text.length() ? text.charAt(at) : '\0';
    }

    private char next() {
        if (at >= text.length()) {
            throw fault("the text ends within a string");
        }
        return text.charAt(at++);
    }

    private IllegalArgumentException fault(String what) {
        return new IllegalArgumentException("no JSON: at character " + at + ": " + what);
    }
}
