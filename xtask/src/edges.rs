//! The dependency rules: edges between our crates only go downwards, and the core stays alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::Faults;
use crate::metadata::Package;

/// One of our packages and the place it has in ARCHITECTURE.md.
struct Place {
    name: &'static str,
    /// Its tests may use crates of this level and below.
    level: u8,
    /// Which of ours its users build as well.
    may_need: &'static [&'static str],
}

const PLACES: [Place; 16] = [
    Place { name: "sluicegate-core", level: 0, may_need: &[] },
    // Sample pods and load know nothing of what they are tried with: they must judge it from outside.
    Place { name: "sluicegate-trial", level: 0, may_need: &[] },
    Place { name: "sluicegate-config", level: 1, may_need: &["sluicegate-core"] },
    Place { name: "sluicegate", level: 1, may_need: &["sluicegate-core"] },
    Place { name: "sluicegate-sim", level: 1, may_need: &["sluicegate-core"] },
    // No sideways edge to the configuration: the cli maps its settings.
    // Neither knows who sends what it hands over: the library has the words.
    Place { name: "sluicegate-workers", level: 2, may_need: &["sluicegate", "sluicegate-core"] },
    Place { name: "sluicegate-overflow", level: 2, may_need: &["sluicegate", "sluicegate-core"] },
    Place { name: "sluicegate-redis", level: 2, may_need: &["sluicegate", "sluicegate-core"] },
    Place {
        name: "sluicegate-gateway",
        level: 2,
        may_need: &["sluicegate", "sluicegate-config", "sluicegate-core"],
    },
    // tonic and Envoy's generated messages stay out of every other crate.
    Place {
        name: "sluicegate-envoy",
        level: 2,
        may_need: &["sluicegate", "sluicegate-config", "sluicegate-core"],
    },
    // No sideways edge to the gateway: the cli hands it what both listeners offer.
    Place {
        name: "sluicegate-decisions",
        level: 2,
        may_need: &["sluicegate", "sluicegate-config", "sluicegate-core"],
    },
    Place {
        name: "sluicegate-plan",
        level: 2,
        may_need: &["sluicegate-config", "sluicegate-core", "sluicegate-sim"],
    },
    Place {
        name: "sluicegate-cli",
        level: 3,
        may_need: &[
            "sluicegate",
            "sluicegate-config",
            "sluicegate-core",
            "sluicegate-decisions",
            "sluicegate-envoy",
            "sluicegate-gateway",
            "sluicegate-overflow",
            "sluicegate-plan",
            "sluicegate-redis",
            "sluicegate-sim",
            "sluicegate-trial",
            "sluicegate-workers",
        ],
    },
    Place {
        name: "sluicegate-testkit",
        level: 4,
        may_need: &["sluicegate", "sluicegate-core", "sluicegate-trial"],
    },
    Place {
        name: "sluicegate-bench",
        level: 4,
        may_need: &[
            "sluicegate",
            "sluicegate-config",
            "sluicegate-core",
            "sluicegate-decisions",
            "sluicegate-envoy",
            "sluicegate-gateway",
            "sluicegate-redis",
            "sluicegate-sim",
            "sluicegate-testkit",
            "sluicegate-trial",
            "sluicegate-workers",
        ],
    },
    Place { name: "xtask", level: 4, may_need: &[] },
];

/// Tests of any level may use it: nothing that ships needs it.
const FOR_TESTS: &str = "sluicegate-testkit";

const CORE: &str = "sluicegate-core";

/// All that the users of the core may build with it, however deep: a clock, a socket, a thread or a
/// serialiser would have to come in by here.
const CORE_MAY_BUILD: [&str; 2] = [CORE, "fastrand"];

