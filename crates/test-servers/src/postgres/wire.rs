//! As much of PostgreSQL's protocol as it takes to ask a question.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may be silent.
const LIMIT: Duration = Duration::from_secs(60);

/// Protocol 3.0, user and database `postgres`, after the length of all.
pub(crate) const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

/// "The server is ready for the next question".
const READY: u8 = b'Z';

/// The rows of the answer, as text.
pub(super) fn ask(address: SocketAddr, statements: &str) -> io::Result<Vec<Vec<Option<String>>>> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(STARTUP)?;
    read_until_ready(&mut stream, |_, _| Ok(()))?;
    let mut rows = Vec::new();
    send(&mut stream, b'Q', &[statements.as_bytes(), b"\0"].concat())?;
    read_until_ready(&mut stream, |kind, body| {
        if kind == b'D' {
            rows.push(row(body)?);
        }
        Ok(())
    })?;
    send(&mut stream, b'X', b"")?;
    Ok(rows)
}

fn send(stream: &mut TcpStream, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    stream.write_all(&[&[kind], &length.to_be_bytes()[..], body].concat())
}

/// Reads messages until the server waits. A refusal is the error, also where the server goes on after it.
fn read_until_ready(
    stream: &mut TcpStream,
    mut take: impl FnMut(u8, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut refusal = None;
    loop {
        let mut head = [0; 5];
        if let Err(error) = stream.read_exact(&mut head) {
            // A server that refuses to begin says why and hangs up.
            return Err(refusal.unwrap_or(error));
        }
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        let mut body = vec![0; length.checked_sub(4).ok_or_else(nonsense)?];
        stream.read_exact(&mut body)?;
        match kind {
            READY => return refusal.map_or(Ok(()), Err),
            b'E' => refusal = Some(io::Error::other(message(&body))),
            b'R' if body != [0; 4] => return Err(io::Error::other("it wants a password")),
            _ => take(kind, &body)?,
        }
    }
}

/// "SERROR\0C42601\0Msyntax error\0\0": severity, code and message.
fn message(body: &[u8]) -> String {
    let fields: Vec<_> = body.split(|byte| *byte == 0).collect();
    let field = |kind: u8| fields.iter().find_map(|field| field.strip_prefix(&[kind]));
    let words: Vec<_> = b"SCM".iter().filter_map(|kind| field(*kind)).map(String::from_utf8_lossy).collect();
    words.join(" ")
}

/// A count, and for each column its length and its text, or -1 for null.
fn row(body: &[u8]) -> io::Result<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk().ok_or_else(nonsense)?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk().ok_or_else(nonsense)?;
        rest = after;
        let text = match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                let (text, after) = rest.split_at_checked(length).ok_or_else(nonsense)?;
                rest = after;
                Some(String::from_utf8_lossy(text).into_owned())
            }
            Err(_) => None,
        };
        columns.push(text);
    }
    Ok(columns)
}

fn nonsense() -> io::Error {
    io::Error::other("it is no PostgreSQL server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_texts_and_nulls() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(row(body).unwrap(), [Some("ab".to_owned()), None, Some(String::new())]);
        row(&body[..9]).unwrap_err();
        row(b"").unwrap_err();
    }

    #[test]
    fn a_refusal_has_its_code_and_its_message() {
        assert_eq!(message(b"SERROR\0VERROR\0C42601\0Msyntax error\0P1\0\0"), "ERROR 42601 syntax error");
    }
}
