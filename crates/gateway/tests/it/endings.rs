//! Every way in which a request can end. Each case plays one of them in a world of one pod with one
//! unit, and answers when the lease ended and what the client saw; `table.rs` plays them all.

use std::time::Duration;

use serde_json::json;
use sluicegate::Ask;
use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::pod::OnDisconnect;

use crate::visitor::{Protocol, Sends, Visitor};
use crate::world::{Plan, World, drain};

/// When the lease ended.
pub(crate) const NEVER_BEGAN: &str = "never began";
pub(crate) const AT_ONCE: &str = "at once";
pub(crate) const AT_THE_PODS_END: &str = "at the pod's end";
pub(crate) const AT_MAX_STREAM: &str = "at max_stream";
pub(crate) const WRITTEN_OFF: &str = "written off after 2 x max_hold";

/// What the client saw that was not there to see it.
const GONE: &str = "(gone)";

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) client: Protocol,
    pub(crate) on_disconnect: OnDisconnect,
    /// The pod is spoken to in HTTP/2: must make no difference.
    pub(crate) h2c: bool,
}

/// When the lease ended, and what the client saw.
pub(crate) type Ended = (&'static str, String);

impl Setting {
    async fn world(self, admission: serde_json::Value) -> World {
        let mut plan = Plan::one_pod(1).on_disconnect(self.on_disconnect).with("admission", admission);
        plan.h2c = self.h2c;
        plan.start().await
    }

    async fn visit(self, world: &World, target: &str, sends: Sends) -> Visitor {
        Visitor::come(self.client, world.addr(), target, sends).await
    }

    fn stops(self) -> bool {
        self.on_disconnect == OnDisconnect::Stops
    }
}

pub(crate) async fn leaves_while_waiting(setting: Setting) -> Ended {
    waits_and_leaves(setting, Sends::Nothing).await
}

pub(crate) async fn leaves_while_waiting_with_its_body_partly_sent(setting: Setting) -> Ended {
    waits_and_leaves(setting, Sends::PartOfABody).await
}

async fn waits_and_leaves(setting: Setting, sends: Sends) -> Ended {
    let world = setting.world(json!({"wait": "60s"})).await;
    let only_unit = world.gate.try_acquire(Ask::new(sluicegate::ApiId(0))).unwrap();
    let visitor = setting.visit(&world, "/x", sends).await;
    world.until_waiting(1).await;
    let _gone = visitor.leave();
    world.until_waiting(0).await;
    assert_eq!(world.now().apis[0].counts.cancelled, 1);
    drop(only_unit);
    assert_eq!(world.pods[0].gauge().read().peak, 0, "the pod never heard of it");
    over(&world, 1).await;
    (NEVER_BEGAN, GONE.to_owned())
}

pub(crate) async fn leaves_with_its_body_partly_sent(setting: Setting) -> Ended {
    // Without the rest the pod can never end: it is told so by the cut, whatever it then does.
    let world = setting.world(json!({})).await;
    let visitor = setting.visit(&world, "/x?hang", Sends::PartOfABody).await;
    until("the pod works", SOON, || world.pod_in_use() == 1).await;
    let _gone = visitor.leave();
    over(&world, 1).await;
    (AT_ONCE, GONE.to_owned())
}

pub(crate) async fn leaves_while_the_pod_works(setting: Setting) -> Ended {
    let world = setting.world(json!({})).await;
    let target = if setting.stops() { "/x?hang" } else { "/x?ms=400" };
    let visitor = setting.visit(&world, target, Sends::Nothing).await;
    until("the pod works", SOON, || world.pod_in_use() == 1).await;
    let _gone = visitor.leave();
    (without_client(setting, &world).await, GONE.to_owned())
}

pub(crate) async fn leaves_while_it_streams(setting: Setting) -> Ended {
    let world = setting.world(json!({})).await;
    let chunks = if setting.stops() { 100_000 } else { 40 };
    let target = format!("/x?chunks={chunks}&every=10");
    let mut visitor = setting.visit(&world, &target, Sends::Nothing).await;
    visitor.first_bytes().await;
    let _gone = visitor.leave();
    (without_client(setting, &world).await, GONE.to_owned())
}

pub(crate) async fn leaves_an_idle_stream(setting: Setting) -> Ended {
    let world = setting.world(json!({})).await;
    let pause_ms = if setting.stops() { 600_000 } else { 400 };
    let target = format!("/x?chunks=2&every={pause_ms}");
    let mut visitor = setting.visit(&world, &target, Sends::Nothing).await;
    visitor.first_bytes().await;
    let _gone = visitor.leave();
    (without_client(setting, &world).await, GONE.to_owned())
}

pub(crate) async fn pod_resets_before_its_headers(setting: Setting) -> Ended {
    pod_fails(setting, "/x?reset=head", 1).await
}

pub(crate) async fn pod_resets_within_its_body(setting: Setting) -> Ended {
    pod_fails(setting, "/x?reset=body&bytes=1000", 1).await
}

async fn pod_fails(setting: Setting, target: &str, failed: u64) -> Ended {
    let world = setting.world(json!({})).await;
    let saw = setting.visit(&world, target, Sends::Nothing).await.saw().await;
    over(&world, 1).await;
    assert_eq!(world.now().apis[0].counts.failed, failed);
    (AT_THE_PODS_END, saw)
}

pub(crate) async fn pod_answers_after_max_hold(setting: Setting) -> Ended {
    let world = setting.world(json!({"max_hold": "1s"})).await;
    let saw = setting.visit(&world, "/x?ms=1500", Sends::Nothing).await.saw().await;
    let when = without_client(setting, &world).await;
    assert_eq!((world.now().apis[0].counts.failed, world.now().abandoned_units), (1, 0));
    (when, saw)
}

pub(crate) async fn pod_never_answers(setting: Setting) -> Ended {
    let world = setting.world(json!({"max_hold": "500ms"})).await;
    let saw = setting.visit(&world, "/x?hang", Sends::Nothing).await.saw().await;
    if setting.stops() {
        over(&world, 1).await;
        assert_eq!(world.now().abandoned_units, 0);
        return (AT_ONCE, saw);
    }
    assert_eq!(world.now().in_use, 1, "the units stay with the pod");
    over(&world, 1).await;
    assert_eq!(world.now().abandoned_units, 1);
    (WRITTEN_OFF, saw)
}

pub(crate) async fn stream_outlives_max_stream(setting: Setting) -> Ended {
    let world = setting.world(json!({"max_stream": "200ms"})).await;
    let saw = setting.visit(&world, "/x?chunks=2&every=600000", Sends::Nothing).await.saw().await;
    over(&world, 1).await;
    (AT_MAX_STREAM, saw)
}

pub(crate) async fn pod_frees_late(setting: Setting) -> Ended {
    let mut plan = Plan::one_pod(1).on_disconnect(setting.on_disconnect);
    plan.h2c = setting.h2c;
    plan.pods[0].late = Duration::from_secs(3);
    let world = plan.start().await;
    let saw = setting.visit(&world, "/x", Sends::Nothing).await.saw().await;
    world.until_in_use(0).await;
    assert_eq!(world.pod_in_use(), 1, "the gate cannot know; the pod's own lock is the last guard");
    over(&world, 1).await;
    (AT_THE_PODS_END, saw)
}

pub(crate) async fn pod_refuses(setting: Setting) -> Ended {
    let world = setting.world(json!({"wait": "100ms"})).await;
    let saw = setting.visit(&world, "/x?refuse", Sends::Nothing).await.saw().await;
    assert!(world.now().pods[0].refusals >= 1);
    world.assert_quiet().await;
    (AT_THE_PODS_END, saw)
}

pub(crate) async fn task_is_dropped(setting: Setting) -> Ended {
    // What a panic in the handler's path does: its future is dropped where it stands.
    let mut world = setting.world(json!({})).await;
    let mut visitor = setting.visit(&world, "/x?hang", Sends::Nothing).await;
    until("the pod works", SOON, || world.pod_in_use() == 1).await;
    let settings = sluicegate_config::GatewaySettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        prefer: None,
        retry_attempts: 0,
        retry_buffer: 0,
        workers: Some(1),
    };
    let next = sluicegate_gateway::Gateway::start(world.gate.clone(), world.live.clone(), &settings).unwrap();
    drop(std::mem::replace(&mut world.gateway, next));
    assert_eq!(world.now().in_use, 0);
    let saw = visitor.saw().await;
    over(&world, 1).await;
    (AT_ONCE, saw)
}

