use std::process::Stdio;

use serde_json::{Value, json};

use crate::canary::Canary;
use crate::lab::Lab;
use crate::memory;

#[test]
fn measure() {
    let lab = Lab::with_base64_passwords("dev,staging");
    let old = lab.password("dev");
    let fault: Value = if let Ok(text) = std::env::var("FAULT") {
        serde_json::from_str(&text).unwrap()
    } else {
        json!({ "path_contains": "staging", "when": "before", "kind": "hold" })
    };
    lab.fault(&fault);
    let mut process = lab
        .command(&["rotate", "dev", "staging", "--ticket", "OPS-7"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    lab.wait_for("a request that is held", || {
        lab.requests().iter().any(|request| request["fault"] == "hold")
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    let new = lab.password("dev");
    for r in lab.requests().iter().filter(|r| r["fault"] == "hold") {
        eprintln!("{r}");
    }
    eprintln!("same {}", old == new);
    std::process::Command::new("python3")
        .args(["/tmp/leaks-look/ctx.py", &process.id().to_string(), &new])
        .status()
        .unwrap();
    let canary = Canary::of([("old", old), ("new", new)]);
    let memory = memory::search(process.id(), &canary).unwrap();
    eprintln!("{memory:#?} old {} new {}", memory.copies_of("old"), memory.copies_of("new"));
    if let Ok(out) = std::env::var("GCORE") {
        std::process::Command::new("gcore")
            .args(["-a", "-o", &out, &process.id().to_string()])
            .status()
            .unwrap();
        std::fs::write(format!("{out}.pw"), format!("{}\n{}\n", lab.password("dev"), "")).unwrap();
    }
    process.kill().unwrap();
    process.wait().unwrap();
}
