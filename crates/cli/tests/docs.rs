//! What the documentation points at is there.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The documents, with their folders.
fn documents() -> Vec<PathBuf> {
    let markdown = |folder: PathBuf| {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    ["", "docs", "docs/design"].into_iter().flat_map(|folder| markdown(root().join(folder))).collect()
}

/// The links of a text that lead to files: `](…)`, and the definitions `[…]: …`.
fn links(text: &str) -> Vec<&str> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined =
        text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split("]: ").nth(1));
    let local = |link: &&str| !link.contains("://") && !link.starts_with('#');
    inline.chain(defined).map(|link| link.split('#').next().unwrap()).filter(local).collect()
}

#[test]
fn every_link_leads_to_a_file() {
    let mut followed = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let target = document.parent().unwrap().join(link);
            assert!(target.exists(), "{} links to {link}, which is not there", document.display());
            followed += 1;
        }
    }
    assert!(followed > 30, "only {followed} links were found");
}

#[test]
fn every_way_to_sign_in_names_a_test_that_there_is() {
    let text = std::fs::read_to_string(root().join("docs/sign-in.md")).unwrap();
    let tests = std::fs::read_to_string(root().join("crates/cli/tests/e2e/signin.rs")).unwrap();
    let named: Vec<&str> = text.split("[`").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(tests.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}
