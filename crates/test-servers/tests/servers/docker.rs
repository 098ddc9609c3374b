//! What the Docker engine knows of servers, asked without the library that is tested.

use std::env;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// How many containers there are, also dead ones, of servers whose directories begin so. None where there is no Docker engine.
pub(crate) fn containers_of(prefix: &Path) -> usize {
    let ours = format!("\"locks.test-servers.directory\":\"{}", prefix.display());
    asked_of_docker("/containers/json?all=true").matches(&ours).count()
}

/// What the Docker engine answers, or nothing if there is none.
pub(crate) fn asked_of_docker(path: &str) -> String {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    let Ok(mut engine) = UnixStream::connect(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock"))
    else {
        return String::new();
    };
    engine.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 OK"), "{answer}");
    answer
}
