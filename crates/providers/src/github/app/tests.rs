//! The key's forms, and the proof that it signs.

use base64::engine::general_purpose::STANDARD;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::*;
use crate::fake::shared;
use crate::github::testing::key;
use crate::shared::Vendors;

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn der() -> Vec<u8> {
    let body: String = key().lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

/// The same key as other tools write it: with the algorithm's name around it.
fn pkcs8() -> String {
    let sized = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    };
    let algorithm =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let content = [&[0x02, 0x01, 0x00], &algorithm[..], &sized(0x04, &der())].concat();
    pem("PRIVATE KEY", &sized(0x30, &content))
}

fn app(credentials: &str) -> Result<App> {
    let shared = shared(Vendors::default(), credentials);
    App::new("123", &shared.credentials, |file| shared.path(file).into_boxed_path())
}

fn in_file(text: &str) -> Result<App> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.pem");
    std::fs::write(&path, text).unwrap();
    app(&format!("{KEY_FILE}={}\n", path.display()))
}

#[test]
fn a_proof_is_signed_and_good_for_less_than_ten_minutes() {
    let now = Timestamp::from_second(1_767_225_600).unwrap();
    let in_one_line = format!("{KEY}={}\n", key().replace('\n', "\\n"));
    for app in [app(&in_one_line), in_file(key()), in_file(&pkcs8())] {
        let app = app.unwrap();
        let proof = app.assertion(now).unwrap();
        let (signed, signature) = proof.expose().rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, app.key.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let parts: Vec<serde_json::Value> = signed
            .split('.')
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], json!({"alg": "RS256", "typ": "JWT"}));
        assert_eq!(parts[1], json!({"iat": 1_767_225_540, "exp": 1_767_226_140, "iss": "123"}));
        assert!(parts[1]["exp"].as_i64().unwrap() - parts[1]["iat"].as_i64().unwrap() <= 600);
    }
}

#[test]
fn a_key_that_is_none_is_described_and_never_shown() {
    let body = STANDARD.encode(b"hunter2 hunter2 hunter2 hunter2");
    for (text, said) in [
        ("hunter2".to_owned(), "no private key in PEM form"),
        (format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n"), "no RSA key"),
        (format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n"), "2048 bits"),
        (key().replace("RSA PRIVATE", "PUBLIC"), "no private key in PEM form"),
    ] {
        let error = in_file(&text).err().unwrap();
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert!(error.hints()[0].contains("Private keys"), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2") && !format!("{error:?}").contains(&body));
    }
    let gone = app(&format!("{KEY_FILE}=/nowhere/app.pem\n")).err().unwrap();
    assert!(gone.to_string().contains("/nowhere/app.pem"), "{gone}");
    let none = app("").err().unwrap();
    assert!(none.to_string().contains("neither GITHUB_APP_PRIVATE_KEY nor"), "{none}");
}
