//! RabbitMQ.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sluicegate_testkit::rabbitmq::{RabbitMq, RabbitTls};

use crate::rig::{Rig, api, demo, long, messages, metrics_tell, weight};

const REPLIES: &str = "replies";

async fn channel(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn declare(channel: &Channel, queue: &str) -> u32 {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.unwrap().message_count()
}

async fn publish(channel: &Channel, queue: &str, number: u32, trial: &str) -> lapin::PublisherConfirm {
    let weight = weight(number);
    let mut headers = FieldTable::default();
    for (name, value) in [("x-api", api(weight)), ("x-weight", &weight.to_string()), ("x-trial", trial)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_headers(headers)
        .with_message_id(number.to_string().into())
        .with_correlation_id(number.to_string().into())
        .with_reply_to(REPLIES.into());
    let body = number.to_string();
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await.unwrap()
}

/// Collects answers until all are there, over lost connections. Answers how many came, doubles included.
async fn answers(url: &str, count: u32) -> usize {
    let (mut seen, mut all, begin) = (HashSet::new(), 0, Instant::now());
    while (seen.len() as u32) < count {
        assert!(begin.elapsed() < long(), "{} of {count} answers", seen.len());
        let read = async {
            let (_connection, channel) = channel(url).await?;
            channel.basic_qos(500, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let mut replies =
                channel.basic_consume(REPLIES.into(), "".into(), options, FieldTable::default()).await?;
            while (seen.len() as u32) < count {
                let Ok(Some(reply)) = tokio::time::timeout(long(), replies.next()).await else { break };
                let reply = reply?;
                let number = String::from_utf8(reply.data.clone()).unwrap();
                let id = reply.properties.correlation_id().as_ref().map(ToString::to_string);
                assert_eq!(id.as_deref(), Some(number.as_str()), "its own answer");
                seen.insert(number);
                all += 1;
                reply.ack(BasicAckOptions::default()).await?;
            }
            Ok::<(), lapin::Error>(())
        };
        if read.await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_done_though_gates_and_the_broker_die() {
    let authority = Authority::new();
    let mut broker = RabbitMq::start_tls(&authority.of_broker());
    let (url, count) = (broker.url(), messages());
    let rig =
        Rig::new(include_str!("../../../../examples/rabbitmq.yaml"), ("RABBITMQ_URL", url.clone())).await;
    {
        let (_connection, channel) = channel(&url).await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for queue in ["work", "work.urgent", REPLIES] {
            declare(&channel, queue).await;
        }
        let mut confirms = Vec::new();
        for number in 0..count {
            let queue = if number % 10 == 0 { "work.urgent" } else { "work" };
            confirms.push(publish(&channel, queue, number, "ms=3&echo=1").await);
        }
        for confirm in confirms {
            confirm.await.unwrap();
        }
    }
    // The second comes by TLS, and shows a certificate of its own.
    let (tls_url, tls) = (broker.tls_url(), authority.of_client());
    let gate = |index: usize| if index == 0 { rig.gate() } else { rig.gate_by(&tls_url, &tls) };
    let mut gates = vec![gate(0), gate(1)];
    for (share, index) in [(8, 0), (4, 1)] {
        rig.until_started((count / share) as usize, &gates).await;
        gates[index].kill();
        gates[index] = gate(index);
    }
    rig.until_started((count / 2) as usize, &gates).await;
    // Reading answers goes on meanwhile: whoever consumes must bear the restart as well.
    let reader = tokio::spawn({
        let url = url.clone();
        async move { answers(&url, count).await }
    });
    tokio::task::block_in_place(|| broker.restart());
    rig.until_started((count / 4 * 3) as usize, &gates).await;
    gates[0].kill();
    gates[0] = rig.gate();
    rig.until_started(count as usize, &gates).await;
    let all = reader.await.unwrap();
    rig.judge("RabbitMQ", count, 3);
    println!("RabbitMQ: {all} answers of {count} messages");
    failures(&url).await;
    let scrape = metrics_tell(&mut gates, "rabbitmq").await;
    for (gate, said) in gates.iter().enumerate() {
        let taken = scrape.of(gate, "sluicegate_messages_taken_total", &["broker=\"rabbitmq\""]);
        assert!(taken > 0, "gate {gate} took nothing:\n{}", said.output());
        assert!(scrape.of(gate, "sluicegate_message_prefetch", &["queue=\"work.urgent\""]) > 0);
    }
    drop(gates);
    // Whom we do not trust gets nothing, and it is said why.
    let mut stranger = rig.gate_by(&tls_url, "");
    tokio::task::block_in_place(|| {
        stranger.line(long(), |line| {
            (line.contains("RabbitMQ cannot be used") && line.contains("UnknownIssuer")).then_some(())
        });
    });
    drop(stranger);
    tokio::task::block_in_place(|| demo(&url));
}

/// A pod that fails is tried again and then given up; one that refuses the message is not asked twice.
async fn failures(url: &str) {
    let (_connection, channel) = channel(url).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for (number, trial, tries) in [(1_000_000, "status=503", 3), (1_000_001, "status=404", 1)] {
        publish(&channel, "work", number, trial).await.await.unwrap();
        let begin = Instant::now();
        let dead = loop {
            let got = channel.basic_get("work.dead".into(), BasicGetOptions { no_ack: true }).await.unwrap();
            if let Some(got) = got {
                break got.delivery;
            }
            assert!(begin.elapsed() < long(), "no dead letter of {trial}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(dead.data, number.to_string().into_bytes());
        let headers = dead.properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.get("x-sluicegate-tries"), Some(&AMQPValue::LongUInt(tries)), "{trial}");
        let AMQPValue::LongString(error) = &headers["x-sluicegate-error"] else { panic!("words") };
        assert!(String::from_utf8_lossy(error.as_bytes()).contains(&trial[7..]), "{error}");
    }
}

/// Certifies the broker and its clients.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { dir, issuer }
    }

    fn issue(&self, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str, text: String| {
            let path = self.dir.path().join(format!("{host}.{end}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        (file("pem", certificate.pem()), file("key", key.serialize_pem()))
    }

    fn of_broker(&self) -> RabbitTls {
        let (cert, key) = self.issue("127.0.0.1");
        RabbitTls { cert, key, client_ca: self.dir.path().join("ca.pem") }
    }

    /// The keys of a source that trusts it and shows a certificate.
    fn of_client(&self) -> String {
        let (cert, key) = self.issue("worker");
        format!(
            "      tls: {{ca: \"{}\", cert: \"{}\", key: \"{}\"}}\n",
            self.dir.path().join("ca.pem").display(),
            cert.display(),
            key.display()
        )
    }
}
