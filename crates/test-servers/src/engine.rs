//! The Docker engine of this machine: whether there is one, which images it has, and how it gets one.

use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the engine may take for one answer.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a registry may be silent while an image is pulled.
const SILENCE: Duration = Duration::from_secs(20);

/// How long an image may take to come.
const PULL: Duration = Duration::from_secs(300);

/// An engine that shares this machine's files, processes and network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Engine {
    socket: PathBuf,
    version: String,
}

/// What an engine knows of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// The first digits of its digest.
    pub(crate) id: String,
    environment: Vec<String>,
}

impl Engine {
    /// The engine, or why there is none. Asked once in the life of a process: a missing socket costs nothing, and a slow engine not
    /// much.
    pub(crate) fn of_this_machine() -> Result<&'static Self, &'static str> {
        static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
        ENGINE.get_or_init(Self::find).as_ref().map_err(String::as_str)
    }

    fn find() -> Result<Self, String> {
        let socket = socket(env::var("DOCKER_HOST").ok(), env::var("XDG_RUNTIME_DIR").ok())?;
        let why = |error: io::Error| format!("no Docker engine answers at {}: {error}", socket.display());
        let (status, body) = request(&socket, "GET", "/info", PROMPT).map_err(why)?;
        let info: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != 200 {
            return Err(format!("the Docker engine at {} refuses: {info}", socket.display()));
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let version = of_this_machine(&info, host.trim())?;
        Ok(Self { socket, version })
    }

    /// Where it is reached.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The image, if it is there.
    pub(crate) fn image(&self, name: &str) -> io::Result<Option<Inspected>> {
        let (status, body) = request(&self.socket, "GET", &format!("/images/{name}/json"), PROMPT)?;
        match status {
            200 => Ok(Inspected::read(&serde_json::from_slice(&body)?)),
            404 => Ok(None),
            _ => Err(io::Error::other(String::from_utf8_lossy(&body).trim().to_owned())),
        }
    }

    /// Pulls the image from its registry. Gives up when nothing is heard for a while.
    pub(crate) fn pull(&self, name: &str) -> io::Result<()> {
        let path = format!("/images/create?fromImage={}", name.replace('/', "%2F").replace(':', "%3A"));
        let (_, body) = request(&self.socket, "POST", &path, SILENCE)?;
        // One line for each step; the last one tells what went wrong.
        let body = String::from_utf8_lossy(&body);
        let last: Value =
            body.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        match ["error", "message"].iter().find_map(|field| last.get(field)?.as_str()) {
            Some(error) => Err(io::Error::other(error.to_owned())),
            None => Ok(()),
        }
    }
}

impl Inspected {
    pub(crate) fn read(image: &Value) -> Option<Self> {
        let id = image.get("Id")?.as_str()?;
        let id = id.trim_start_matches("sha256:").chars().take(12).collect();
        let environment = image.pointer("/Config/Env").and_then(Value::as_array);
        let environment = environment.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        Some(Self { id, environment: environment.collect() })
    }

