//! The examples run, and say what their comments promise.

#[path = "../../examples/embed.rs"]
#[allow(unreachable_pub)]
mod embed;
#[path = "../../examples/middleware.rs"]
#[allow(unreachable_pub)]
mod middleware;

#[tokio::test]
async fn embed_runs_all_its_work() {
    let said = embed::run().await.unwrap();
    assert_eq!(said.len(), 10);
    assert!(said.iter().all(|line| line.contains("units on db-")), "{said:?}");
}

#[tokio::test]
async fn middleware_answers_both() {
    let (page, report, document) = middleware::run().await.unwrap();
    assert_eq!((page.as_u16(), report.as_u16()), (200, 503));
    assert!(document.contains("\"reason\":\"too_heavy\""), "{document}");
}