pub(crate) async fn gateway_drains(setting: Setting) -> Ended {
    let world = setting.world(json!({})).await;
    let mut visitor = setting.visit(&world, "/x?ms=200", Sends::Nothing).await;
    until("the pod works", SOON, || world.pod_in_use() == 1).await;
    let World { gate, gateway, .. } = world;
    let draining = tokio::spawn(drain(gateway, SOON));
    let saw = visitor.saw().await;
    let _gone = visitor.leave();
    assert_eq!(draining.await.unwrap().cut, 0);
    assert_eq!(gate.snapshot().in_use, 0);
    gate.audit().unwrap();
    (AT_THE_PODS_END, saw)
}

/// The client has left, or has had its 504, while the pod works: to its end, or not.
async fn without_client(setting: Setting, world: &World) -> &'static str {
    if setting.stops() {
        // It would have gone on for minutes.
        over(world, 1).await;
        until("the pod has stopped", SOON, || world.pod_in_use() == 0).await;
        return AT_ONCE;
    }
    while world.now().in_use == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The pod counts its end a moment after we have its last byte.
    until("the lease was there to the pod's end", Duration::from_millis(50), || world.pod_in_use() == 0)
        .await;
    over(world, 1).await;
    AT_THE_PODS_END
}

/// The lease has ended, once: nothing is held, the books agree, and the one unit can be had again.
async fn over(world: &World, admitted: u64) {
    world.assert_quiet().await;
    let counts = world.now().apis[0].counts;
    assert_eq!(counts.admitted, admitted, "{counts:?}");
    let again = world.gate.try_acquire(Ask::new(sluicegate::ApiId(0))).expect("the unit is free");
    assert_eq!(world.now().in_use, 1);
    drop(again);
    assert_eq!(world.now().in_use, 0);
}