/// Edges that go up or sideways, packages without a place, and what the core drags in.
pub(crate) fn check(packages: &[Package]) -> Faults {
    let mut faults = Faults::new();
    let places: BTreeMap<&str, &Place> = PLACES.iter().map(|p| (p.name, p)).collect();
    let ours: BTreeSet<&str> = packages.iter().filter(|p| p.ours).map(|p| p.name.as_str()).collect();
    for package in packages.iter().filter(|p| p.ours) {
        let Some(place) = places.get(package.name.as_str()) else {
            faults.push(format!(
                "{}: a package without a place: give it one in ARCHITECTURE.md and in xtask/src/edges.rs",
                package.name
            ));
            continue;
        };
        for need in package.needs.iter().filter(|need| ours.contains(need.as_str())) {
            if !place.may_need.contains(&need.as_str()) {
                faults.push(format!("{} -> {need}: edges only go downwards (ARCHITECTURE.md)", package.name));
            }
        }
        for need in package.dev_needs.iter().filter(|need| ours.contains(need.as_str())) {
            let below = places.get(need.as_str()).is_some_and(|p| p.level <= place.level);
            if need != FOR_TESTS && !below {
                faults
                    .push(format!("tests of {} -> {need}: it lies above: put the test there", package.name));
            }
        }
    }
    faults.extend(core_alone(packages));
    faults
}

/// Everything that is built with the core, each with the chain by which it came.
fn core_alone(packages: &[Package]) -> Faults {
    // Two versions of one name fold into one entry: the union of their needs is what matters here.
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        needs.entry(&package.name).or_default().extend(package.needs.iter().map(String::as_str));
    }
    let mut chain_of = BTreeMap::from([(CORE, CORE.to_owned())]);
    let mut open = vec![CORE];
    while let Some(name) = open.pop() {
        for &need in needs.get(name).into_iter().flatten() {
            if !chain_of.contains_key(need) {
                chain_of.insert(need, format!("{} -> {need}", chain_of[name]));
                open.push(need);
            }
        }
    }
    let gained = chain_of.iter().filter(|(name, _)| !CORE_MAY_BUILD.contains(*name));
    gained.map(|(_, chain)| format!("{chain}: the core depends on fastrand and on nothing else")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, ours: bool, needs: &[&str], dev_needs: &[&str]) -> Package {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            licence: None,
            ours,
            needs: own(needs),
            dev_needs: own(dev_needs),
            roots: Vec::new(),
        }
    }

    #[test]
    fn edges_downwards_and_test_kit_in_tests_are_fine() {
        let packages = [
            package("sluicegate-core", true, &["fastrand"], &["sluicegate-testkit", "proptest"]),
            package("sluicegate", true, &["sluicegate-core", "http"], &["tokio"]),
            package("sluicegate-gateway", true, &["sluicegate"], &["sluicegate-trial"]),
            package("sluicegate-trial", true, &["hyper"], &[]),
            package("sluicegate-testkit", true, &[], &[]),
            package("fastrand", false, &[], &[]),
        ];
        assert_eq!(check(&packages), Faults::new());
    }

    #[test]
    fn an_edge_up_sideways_or_to_the_test_kit_is_a_fault() {
        let packages = [
            package(
                "sluicegate",
                true,
                &["sluicegate-config", "sluicegate-testkit"],
                &["sluicegate-gateway"],
            ),
            package("sluicegate-config", true, &[], &[]),
            package("sluicegate-gateway", true, &[], &[]),
            package("sluicegate-testkit", true, &[], &[]),
        ];
        let faults = check(&packages);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("sluicegate -> sluicegate-config:"), "{faults:?}");
        assert!(faults[1].starts_with("sluicegate -> sluicegate-testkit:"), "{faults:?}");
        assert!(faults[2].starts_with("tests of sluicegate -> sluicegate-gateway:"), "{faults:?}");
    }

    #[test]
    fn the_core_may_not_gain_a_runtime_even_through_others() {
        let packages = [
            package("sluicegate-core", true, &["fastrand"], &["serde_json"]),
            package("fastrand", false, &["helper"], &[]),
            package("helper", false, &["tokio"], &[]),
            package("tokio", false, &[], &[]),
            package("serde_json", false, &[], &[]),
        ];
        let faults = check(&packages);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[1].starts_with("sluicegate-core -> fastrand -> helper -> tokio:"), "{faults:?}");
    }

    #[test]
    fn a_package_without_a_place_is_a_fault() {
        let faults = check(&[package("sluicegate-new", true, &[], &[])]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("sluicegate-new: a package without a place"), "{faults:?}");
    }
}
