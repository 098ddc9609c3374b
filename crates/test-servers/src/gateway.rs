//! What an operator does to a member of etcd, over its HTTP gateway.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const LIMIT: Duration = Duration::from_secs(10);

/// Calls one method, such as `kv/range`, with a message as JSON. The answer, as JSON.
///
/// # Errors
///
/// If the member can't be reached, or answers with anything but success.
pub fn call(member: SocketAddr, method: &str, message: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&member, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = message.len();
    let request = format!(
        "POST /v3/{method} HTTP/1.1\r\nHost: {member}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{message}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("{method} was answered {head} {body}")));
    }
    Ok(body.to_owned())
}

/// The texts of all fields of this name, in order.
#[must_use]
pub fn fields<'a>(json: &'a str, name: &str) -> Vec<&'a str> {
    let begins = format!("\"{name}\":\"");
    json.split(&begins).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// The keys that begin like this, those that were created first coming first, as base64.
///
/// # Errors
///
/// As [`call`].
pub fn keys(member: SocketAddr, beginning: &str) -> io::Result<Vec<String>> {
    let mut end = beginning.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let message = format!(
        "{{\"key\":\"{}\",\"range_end\":\"{}\",\"keys_only\":true,\"sort_target\":\"CREATE\",\"sort_order\":\"ASCEND\"}}",
        encode(beginning.as_bytes()),
        encode(&end)
    );
    let answer = call(member, "kv/range", &message)?;
    Ok(fields(&answer, "key").into_iter().map(str::to_owned).collect())
}

/// Deletes this key, given as base64.
///
/// # Errors
///
/// As [`call`].
pub fn delete(member: SocketAddr, key: &str) -> io::Result<()> {
    call(member, "kv/deleterange", &format!("{{\"key\":\"{key}\"}}")).map(drop)
}

/// Bytes as the gateway has them.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The bytes that the gateway has like this.
///
/// # Errors
///
/// If it is no base64.
pub fn decode(text: &str) -> io::Result<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(io::Error::other)
}
