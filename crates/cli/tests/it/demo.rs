//! README's first command, a short one.

use crate::say;

#[test]
fn the_demo_shows_three_ways_side_by_side() {
    // A run that says of itself that its load lagged shows nothing; the machine may be free at the next.
    let said = (0..10)
        .map(|_| say(&["demo", "--seconds", "2", "--load", "0.8", "--seed", "7"]))
        .inspect(|said| assert_eq!(said.code, 0, "{}{}", said.out, said.err))
        .find(|said| !said.out.contains("(void:"))
        .expect("one of ten runs is not void");
    let share = |title: &str| -> f64 {
        let line = said.out.lines().rev().find(|line| line.starts_with(title)).unwrap();
        let before = line.split('%').next().unwrap().trim_end();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(share("pods alone, random") > 3.0, "{}", said.out);
    assert!(share("sluicegate") < 1.0, "{}", said.out);
    assert!(!said.out.contains("requests failed"), "{}", said.out);
}
