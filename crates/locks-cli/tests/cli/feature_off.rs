//! A build without a store: `cargo test -p locks-cli --no-default-features`.

use std::process::Command;

#[test]
fn the_feature_is_named_with_the_command_that_adds_it() {
    for tool in [env!("CARGO_BIN_EXE_lock-abort"), env!("CARGO_BIN_EXE_lock-block")] {
        for url in [&["--url", "file:/tmp"][..], &[]] {
            let output = Command::new(tool)
                .env_remove("LOCKS_URL")
                .args(url)
                .args(["echo", "it ran"])
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(
                stderr.contains("\"file\"") && stderr.contains("cargo install locks-cli --features file"),
                "{stderr}"
            );
        }
    }
}
