//! README's first command, a short one.

use crate::say;

#[test]
fn the_demo_shows_three_ways_side_by_side() {
    let said = say(&["demo", "--seconds", "2", "--load", "0.8", "--seed", "7"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let share = |title: &str| -> f64 {
        let line = said.out.lines().rev().find(|line| line.starts_with(title)).unwrap();
        let before = line.split('%').next().unwrap().trim_end();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(share("pods alone, random") > 3.0, "{}", said.out);
    assert!(share("sluicegate") < 1.0, "{}", said.out);
    assert!(!said.out.contains("requests failed"), "{}", said.out);
}
