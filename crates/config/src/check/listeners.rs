//! The roles of the process and where they listen.

use std::net::SocketAddr;

use super::{Check, at};
use crate::config::{AdminSettings, DecisionSettings, DecisionTls, GatewaySettings, PodSettings};
use crate::problem::{nearest, quoted};
use crate::tree::Step;
use crate::values::DoorAddress;
use crate::wire;

/// Default of `gateway.retry.attempts`.
const ATTEMPTS: u32 = 2;
/// Default of `gateway.retry.buffer`, bytes.
const BUFFER: usize = 64 << 10;
/// Most threads of a gateway.
const WORKERS_MAX: u32 = 1024;

impl Check<'_> {
    /// `pods`: those known; a preferred pod can only be looked for among them.
    pub(super) fn gateway(
        &mut self,
        gateway: &wire::Gateway,
        pods: Option<&Vec<PodSettings>>,
    ) -> GatewaySettings {
        if let (Some(prefer), Some(pods)) = (&gateway.prefer, pods)
            && !pods.iter().any(|pod| pod.name == prefer.0)
        {
            let what = format!("there is no pod {}", quoted(&prefer.0));
            let mend = match nearest(&prefer.0, pods.iter().map(|pod| pod.name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write the `name` of one of `pods`".to_owned(),
            };
            self.problem(at!["gateway", "prefer"], what, mend);
        }
        if gateway.workers.is_some_and(|workers| workers == 0 || workers > WORKERS_MAX) {
            let mend = format!("write 1 to {WORKERS_MAX}, or take it out: one per core");
            self.problem(at!["gateway", "workers"], "no number of threads to work with", mend);
        }
        let retry = gateway.retry.clone().unwrap_or_default();
        GatewaySettings {
            listen: gateway.listen.0,
            prefer: gateway.prefer.as_ref().map(|name| name.0.clone()),
            retry_attempts: retry.attempts.unwrap_or(ATTEMPTS),
            retry_buffer: retry.buffer.map_or(BUFFER, |size| size.0),
            workers: gateway.workers.and_then(|workers| usize::try_from(workers).ok()),
        }
    }

    pub(super) fn admin(&mut self, admin: &wire::Admin) -> AdminSettings {
        self.guarded(at!["admin", "listen"], Some(admin.listen.0), admin.token.is_some());
        AdminSettings { listen: admin.listen.0, token: admin.token.as_ref().map(|token| token.0.clone()) }
    }

    pub(super) fn decisions(&mut self, decisions: &wire::Decisions) -> DecisionSettings {
        let token = decisions.token.as_ref();
        let guarded = token.is_some() || decisions.tls.is_some();
        let http = decisions.http.as_ref().and_then(tcp);
        self.guarded(at!["decisions", "http"], http, guarded);
        // There `tls` does not speak: only a token guards it.
        let ext_proc = decisions.ext_proc.map(|listen| listen.0);
        self.guarded(at!["decisions", "ext_proc"], ext_proc, token.is_some());
        let section = self.root.get("decisions");
        let silent = section.is_some_and(|section| section.lost("http") || section.lost("ext_proc"));
        if decisions.http.is_none() && decisions.ext_proc.is_none() && !silent {
            let mend = "add `http: \"127.0.0.1:8090\"` or `ext_proc: \"127.0.0.1:8091\"`";
            self.problem(at!["decisions"], "neither `http` nor `ext_proc`: nothing listens", mend);
        }
        DecisionSettings {
            http: decisions.http.clone(),
            ext_proc: decisions.ext_proc.map(|listen| listen.0),
            early_end: decisions.early_end.unwrap_or_default(),
            token: token.map(|token| token.0.clone()),
            advertise: decisions.advertise.as_ref().map(|at| at.0.clone()),
            tls: decisions.tls.as_ref().map(|tls| DecisionTls {
                cert: tls.cert.clone(),
                key: tls.key.clone(),
                client_ca: tls.client_ca.clone(),
            }),
        }
    }

    /// Who can reach these listeners can take the pool's units or change its rules.
    fn guarded(&mut self, path: &[Step<'_>], listen: Option<SocketAddr>, guarded: bool) {
        let Some(address) = listen else { return };
        let section = path.first().map_or("", |step| match step {
            Step::Key(key) => key,
            Step::Index(_) => "",
        });
        let lost = |section: &crate::tree::Node| section.lost("token") || section.lost("tls");
        let silent = self.root.get(section).is_some_and(lost);
        if !guarded && !address.ip().is_loopback() && !silent {
            let what = format!("{address} can be reached from other machines, and there is no `token`");
            let mend = format!(
                "add `token: \"${{SLUICEGATE_TOKEN}}\"`, or listen on `127.0.0.1:{}`",
                address.port()
            );
            self.problem(path, what, mend);
        }
    }

    pub(super) fn listeners(&mut self, file: &wire::File) {
        let decisions = file.decisions.as_ref();
        let all = [
            (["gateway", "listen"], file.gateway.as_ref().map(|gateway| gateway.listen.0)),
            (["decisions", "http"], decisions.and_then(|decisions| tcp(decisions.http.as_ref()?))),
            (["decisions", "ext_proc"], decisions.and_then(|decisions| Some(decisions.ext_proc?.0))),
            (["admin", "listen"], file.admin.as_ref().map(|admin| admin.listen.0)),
        ];
        let socket =
            decisions.and_then(|decisions| decisions.http.as_ref()).is_some_and(|at| tcp(at).is_none());
        let all: Vec<_> = all.into_iter().filter_map(|(path, listen)| Some((path, listen?))).collect();
        for (index, (path, address)) in all.iter().enumerate() {
            if let Some((other, _)) = all[..index].iter().find(|(_, earlier)| collide(*earlier, *address)) {
                let what = format!("{address} is taken by `{}.{}`", other[0], other[1]);
                self.problem(at![path[0], path[1]], what, "give each listener its own port");
            }
        }
        if all.is_empty() && !socket && file.workers.is_none() {
            let what = "no role: `run` would have nothing to do";
            self.warning(&[], what, "add `gateway: {listen: \"127.0.0.1:8080\"}`");
        }
    }
}

fn tcp(listen: &DoorAddress) -> Option<SocketAddr> {
    match listen {
        DoorAddress::Tcp(address) => Some(*address),
        DoorAddress::Unix(_) => None,
    }
}

fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    let everywhere = left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() != 0 && left.port() == right.port() && (left.ip() == right.ip() || everywhere)
}