    /// A variable that it sets, such as that with the server's version.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Where an engine listens, if it does: where the environment says, else at one of the usual places.
fn socket(docker_host: Option<String>, runtime: Option<String>) -> Result<PathBuf, String> {
    if let Some(host) = docker_host.filter(|host| !host.is_empty()) {
        let path = host.strip_prefix("unix://").map(PathBuf::from);
        return path
            .ok_or_else(|| format!("the Docker engine of DOCKER_HOST={host} is not one of this machine"));
    }
    let usual = Path::new("/var/run/docker.sock");
    let of_user = runtime.map(|runtime| Path::new(&runtime).join("docker.sock"));
    let found = [Some(usual.to_owned()), of_user].into_iter().flatten().find(|path| path.exists());
    found.ok_or_else(|| format!("there is no Docker engine: no {}", usual.display()))
}

/// The version of an engine that says this of itself, if what runs there is seen here: a server's files, processes and ports.
fn of_this_machine(info: &Value, host: &str) -> Result<String, String> {
    let text = |field| info.get(field).and_then(Value::as_str).unwrap_or_default();
    let security = info.get("SecurityOptions").and_then(Value::as_array);
    let mut security = security.into_iter().flatten().filter_map(Value::as_str);
    if text("OSType") != "linux" || text("Name") != host {
        return Err(format!(
            "the Docker engine is one of the machine {:?}, which is not this one",
            text("Name")
        ));
    }
    if let Some(apart) = security.find(|option| option.contains("rootless") || option.contains("userns")) {
        return Err(format!("the Docker engine keeps its containers apart from this machine ({apart})"));
    }
    Ok(text("ServerVersion").to_owned())
}

/// The status and the body of what the engine answers. No part of it may take longer to come than this.
fn request(socket: &Path, method: &str, path: &str, silence: Duration) -> io::Result<(u16, Vec<u8>)> {
    let until = Instant::now() + PULL;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(silence))?;
    stream.set_write_timeout(Some(silence))?;
    // In one piece: an engine may answer as soon as it has read enough.
    let question = format!("{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    let mut some = [0; 16 * 1024];
    loop {
        match stream.read(&mut some) {
            Ok(0) => return parse(&answer),
            Ok(length) => answer.extend_from_slice(some.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {silence:?}")));
            }
            Err(error) => return Err(error),
        }
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done within {PULL:?}")));
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let nonsense = || io::Error::other("it is no Docker engine");
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or_else(nonsense)?;
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Ok((status.ok_or_else(nonsense)?, body.get(4..).unwrap_or_default().to_vec()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    fn info() -> Value {
        json!({"Name": "here", "OSType": "linux", "ServerVersion": "1.2", "SecurityOptions": ["name=seccomp,profile=default"]})
    }

    #[test]
    fn only_an_engine_of_this_machine_counts() {
        assert_eq!(of_this_machine(&info(), "here").unwrap(), "1.2");
        let error = of_this_machine(&info(), "there").unwrap_err();
        assert!(error.contains("not this one"), "{error}");
        let mut apart = info();
        apart["SecurityOptions"] = json!(["name=seccomp", "name=rootless"]);
        let error = of_this_machine(&apart, "here").unwrap_err();
        assert!(error.contains("name=rootless"), "{error}");
        of_this_machine(&Value::Null, "here").unwrap_err();
    }

    #[test]
    fn a_missing_socket_is_an_answer() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(socket(some("unix:///x"), None).unwrap(), Path::new("/x"));
        let error = socket(some("tcp://h:1"), None).unwrap_err();
        assert!(error.contains("DOCKER_HOST=tcp://h:1"), "{error}");
    }

    #[test]
    fn an_image_has_a_digest_and_versions() {
        let image = json!({"Id": "sha256:0123456789abcdef", "Config": {"Env": ["PATH=/bin", "REDIS_VERSION=7.0.15"]}});
        let image = Inspected::read(&image).unwrap();
        assert_eq!(image.id, "0123456789ab");
        assert_eq!(image.variable("REDIS_VERSION"), Some("7.0.15"));
        assert_eq!(image.variable("REDIS"), None);
        assert_eq!(Inspected::read(&json!({"Id": "x"})).unwrap().variable("PATH"), None);
        assert_eq!(Inspected::read(&Value::Null), None);
    }

    /// An engine that answers once.
    fn answering(name: &str, answer: &'static str) -> (Engine, thread::JoinHandle<String>) {
        let path = env::temp_dir().join(format!("locks-test-engine-{}-{name}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let socket = path.clone();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            fs::remove_file(path).unwrap();
            let mut question = String::new();
            let mut lines = BufReader::new(&mut stream);
            while !question.ends_with("\r\n\r\n") {
                assert_ne!(lines.read_line(&mut question).unwrap(), 0, "half a question: {question}");
            }
            stream.write_all(answer.as_bytes()).unwrap();
            question
        });
        (Engine { socket, version: String::new() }, thread)
    }

    #[test]
    fn an_image_that_is_not_there_is_no_error_and_a_refusal_is() {
        let (engine, thread) = answering("missing", "HTTP/1.0 404 Not Found\r\n\r\n{}");
        assert_eq!(engine.image("quay.io/a:b").unwrap(), None);
        assert!(thread.join().unwrap().starts_with("GET /images/quay.io/a:b/json HTTP/1.0\r\n"));
        let (engine, thread) = answering("refused", "HTTP/1.0 500 Internal\r\n\r\nno");
        assert_eq!(engine.image("a").unwrap_err().to_string(), "no");
        thread.join().unwrap();
        engine.image("a").unwrap_err();
    }

    #[test]
    fn a_pull_tells_what_went_wrong() {
        let (engine, thread) =
            answering("pulled", "HTTP/1.0 200 OK\r\n\r\n{\"status\":\"x\"}\n{\"status\":\"y\"}\n");
        engine.pull("quay.io/a:b").unwrap();
        let question = thread.join().unwrap();
        assert!(
            question.starts_with("POST /images/create?fromImage=quay.io%2Fa%3Ab HTTP/1.0\r\n"),
            "{question}"
        );
        let (engine, thread) =
            answering("broken", "HTTP/1.0 200 OK\r\n\r\n{\"status\":\"x\"}\n{\"error\":\"e\"}\n");
        assert_eq!(engine.pull("a").unwrap_err().to_string(), "e");
        thread.join().unwrap();
        let (engine, thread) = answering("unknown", "HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"m\"}\n");
        assert_eq!(engine.pull("a").unwrap_err().to_string(), "m");
        thread.join().unwrap();
    }
}
