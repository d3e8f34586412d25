//! `/`: the dashboard, one page compiled in. It asks nobody but its own origin for anything.

use std::hash::{BuildHasher, RandomState};

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

/// Markup, style and script together. `{nonce}` stands where the answer's own nonce goes.
const PAGE: &str = include_str!("dashboard.html");

/// Answers with the page. It holds no figure and needs no token: its script asks for both.
pub(super) async fn page() -> Response {
    let nonce = nonce();
    // Only this style and this script run, they can reach only this listener, and nobody can frame the page.
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE.replace("{nonce}", &nonce))).into_response()
}

/// 128 bits that nobody can guess: the standard library keys its hashers from the system's random source.
fn nonce() -> String {
    let half = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_used_once() {
        let (one, other) = (nonce(), nonce());
        assert_ne!(one, other);
        assert_eq!((one.len(), other.len()), (32, 32));
    }

    #[test]
    fn the_page_is_self_contained() {
        assert_eq!(PAGE.matches("{nonce}").count(), 2, "one style, one script");
        for word in ["http://", "https://", "src=", "@import", "url(", "innerHTML", " style=\"", "onclick="] {
            let allowed = usize::from(word == "http://") * PAGE.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(PAGE.matches(word).count(), allowed, "{word}");
        }
    }

    #[test]
    fn both_languages_have_every_word() {
        let words = |from: &str, to: &str| {
            let (_, rest) = PAGE.split_once(from).unwrap();
            let (dictionary, _) = rest.split_once(to).unwrap();
            let before = dictionary.split(": '").map(|text| text.rsplit([' ', '\n']).next().unwrap());
            let mut words: Vec<&str> = before.collect();
            words.pop(); // behind the last value stands no key
            words.sort_unstable();
            words
        };
        let (english, chinese) = (words("  en: {", "\n  },"), words("  'zh-TW': {", "\n  },"));
        assert!(english.len() > 50, "{english:?}");
        assert_eq!(english, chinese);
    }
}
