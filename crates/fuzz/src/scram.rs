//! Any password as a SCRAM verifier, held against a client that logs in with it; and any text as what a server says:
//! `PASSWORD \n SERVER FIRST \n SERVER FINAL`, in which the byte 1 stands for the client's nonce.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use pgrotate_core::Secret;
use pgrotate_providers::fuzzing;
use pgrotate_providers::postgres::is_verifier;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use sha2::{Digest, Sha256};

/// A server that has our verifier lets a client with the password in, and convinces it; no server makes a client panic.
pub fn scram(input: &[u8]) {
    let text = std::str::from_utf8(input).ok();
    let mut parts = text.into_iter().flat_map(|text| text.splitn(3, '\n'));
    let Some(password) = parts.next() else { return };
    let verifier = fuzzing::verifier(&Secret::new(password)).expect("every password has a verifier");
    assert!(is_verifier(&verifier), "the server would take it for a password");
    let server = Server::read(&verifier).expect("a verifier has PostgreSQL's form");
    server.lets_in(password);
    if let Some(first) = parts.next().filter(|first| is_quick(first)) {
        hostile(password, first, parts.next().unwrap_or_default());
    }
}

/// What any server says, to a client that logs in to it.
fn hostile(password: &str, first: &str, last: &str) {
    let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let nonce = text(client.message()).split_once("r=").expect("the client has a nonce").1.to_owned();
    if client.update(first.replace('\u{1}', &nonce).as_bytes()).is_ok() {
        let _ = client.finish(last.as_bytes());
    }
}

/// A client hashes up to 100 000 rounds for a server, which take long and find nothing; it has to refuse more.
fn is_quick(first: &str) -> bool {
    let rounds = |rest: &str| rest[..rest.bytes().take_while(u8::is_ascii_digit).count()].parse::<u64>();
    !first
        .split("i=")
        .skip(1)
        .filter_map(|rest| rounds(rest).ok())
        .any(|rounds| (10_000..=100_000).contains(&rounds))
}

/// What a server keeps of a password.
struct Server<'v> {
    iterations: &'v str,
    salt: &'v str,
    stored: Vec<u8>,
    key: Vec<u8>,
}

impl<'v> Server<'v> {
    fn read(verifier: &'v str) -> Option<Self> {
        let (work, keys) = verifier.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let ((iterations, salt), (stored, key)) = (work.split_once(':')?, keys.split_once(':')?);
        let bytes = |text| STANDARD.decode(text).ok();
        Some(Self { iterations, salt, stored: bytes(stored)?, key: bytes(key)? })
    }

    /// The exchange of RFC 5802, with the server's half written down here and the client's half a driver's own.
    fn lets_in(&self, password: &str) {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let bare = text(client.message()).strip_prefix("n,,").expect("no channel is bound").to_owned();
        let nonce = bare.split_once("r=").expect("the client has a nonce").1;
        let first = format!("r={nonce}fuzz,s={},i={}", self.salt, self.iterations);
        client.update(first.as_bytes()).expect("the client takes a server's first message");
        let last = text(client.message()).to_owned();
        let (without_proof, proof) = last.split_once(",p=").expect("the client proves itself");
        let exchange = format!("{bare},{first},{without_proof}");
        let proof = STANDARD.decode(proof).expect("a proof is base64");
        let signature = mac(&self.stored, &exchange);
        let client_key: Vec<u8> = std::iter::zip(&proof, &signature).map(|(one, two)| one ^ two).collect();
        assert_eq!(Sha256::digest(client_key)[..], self.stored, "the server would refuse the password");
        let convinced = format!("v={}", STANDARD.encode(mac(&self.key, &exchange)));
        client.finish(convinced.as_bytes()).expect("the server proves that it knows the password's verifier");
    }
}

fn text(message: &[u8]) -> &str {
    std::str::from_utf8(message).expect("SCRAM's messages are text")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
