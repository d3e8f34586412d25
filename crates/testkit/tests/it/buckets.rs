//! When is a pool back to normal?

use std::time::Duration;

use sluicegate_testkit::buckets::{Buckets, Normal};

const SLICE_US: u64 = 250_000;

/// 100 requests in each slice, of which so many were refused.
fn counted(refused: &[u64]) -> Buckets {
    let mut buckets = Buckets::new(Duration::from_micros(SLICE_US));
    for (slice, refused) in (0..).zip(refused) {
        for request in 0..100 {
            buckets.count(slice * SLICE_US + request, request < *refused);
        }
    }
    buckets
}

/// From the fault at 1 s on, after a second with 2 % refused.
fn back(after: &[u64]) -> Option<Duration> {
    let all: Vec<u64> = [2, 2, 2, 2].iter().chain(after).copied().collect();
    let buckets = counted(&all);
    let normal = buckets.normal(0, 4 * SLICE_US);
    buckets.back_to_normal(4 * SLICE_US, all.len() as u64 * SLICE_US, normal)
}

#[test]
fn normal_is_the_mean_and_at_least_the_spread_of_a_coin() {
    let even = counted(&[4, 4, 4, 4]).normal(0, 4 * SLICE_US);
    assert!((even.share - 0.04).abs() < 1e-9);
    assert!((even.sigma - (0.04_f64 * 0.96 / 100.0).sqrt()).abs() < 1e-9, "{even:?}");
    let uneven = counted(&[0, 40, 0, 40]).normal(0, 4 * SLICE_US);
    assert_eq!(uneven, Normal { share: 0.2, sigma: 0.2 });
    let none = counted(&[0, 0, 0, 0]).normal(0, 4 * SLICE_US);
    assert!(none.share == 0.0 && none.limit() > 0.01 && none.limit() < 0.02, "{none:?}");
}

#[test]
fn only_whole_slices_count_as_usual() {
    let buckets = counted(&[90, 2, 2, 90]);
    assert_eq!(buckets.normal(1, 4 * SLICE_US - 1).share, 0.02);
}

#[test]
fn back_to_normal_is_the_first_good_second_after_the_worst() {
    let slices = |count: u32| Some(Duration::from_micros(SLICE_US) * count);
    for (after, want) in [
        (&[2, 0, 5, 2, 2, 2, 2, 2][..], slices(0)),
        (&[90, 90, 2, 2, 2, 2], slices(2)),
        // Felt late; a dip is no end; the smaller second hump counts too.
        (&[2, 2, 90, 2, 2, 2, 50, 30, 2, 2, 2, 2], slices(8)),
        // A single slice a little too high long after is chance, and still breaks its second.
        (&[90, 2, 2, 20, 2, 2, 2, 2, 20, 2, 2, 2], slices(4)),
        (&[90, 2, 2, 2], None),
        (&[90, 90, 90, 90, 90], None),
    ] {
        assert_eq!(back(after), want, "{after:?}");
    }
}
